"""One ad account of one sandbox platform."""

from __future__ import annotations

from collections.abc import Sequence

from kiki_agent import Capabilities, PluginContext, hookimpl
from kiki_agent.errors import PluginError, Temporary
from kiki_agent.model import (
    DAY,
    HOUR,
    Campaign,
    CampaignStatus,
    DayWindow,
    Instant,
    Intent,
    IntentKind,
    Outcome,
    PerformanceReport,
    Receipt,
    SpendReport,
    iso,
)
from kiki_sandbox import mapping
from kiki_sandbox.client import SandboxClient
from kiki_sandbox.config import SandboxConfig

BATCH = 500
KEYS_PER_READ = 100
REMEMBERED = 3 * DAY - HOUR
"""The vendor lists changes by our keys for three days."""


class SandboxConnector:
    """All verbs of a connector over the generic vendor API."""

    def __init__(self, context: PluginContext[SandboxConfig]) -> None:
        self._context = context
        self._client = SandboxClient(context)
        self._root = f"/v1/{context.platform}"

    @hookimpl
    async def check(self) -> None:
        """Credentials, address and platform in one read."""
        await self._client.read(f"{self._root}/campaigns", mapping.CampaignsBody, page_size="1")

    @hookimpl
    async def capabilities(self) -> Capabilities:
        """Facts of every sandbox account."""
        return Capabilities(currency="USD", timezone="UTC", batch_size=BATCH, keeps_keys=True)

    @hookimpl
    async def fetch_campaigns(self) -> Sequence[Campaign]:
        """All pages."""
        found: list[Campaign] = []
        params = {"page_size": str(self._context.config.page_size)}
        while True:
            body = await self._client.read(f"{self._root}/campaigns", mapping.CampaignsBody, **params)
            found.extend(
                mapping.campaign(item, self._context.instance_id, self._context.platform) for item in body.campaigns
            )
            if not body.next_page_token:
                return found
            if body.next_page_token == params.get("page_token") or not body.campaigns:
                raise Temporary("the sandbox's answer is garbled: its pages of campaigns do not end")
            params["page_token"] = body.next_page_token

    @hookimpl
    async def fetch_performance(self, window: DayWindow, cursor: str | None) -> PerformanceReport:
        """One page."""
        params = {"first_day": window.first_day, "last_day": window.last_day}
        if cursor is not None:
            params["cursor"] = cursor
        return mapping.performance(
            await self._client.read(f"{self._root}/performance", mapping.PerformanceBody, **params)
        )

    @hookimpl
    async def fetch_spend(self, since: Instant) -> SpendReport:
        """Spend per campaign and day, fresh to the minute."""
        return mapping.spend(await self._client.read(f"{self._root}/spend", mapping.SpendBody, since=iso(since)))

    @hookimpl
    async def set_budget(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """Daily budgets."""
        return await self._write(IntentKind.SET_BUDGET, intents)

    @hookimpl
    async def adjust_bid(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """Highest price per click."""
        return await self._write(IntentKind.ADJUST_BID, intents)

    @hookimpl
    async def place_bid(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """Direct buys at a fixed amount."""
        return await self._write(IntentKind.PLACE_BID, intents)

    @hookimpl
    async def set_status(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """Pause or enable."""
        return await self._write(IntentKind.SET_STATUS, intents)

    @hookimpl
    async def reconcile(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """By key while the vendor remembers it; after that by the value in force, which can confirm but not deny."""
        made: dict[str, str] = {}
        for start in range(0, len(intents), KEYS_PER_READ):
            keys = ",".join(intent.key for intent in intents[start : start + KEYS_PER_READ])
            body = await self._client.read(f"{self._root}/effects", mapping.EffectsBody, keys=keys)
            made.update((effect.client_ref, effect.effect_id) for effect in body.effects)
        now = self._context.clock.now()
        forgotten = [intent for intent in intents if intent.key not in made and now - intent.at > REMEMBERED]
        campaigns = {each.campaign_id: each for each in await self.fetch_campaigns()} if forgotten else {}
        old = {intent.key for intent in forgotten}
        receipts = []
        for intent in intents:
            if intent.key in made:
                receipts.append(Receipt(intent.key, Outcome.ACCEPTED, vendor_ref=made[intent.key]))
            elif intent.key not in old:
                receipts.append(Receipt(intent.key, Outcome.REJECTED, "NOT_APPLIED"))
            elif _in_force(campaigns.get(intent.campaign_id), intent.kind) == intent.after:
                receipts.append(Receipt(intent.key, Outcome.ACCEPTED, "IN_FORCE"))
            else:
                receipts.append(Receipt(intent.key, Outcome.UNKNOWN, "TOO_OLD_TO_TELL"))
        return receipts

    @hookimpl
    async def close(self) -> None:
        """Nothing to let go of: connections belong to the context."""

    async def _write(self, kind: IntentKind, intents: Sequence[Intent]) -> list[Receipt]:
        receipts: list[Receipt] = []
        for start in range(0, len(intents), BATCH):
            part = intents[start : start + BATCH]
            keys = tuple(intent.key for intent in part)
            path = f"{self._root}/{mapping.PATHS[kind]}"
            try:
                body = await self._client.write(path, mapping.operations(kind, part), mapping.ResultsBody, keys)
            except PluginError:
                if not receipts:
                    raise
                # what came before is done and must be told; the rest is settled by reading back
                receipts.extend(Receipt(intent.key, Outcome.UNKNOWN, "CUT_SHORT") for intent in intents[start:])
                break
            receipts.extend(mapping.receipts(body, part))
        return receipts


def _in_force(campaign: Campaign | None, kind: IntentKind) -> int | None:
    if campaign is None:
        return None
    match kind:
        case IntentKind.SET_BUDGET:
            return campaign.daily_budget_micros
        case IntentKind.ADJUST_BID:
            return campaign.bid_micros
        case IntentKind.SET_STATUS:
            return int(campaign.status is CampaignStatus.ACTIVE)
        case IntentKind.PLACE_BID:
            return None
