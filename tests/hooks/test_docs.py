"""The page for plugin authors tells the truth: its example runs, its tables match the code."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from kiki_agent import errors
from kiki_agent.config import Settings
from kiki_agent.errors import AuthExpired, RateLimited, Temporary
from kiki_agent.hooks.context import ContextFactory, PluginContext
from kiki_agent.hooks.http import InProcessHttp, NoAnswer
from kiki_agent.hooks.instance import Quarantine
from kiki_agent.hooks.manager import Plugins
from kiki_agent.hooks.specs import API_VERSION, VERBS
from kiki_agent.model import SECOND, Campaign, Instant, Intent, IntentKind, Outcome, Receipt, SpendReport
from kiki_agent.runtime.clock import SimClock

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
NOW = Instant(1_790_000_000_000_000)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def section(title: str) -> str:
    return PAGE.split(f"\n{title}\n", 1)[1].split("\n## ", 1)[0]


def first_cells(text: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)


@pytest.mark.parametrize("kind", VERBS)
def test_every_hook_is_documented_as_it_is(kind: str) -> None:
    rows = [line for line in section(f"### {kind}").split("\n### ")[0].splitlines() if line.startswith("| `")]
    expected = [
        f"| `{verb.signature.replace('|', chr(92) + '|')}` | {verb.summary} | {verb.deadline_s:g} s"
        f"{', write' if verb.writes else ''} |"
        for verb in VERBS[kind].values()
    ]
    assert rows == expected


def test_every_quarantine_state_is_explained() -> None:
    assert first_cells(section("## States")) == [state.value for state in Quarantine]


def test_every_member_of_the_context_is_explained() -> None:
    names = {re.match(r"\w+", cell)[0] for cell in first_cells(section("## What a plugin is handed"))}  # type: ignore[index]
    assert names == {item.name for item in dataclasses.fields(PluginContext)} | {"rng", "spawn"}


def test_every_error_a_plugin_may_raise_is_explained() -> None:
    names = {re.match(r"\w+", cell)[0] for cell in first_cells(section("## What a plugin may raise"))}  # type: ignore[index]
    defined = {
        name
        for name in errors.__all__
        if issubclass(getattr(errors, name), errors.PluginError) and name not in ("PluginError", "Bug")
    }
    assert names == defined


def test_the_version_is_the_one_that_runs() -> None:
    assert f"`kiki_agent.API_VERSION` is `{API_VERSION}`" in PAGE


class Acme:
    """The vendor of the example."""

    def __init__(self) -> None:
        self.budget = "10.00"
        self.status = 200
        self.answer = True
        self.tokens: set[str] = set()

    def handle(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, now: Instant
    ) -> tuple[int, Mapping[str, str], bytes]:
        self.tokens.add(headers["authorization"])
        if not self.answer:
            raise NoAnswer("time-out", sent=True)
        if self.status != 200:
            return self.status, {"retry-after": "30"}, b""
        found: dict[str, object]
        if target == "/v1/account":
            found = {"currency": "EUR", "timezone": "Europe/Berlin"}
        elif target == "/v1/campaigns":
            found = {"items": [{"id": "7", "name": "Seven", "active": True, "budget": self.budget, "bid": "0.5"}]}
        elif target.startswith("/v1/spend?since="):
            found = {"rows": [{"id": "7", "day": "2026-09-21", "spend": "3.25"}], "as_of": NOW // SECOND}
        elif method == "PUT" and target == "/v1/campaigns/7/budget":
            self.budget = json.loads(body)["budget"]
            found = {}
        else:
            found = {"error": "NO_SUCH_CAMPAIGN"}
        return 200, {}, json.dumps(found).encode()


def intent(campaign_id: str = "7") -> Intent:
    return Intent("k" + campaign_id, IntentKind.SET_BUDGET, "acme_eu", campaign_id, 0, 12_500_000, "EUR", "SHIFT", NOW)


@pytest.fixture
async def acme_and_plugins(tmp_path: Path) -> tuple[Acme, Plugins]:
    """The example of the page as a file, configured with the table of the page."""
    (tmp_path / "acme.py").write_text(blocks("python")[0])
    table = tomllib.loads(blocks("toml")[0])
    table["plugins"]["folder"] = str(tmp_path)
    acme, clock = Acme(), SimClock(NOW)
    factory = ContextFactory(clock=clock, make_http=lambda _: InProcessHttp(acme.handle, clock))
    return acme, await Plugins.load(Settings.model_validate(table), make_context=factory)


async def test_the_example_reads_and_writes(acme_and_plugins: tuple[Acme, Plugins]) -> None:
    acme, plugins = acme_and_plugins
    instance = plugins.instances["acme_eu"]
    assert (instance.state, instance.error) == ("ok", "")
    to = plugins.caller.to
    assert await to("acme_eu", "check") is None
    assert acme.tokens == {"Bearer ..."}
    campaigns = await to("acme_eu", "fetch_campaigns")
    assert isinstance(campaigns, list)
    assert isinstance(campaigns[0], Campaign)
    assert (campaigns[0].daily_budget_micros, campaigns[0].connector) == (10_000_000, "acme_eu")
    spend = await to("acme_eu", "fetch_spend", NOW)
    assert isinstance(spend, SpendReport)
    assert (spend.rows[0].spend_micros, spend.as_of) == (3_250_000, NOW)
    assert await to("acme_eu", "reconcile", [intent()]) == [Receipt("k7", Outcome.REJECTED)]
    assert await to("acme_eu", "set_budget", [intent(), intent("8")]) == [
        Receipt("k7", Outcome.ACCEPTED),
        Receipt("k8", Outcome.REJECTED, "NO_SUCH_CAMPAIGN"),
    ]
    assert acme.budget == "12.50"
    assert await to("acme_eu", "reconcile", [intent()]) == [Receipt("k7", Outcome.ACCEPTED)]
    await plugins.close()


async def test_the_example_fails_as_the_page_says(acme_and_plugins: tuple[Acme, Plugins]) -> None:
    acme, plugins = acme_and_plugins
    for status, expected in [(401, AuthExpired), (429, RateLimited), (503, Temporary)]:
        acme.status = status
        with pytest.raises(expected) as caught:
            await plugins.caller.to("acme_eu", "check")
        if isinstance(caught.value, RateLimited):
            assert caught.value.retry_at == NOW + 30 * SECOND
    assert await plugins.caller.to("acme_eu", "set_budget", [intent()]) == [
        Receipt("k7", Outcome.UNKNOWN, "SERVER_ERROR")
    ]
    acme.status = 429
    assert await plugins.caller.to("acme_eu", "set_budget", [intent()]) == [
        Receipt("k7", Outcome.REJECTED, "RateLimited")
    ]
    acme.answer = False
    assert await plugins.caller.to("acme_eu", "set_budget", [intent()]) == [Receipt("k7", Outcome.UNKNOWN, "NO_ANSWER")]
    await plugins.close()
