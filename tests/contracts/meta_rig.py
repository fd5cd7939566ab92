"""The Meta connector as the agent runs it, over a recording way to its stand-in, in any currency."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from kiki_meta.connector import MetaConnector
from kiki_meta.history import Edit
from kiki_meta.sandbox import ACCOUNT, PIXEL, MetaSandbox

from kiki_agent.config import Settings
from kiki_agent.hooks.context import ContextFactory
from kiki_agent.hooks.http import HttpAnswer, InProcessHttp
from kiki_agent.hooks.manager import Plugins
from kiki_agent.model import Campaign, Instant, Intent, IntentKind, intent_key, parse_iso
from kiki_agent.runtime.clock import SimClock
from kiki_agent.sandbox import Desk, EffectsLog, Faults, Market

NOW = parse_iso("2026-06-01T12:00:00Z")
ROOT = "https://graph.test"
TOKEN, SECRET = "token-canary-7391", "canary-7391"
"""The stand-in's credentials are made of the secret; both are looked for in every text."""
Answer = tuple[int, Mapping[str, str], bytes]


class Waiting(SimClock):
    """Time that passes when somebody waits for it."""

    async def sleep_until(self, due: Instant, order: int = 0) -> None:
        self.instant = max(self.instant, due)


@dataclass(frozen=True)
class Asked:
    """One request as it left."""

    method: str
    path: str
    """After the host, without the query."""
    params: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def fields(self) -> dict[str, Any]:
        """The form or JSON object in the body."""
        if "json" in self.headers.get("content-type", ""):
            found: dict[str, Any] = json.loads(self.body)
            return found
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))


@dataclass
class Exchange:
    """A request and what came back; no answer when it was lost."""

    asked: Asked
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Wire:
    """Hands requests to the stand-in, notes everything, and can change an answer on its way."""

    sandbox: MetaSandbox
    clock: SimClock
    market: Market
    exchanges: list[Exchange] = field(default_factory=list)
    alter: Callable[[Asked, Answer], Answer] = lambda asked, answer: answer
    before: Callable[[Asked], None] = lambda asked: None

    def handle(self, method: str, target: str, headers: Mapping[str, str], body: bytes, now: Instant) -> Answer:
        path, _, query = target.partition("?")
        asked = Asked(method, path, dict(parse_qsl(query, keep_blank_values=True)), dict(headers), body)
        exchange = Exchange(asked)
        self.exchanges.append(exchange)
        self.before(asked)
        self.market.advance_to(now)
        answer = self.alter(asked, self.sandbox.handle(method, target, headers, body, now))
        exchange.status, exchange.headers, exchange.body = answer
        return answer

    @property
    def asked(self) -> list[Asked]:
        return [each.asked for each in self.exchanges]


@dataclass
class Rig:
    """One connector."""

    wire: Wire
    plugins: Plugins
    clock: SimClock
    faults: Faults
    effects: EffectsLog

    @property
    def sandbox(self) -> MetaSandbox:
        return self.wire.sandbox

    @property
    def connector(self) -> MetaConnector:
        made: object = getattr(self.plugins.instances["m"].hooks["check"].function, "__self__", None)
        assert isinstance(made, MetaConnector)
        return made

    def to(self, verb: str, *args: object) -> Awaitable[Any]:
        return self.plugins.caller.to("m", verb, *args)

    async def campaigns(self) -> list[Campaign]:
        return list(await self.to("fetch_campaigns"))

    async def edits(self, since: Instant) -> list[Edit]:
        return list(await self.connector.changes(since))

    def answer(
        self, part: str, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None, method: str = ""
    ) -> None:
        """From now on answer requests for such paths with this, whatever the stand-in did."""

        def alter(asked: Asked, answer: Answer) -> Answer:
            hit = part in asked.path and method in ("", asked.method)
            return (status, headers or {"content-type": "application/json"}, body) if hit else answer

        self.wire.alter = alter

    def change(self, part: str, change: Callable[[Any], Any]) -> None:
        """From now on change the JSON of answers for such paths."""

        def alter(asked: Asked, answer: Answer) -> Answer:
            if part not in asked.path or answer[0] != 200:
                return answer
            said = json.loads(answer[2])
            changed = change(said)
            return answer[0], answer[1], json.dumps(said if changed is None else changed).encode()

        self.wire.alter = alter


@asynccontextmanager
async def running(
    *,
    currency: str = "USD",
    dry_run: bool = False,
    page_size: int = 500,
    score_per_hour: int = 9_000,
    history_days: int = 5,
    campaigns: int = 120,
    strategies: Mapping[int, str] | None = None,
    **config: object,
) -> AsyncIterator[Rig]:
    """A connector `m` in front of a market of twenty ad sets."""
    clock = Waiting(NOW)
    market = Market(1, NOW, campaigns, history_days)
    faults, effects = Faults(), EffectsLog()
    desk = Desk(market, effects, faults, "meta", "sandbox", SECRET)
    sandbox = MetaSandbox(desk, currency=currency, score_per_hour=score_per_hour)
    sandbox.account.strategies.update(strategies or {})
    wire = Wire(sandbox, clock, market)
    table = {
        "plugin": "meta",
        "platform": "meta",
        "daily_cap": "100",
        "base_url": ROOT,
        "account_id": f"act_{ACCOUNT}",
        "access_token": TOKEN,
        "app_secret": f"app-{SECRET}",
        "pixel_id": PIXEL,
        "page_size": page_size,
        **config,
    }
    settings = Settings.model_validate({"plugins": {"allow": ["meta"]}, "connector": {"m": table}})
    factory = ContextFactory(clock=clock, make_http=lambda _: InProcessHttp(wire.handle, clock), dry_run=dry_run)
    plugins = await Plugins.load(settings, make_context=factory, simulated=True)
    try:
        yield Rig(wire, plugins, clock, faults, effects)
    finally:
        await plugins.close(seconds=1, grace_seconds=0.1)


def intent(
    kind: IntentKind,
    campaign: Campaign | str,
    after: int,
    before: int | None = None,
    *,
    cause: str = "",
    at: Instant = NOW,
    ltv_micros: int = 0,
) -> Intent:
    """A wanted change; `before` is what the campaign was read with unless it is said."""
    if isinstance(campaign, str):
        name, stood, budget = campaign, 0, ""
    else:
        name, budget = campaign.campaign_id, campaign.budget_id
        stood = {
            IntentKind.SET_BUDGET: campaign.daily_budget_micros,
            IntentKind.ADJUST_BID: campaign.bid_micros,
            IntentKind.SET_STATUS: int(campaign.status.value == "active"),
            IntentKind.PLACE_BID: 0,
        }[kind]
    return Intent(
        intent_key("m", name, kind, at, f"{cause}{after}"),
        kind,
        "m",
        name,
        stood if before is None else before,
        after,
        "USD",
        "TEST",
        at,
        budget_id=budget,
        ltv_micros=ltv_micros,
    )


__all__ = ["ACCOUNT", "NOW", "PIXEL", "SECRET", "TOKEN", "Asked", "Exchange", "HttpAnswer", "Rig", "intent", "running"]
