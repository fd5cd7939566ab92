"""Everything the Meta connector can send, sent: every verb, lever, strategy and currency, dry runs, pages, bad days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kiki_meta.sandbox import MetaSandbox

from kiki_agent import Conversion
from kiki_agent.errors import PluginError
from kiki_agent.model import DAY, HOUR, Campaign, DayWindow, Instant, Intent, IntentKind
from kiki_agent.sandbox import Fault
from tests.contracts.meta_rig import NOW, Exchange, Rig, intent, running

CURRENCIES = ("USD", "JPY", "KWD")
STRATEGIES = {2: "LOWEST_COST_WITH_MIN_ROAS", 11: "LOWEST_COST_WITHOUT_CAP", 12: "COST_CAP"}
"""Beside the bid caps, and the groups of ad sets whose campaign holds the budget."""
UNIT = 1_000_000


@dataclass
class Driven:
    """What one run sent and got, and the stand-in it spoke to."""

    currency: str
    exchanges: list[Exchange] = field(default_factory=list)
    sandboxes: list[tuple[MetaSandbox, int, int]] = field(default_factory=list)
    """A stand-in, with the first and last of its exchanges."""


async def drive() -> list[Driven]:
    """One run for each currency."""
    return [await _one(currency) for currency in CURRENCIES]


async def _one(currency: str) -> Driven:
    found = Driven(currency)
    for dry_run, page_size in ((False, 500), (False, 7), (True, 500)):
        async with running(
            currency=currency, dry_run=dry_run, page_size=page_size, strategies=STRATEGIES, score_per_hour=10**9
        ) as rig:
            await _reads(rig)
            await _writes(rig)
            if not dry_run and page_size == 500:
                await _bad_days(rig)
            first = len(found.exchanges)
            found.exchanges += rig.wire.exchanges
            found.sandboxes.append((rig.sandbox, first, len(found.exchanges)))
    return found


async def _reads(rig: Rig) -> None:
    await rig.to("check")
    await rig.to("capabilities")
    await rig.campaigns()
    await rig.to("fetch_spend", Instant(NOW - DAY))
    for window in (DayWindow("2026-05-30", "2026-06-01"), DayWindow("2026-01-01", "2026-06-01")):
        cursor: str | None = None
        while True:
            report = await rig.to("fetch_performance", window, cursor)
            cursor = report.cursor
            if cursor is None:
                break


def wanted(campaigns: Sequence[Campaign]) -> dict[str, list[Intent]]:
    """Every verb with intents for each kind of ad set: alone first, then several."""
    places = (0, 1, 2, 3, 5, 6, 8, 11, 12, 14)
    chosen = [campaigns[place] for place in places]
    return {
        "set_budget": [intent(IntentKind.SET_BUDGET, each, 55 * UNIT) for each in chosen],
        "adjust_bid": [intent(IntentKind.ADJUST_BID, each, 3 * UNIT) for each in chosen],
        "place_bid": [intent(IntentKind.PLACE_BID, each, 150 * UNIT, ltv_micros=1_200 * UNIT) for each in chosen],
        "set_status": [intent(IntentKind.SET_STATUS, each, number % 2) for number, each in enumerate(chosen)],
    }


async def _writes(rig: Rig) -> None:
    campaigns = await rig.campaigns()
    every = wanted(campaigns)
    for verb, intents in every.items():
        for each in (*[[one] for one in intents], intents):
            await _quietly(rig, verb, each)
            rig.clock.instant = Instant(rig.clock.instant + HOUR)
    await rig.to("reconcile", [each for intents in every.values() for each in intents])
    await rig.edits(Instant(NOW - DAY))
    await rig.to("upload_conversions", conversions(rig.clock.now()))


def conversions(now: Instant) -> list[Conversion]:
    """With and without an order and a predicted value."""
    plain = Conversion("k1", "IwAR0abc.def", "Purchase", Instant(now - HOUR), 120 * UNIT, "USD", "not_personal")
    told = Conversion(
        "k2", "IwAR1", "Purchase", Instant(now - DAY), 99_990_000, "JPY", "consent:1", "order-7", 820, 1_200 * UNIT
    )
    return [plain, told]


async def _bad_days(rig: Rig) -> None:
    """Every fault at every kind of request; what it does to the caller is tested elsewhere."""
    campaigns = await rig.campaigns()
    for fault in Fault:
        for verb, intents in wanted(campaigns).items():
            for each in (intents[:1], intents):
                rig.faults.order(fault)
                await _quietly(rig, verb, each)
                rig.clock.instant = Instant(rig.clock.instant + HOUR)
        for verb, args in (
            ("capabilities", ()),
            ("fetch_campaigns", ()),
            ("fetch_spend", (Instant(NOW - DAY),)),
            ("fetch_performance", (DayWindow("2026-01-01", "2026-06-01"), None)),
            ("upload_conversions", (conversions(rig.clock.now()),)),
        ):
            rig.faults.order(fault)
            await _quietly(rig, verb, *args)
            rig.clock.instant = Instant(rig.clock.instant + HOUR)


async def _quietly(rig: Rig, verb: str, *args: object) -> None:
    try:
        await rig.to(verb, *args)
    except PluginError:
        return
