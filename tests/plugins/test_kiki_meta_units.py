"""Meta's units and words against ours: every currency exact, nothing rounded, levers found where they are."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import kiki_meta
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some
from kiki_meta import mapping
from kiki_meta.config import MetaConfig
from kiki_meta.connector import MetaConnector
from kiki_meta.currency import WHOLE, offset, step_micros
from kiki_meta.mapping import Account, AdSetNode, CampaignNode, Lever
from pydantic import SecretStr

from kiki_agent.errors import Rejected, Temporary
from kiki_agent.hooks.specs import VERBS
from kiki_agent.model import DAY, CampaignStatus, DayWindow, Instant, IntentKind
from tests.contracts.meta_rig import NOW, Answer, Asked, intent, running

UNIT = 1_000_000


@pytest.mark.parametrize(
    ("currency", "times"),
    [("USD", 100), ("EUR", 100), ("JPY", 1), ("KRW", 1), ("CLP", 1), ("VND", 1), ("KWD", 100), ("BHD", 100),
     ("HUF", 1), ("TWD", 1), ("IDR", 1), ("COP", 1), ("CRC", 1), ("ISK", 1), ("PYG", 1), ("INR", 100)],
)  # fmt: skip
def test_the_offset_is_metas_and_not_the_minor_unit_of_iso(currency: str, times: int) -> None:
    assert offset(currency) == times
    assert step_micros(currency) * times == UNIT


@pytest.mark.parametrize(
    ("micros", "currency", "minor"),
    [(150 * UNIT, "USD", 15_000), (300_000, "USD", 30), (10_000, "KWD", 1), (150 * UNIT, "JPY", 150), (0, "USD", 0)],
)
def test_amounts_are_whole_numbers_of_what_meta_counts_in(micros: int, currency: str, minor: int) -> None:
    assert mapping.minor_of_micros(micros, currency) == minor
    assert mapping.micros_of_minor(str(minor), currency, "a budget") == micros


@given(some.integers(0, 10**11), some.sampled_from(["USD", "JPY", "KWD", "TWD", *sorted(WHOLE)]))
def test_every_amount_meta_can_write_comes_back_the_same(minor: int, currency: str) -> None:
    assert mapping.minor_of_micros(mapping.micros_of_minor(str(minor), currency, "x"), currency) == minor


@given(some.integers(-(10**15), 10**15), some.sampled_from(["USD", "JPY"]))
def test_an_amount_off_the_step_is_never_rounded(micros: int, currency: str) -> None:
    if micros >= 0 and micros % step_micros(currency) == 0:
        assert mapping.minor_of_micros(micros, currency) * step_micros(currency) == micros
        return
    with pytest.raises(ValueError, match="no whole number"):
        mapping.minor_of_micros(micros, currency)


@given(some.decimals(min_value=0, max_value=10**9, places=6, allow_nan=False, allow_infinity=False))
def test_spend_is_exact_to_the_micro(amount: Decimal) -> None:
    assert mapping.micros_of(str(amount), "spend") == int(amount * UNIT)


@pytest.mark.parametrize("value", ["-1", "1.5", "1e3", "", "x", True, 1.5, -7, "9" * 16, None, "٣"])
def test_a_budget_that_is_no_whole_number_is_garbled(value: Any) -> None:
    with pytest.raises(Temporary, match="garbled"):
        mapping.micros_of_minor(value, "USD", "a budget")


@pytest.mark.parametrize(
    ("ltv", "bid", "floor"),
    [(1_200, 150, 80_000), (1_200, 100, 120_000), (1, 10_000, 100), (10**9, 1, 10_000_000), (1, 1, 10_000)],
)
def test_the_floor_on_the_return_is_scaled_by_ten_thousand_and_stays_in_bounds(ltv: int, bid: int, floor: int) -> None:
    assert mapping.roas_floor(ltv * UNIT, bid * UNIT) == floor


def test_a_form_carries_text_as_it_is_and_the_rest_as_json() -> None:
    given = {"status": "PAUSED", "daily_budget": 5_000, "bid_constraints": {"roas_average_floor": 15_000}}
    assert mapping.form(given) == {
        "status": "PAUSED",
        "daily_budget": "5000",
        "bid_constraints": '{"roas_average_floor":15000}',
    }


# -- where the levers are


def account(campaign: dict[str, Any], ad_set: dict[str, Any], currency: str = "USD") -> Account:
    parent = msgspec.convert({"id": "1", "name": "C"} | campaign, CampaignNode)
    node = msgspec.convert({"id": "2", "campaign_id": "1", "name": "S"} | ad_set, AdSetNode)
    return mapping.account_of([parent], [node], 0, "m", "meta", currency)


def test_a_budget_of_the_ad_set_is_its_own_and_one_of_the_campaign_is_shared() -> None:
    own = account({}, {"daily_budget": "5000", "bid_strategy": "COST_CAP", "bid_amount": 150})
    assert own.campaigns[0].daily_budget_micros == 50 * UNIT
    assert (own.campaigns[0].budget_id, own.places["2"].budget, own.places["2"].own_strategy) == ("", "2", True)
    above = account({"daily_budget": "9000", "bid_strategy": "LOWEST_COST_WITH_BID_CAP"}, {"bid_amount": 150})
    assert above.campaigns[0].daily_budget_micros == 90 * UNIT
    assert (above.campaigns[0].budget_id, above.places["2"].budget) == ("campaign:1", "1")
    assert not above.places["2"].own_strategy
    for campaign, ad_set in (({"lifetime_budget": "90000"}, {}), ({}, {"lifetime_budget": "90000"})):
        found = account(campaign, ad_set).campaigns[0]
        assert not found.steers_budget
        assert found.daily_budget_micros == 0


@pytest.mark.parametrize(
    ("ad_set", "lever", "bid"),
    [
        ({"bid_strategy": "LOWEST_COST_WITH_BID_CAP", "bid_amount": 150}, Lever.BID_AMOUNT, 1_500_000),
        ({"bid_strategy": "COST_CAP", "bid_amount": "150"}, Lever.BID_AMOUNT, 1_500_000),
        ({"bid_strategy": "COST_CAP"}, Lever.NONE, 10_000),
        ({"bid_strategy": "LOWEST_COST_WITHOUT_CAP", "bid_amount": 150}, Lever.NONE, 1_500_000),
        ({"bid_strategy": "LOWEST_COST_WITH_MIN_ROAS", "bid_constraints": {"roas_average_floor": 15_000}},
         Lever.MIN_ROAS, 10_000),
        ({"bid_strategy": "A_NEW_ONE", "bid_amount": 150}, Lever.NONE, 1_500_000),
        ({}, Lever.NONE, 10_000),
    ],
)  # fmt: skip
def test_what_moves_the_bids_follows_from_the_strategy(ad_set: dict[str, Any], lever: Lever, bid: int) -> None:
    found = account({}, {"daily_budget": "5000"} | ad_set)
    assert found.places["2"].lever is lever
    assert found.campaigns[0].steers_bid == (lever is Lever.BID_AMOUNT)
    assert found.campaigns[0].bid_micros == bid
    assert found.places["2"].floor == (15_000 if lever is Lever.MIN_ROAS else 0)


@pytest.mark.parametrize(
    ("campaign", "ad_set", "active"),
    [
        ({"status": "ACTIVE"}, {"status": "ACTIVE", "effective_status": "ACTIVE"}, True),
        ({"status": "PAUSED"}, {"status": "ACTIVE", "effective_status": "CAMPAIGN_PAUSED"}, False),
        ({"status": "ACTIVE"}, {"status": "ACTIVE", "effective_status": "WITH_ISSUES"}, False),
        ({"status": "ACTIVE"}, {"status": "PAUSED", "effective_status": "PAUSED"}, False),
        ({"status": "ACTIVE"}, {"status": "ACTIVE"}, True),
        ({"status": "PAUSED"}, {"status": "ACTIVE"}, False),
    ],
)
def test_whether_it_may_spend_is_what_meta_computed(campaign: Any, ad_set: Any, active: bool) -> None:
    status = account(campaign, ad_set).campaigns[0].status
    assert status is (CampaignStatus.ACTIVE if active else CampaignStatus.PAUSED)


def test_what_is_archived_or_without_a_campaign_is_left_out() -> None:
    assert account({}, {"effective_status": "ARCHIVED"}).campaigns == []
    assert account({}, {"effective_status": "DELETED"}).campaigns == []
    assert account({}, {"campaign_id": "99"}).campaigns == []


def test_learning_is_what_meta_says_of_the_stage() -> None:
    assert account({}, {"learning_stage_info": {"status": "LEARNING"}}).campaigns[0].learning
    assert not account({}, {"learning_stage_info": {"status": "SUCCESS"}}).campaigns[0].learning


# -- end to end


@pytest.mark.parametrize(
    ("currency", "step", "written"),
    [("USD", 10_000, "5012"), ("JPY", UNIT, "50"), ("KWD", 10_000, "5012"), ("TWD", UNIT, "50")],
)
async def test_every_currency_is_exact_from_the_vendor_and_back(currency: str, step: int, written: str) -> None:
    async with running(currency=currency, history_days=2) as rig:
        assert (await rig.to("capabilities")).currency == currency
        before = await rig.campaigns()
        own, shared = before[0], before[3]
        assert {(each.budget_step_micros, each.bid_step_micros, each.currency) for each in before} == {
            (step, step, currency)
        }
        assert {each.min_budget_micros for each in before} == {UNIT}
        after = 50_120_000 // step * step
        await rig.to("set_budget", [intent(IntentKind.SET_BUDGET, own, after)])
        assert rig.wire.asked[-1].fields == {"daily_budget": written}
        await rig.to("set_budget", [intent(IntentKind.SET_BUDGET, shared, after)])
        await rig.to("adjust_bid", [intent(IntentKind.ADJUST_BID, own, 3 * UNIT)])
        assert [each.after for each in rig.effects.recent()] == [after, after, 3 * UNIT]
        now = await rig.campaigns()
        assert (now[0].daily_budget_micros, now[3].daily_budget_micros, now[0].bid_micros) == (after, after, 3 * UNIT)
        for kind in (IntentKind.SET_BUDGET, IntentKind.ADJUST_BID):
            with pytest.raises(Rejected) as caught:
                await rig.to(kind.value, [intent(kind, own, after + step // 2)])
            assert caught.value.reason == "NOT_A_MINOR_UNIT"
        spend = await rig.to("fetch_spend", Instant(NOW - DAY))
        market = {
            (f"{120_200_000_000_001 + day.campaign}", day.day): day
            for day in rig.sandbox.desk.days("2026-05-31", "2026-06-01", NOW)
        }
        assert {(each.campaign_id, each.day): each.spend_micros for each in spend.rows} == {
            key: day.spend_micros for key, day in market.items()
        }
        report = await rig.to("fetch_performance", DayWindow("2026-05-31", "2026-06-01"), None)
        assert {
            (each.campaign_id, each.day): (
                each.impressions, each.clicks, each.conversions, each.spend_micros, each.revenue_micros
            )
            for each in report.rows
        } == {
            key: (day.impressions, day.clicks, day.conversions, day.spend_micros, day.revenue_micros)
            for key, day in market.items()
        }  # fmt: skip


async def test_data_has_an_age_and_days_restate_for_four_weeks() -> None:
    async with running(campaigns=36, history_days=2, data_age_s=900, restated_days=28) as rig:
        spend = await rig.to("fetch_spend", Instant(NOW - DAY))
        report = await rig.to("fetch_performance", DayWindow("2026-05-31", "2026-06-01"), None)
        assert spend.as_of == report.as_of == NOW - 900 * UNIT
        assert report.final_before == "2026-05-04"


async def test_days_are_the_accounts_own() -> None:
    async with running(campaigns=36, history_days=2) as rig:

        def tokyo(asked: Asked, answer: Answer) -> Answer:
            return answer[0], answer[1], answer[2].replace(b'"UTC"', b'"Asia/Tokyo"')

        rig.wire.alter = tokyo
        rig.clock.instant = Instant(NOW + DAY // 4)  # 18:00 in London is the next day in Tokyo
        await rig.to("fetch_spend", rig.clock.now())
        assert rig.wire.asked[-1].params["time_range"] == '{"since":"2026-06-02","until":"2026-06-02"}'


# -- its own page


def test_the_page_of_the_plugin_names_every_key_and_verb() -> None:
    text = Path(kiki_meta.__file__).with_name("README.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    for name, field in MetaConfig.model_fields.items():
        default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        shown = f"{default:g}" if isinstance(default, float) else str(default)
        assert not shown or f"`{shown}`" in rows[name], name
        assert name in rows
    verbs = {*vars(MetaConnector)} & {*VERBS["connector"]} - {"close"}
    assert {name for name in rows if name in verbs} == verbs
