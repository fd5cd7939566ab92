"""Google Ads from the caller to the market and back: exact units, one effect for each change, every outcome named."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import kiki_google_ads
import pytest
from kiki_google_ads.config import GoogleAdsConfig
from kiki_google_ads.connector import GoogleAdsConnector
from pydantic import SecretStr, ValidationError

from kiki_agent.errors import PluginError, RateLimited, Temporary
from kiki_agent.hooks.specs import VERBS
from kiki_agent.model import DAY, HOUR, SECOND, CampaignStatus, DayWindow, Instant, IntentKind, Outcome
from kiki_agent.sandbox import Fault
from tests.contracts.google_rig import EVERYTHING, NOW, STEPS, WINDOW, Rig, every_fault, every_verb, google

BUDGET, STATUS, ADJUST, PLACE = (
    IntentKind.SET_BUDGET,
    IntentKind.SET_STATUS,
    IntentKind.ADJUST_BID,
    IntentKind.PLACE_BID,
)
CURRENCIES = tuple(STEPS)


def told(receipts: Any) -> list[tuple[str, str]]:
    return [(each.outcome.value, each.reason) for each in receipts]


def moved(rig: Rig) -> list[tuple[str, int, int]]:
    """Kind, campaign and amount of every effect."""
    first = rig.market.span(rig.desk.place)[0]
    return [(each.kind, each.campaign - first, each.after) for each in rig.effects.recent()]


# ---- units, in every currency


@pytest.mark.parametrize("currency", CURRENCIES)
async def test_every_micro_arrives(currency: str) -> None:
    async with google(currency) as rig:
        stated = await rig.to("capabilities")
        assert (stated.currency, stated.timezone, stated.validates, stated.keeps_keys) == (currency, "UTC", True, False)
        found = await rig.campaigns()
        for place, campaign in found.items():
            step = STEPS[currency]
            assert campaign.currency == currency
            assert {campaign.bid_step_micros, campaign.min_bid_micros, campaign.budget_step_micros} == {step}
            assert campaign.daily_budget_micros == rig.sandbox.account.budget_micros(place)
            if campaign.steers_bid:
                assert campaign.bid_micros == rig.desk.bid_micros(place)
        days = list(rig.desk.days(WINDOW.first_day, WINDOW.last_day, NOW))
        spend = await rig.to("fetch_spend", Instant(NOW - 7 * DAY))
        assert sum(row.spend_micros for row in spend.rows) == sum(day.spend_micros for day in days) > 0
        report = await rig.to("fetch_performance", WINDOW, None)
        for name in ("spend_micros", "revenue_micros", "clicks", "impressions", "conversions"):
            assert sum(getattr(row, name) for row in report.rows) == sum(getattr(day, name) for day in days)


@pytest.mark.parametrize("currency", CURRENCIES)
async def test_amounts_go_out_exactly_and_none_is_rounded(currency: str) -> None:
    step = STEPS[currency]
    async with google(currency) as rig:
        level = 12_345 * step
        receipts = await rig.to("set_budget", [rig.intent(0, level, BUDGET), rig.intent(1, level + 1, BUDGET)])
        assert told(receipts) == [
            ("accepted", ""),
            ("rejected", "campaignBudgetError.NON_MULTIPLE_OF_MINIMUM_CURRENCY_UNIT"),
        ]
        (sent, off) = rig.asked("campaignBudgets:mutate")[0]["operations"]
        assert sent["update"]["amountMicros"] == str(level)
        assert off["update"]["amountMicros"] == str(level + 1)
        assert rig.desk.budget_micros(0) == level
        for place, field in ((1, "PORTFOLIO"), (6, "TARGET_SPEND"), (8, "MANUAL_CPC")):
            assert rig.sandbox.account.strategy(place) == field
            receipts = await rig.to("adjust_bid", [rig.intent(place, 7 * step), rig.intent(place, 7 * step - 1)])
            assert [each.outcome for each in receipts][place == 6 :] != [Outcome.ACCEPTED] * 2
        receipts = await rig.to(
            "adjust_bid", [rig.intent(1, 9 * step), rig.intent(6, 9 * step), rig.intent(8, 9 * step)]
        )
        assert told(receipts) == [("accepted", "")] * 3
        assert [rig.desk.bid_micros(place) for place in (1, 6, 8)] == [9 * step] * 3
        value = 1_234_567_890_123
        await rig.to("upload_conversions", [rig.conversion(1, value)])
        assert rig.asked(":uploadClick")[0]["conversions"][0]["currencyCode"] == currency
        assert round(rig.sandbox.uploads.orders["order-1"].value * 10**6) == value


# ---- levers


async def test_each_lever_is_moved_where_the_campaign_keeps_it() -> None:
    async with google(strategies=EVERYTHING) as rig:
        found = await rig.campaigns()
        receipts = await rig.to("adjust_bid", [rig.intent(place, 1_500_000) for place in sorted(found)])
        by_place = dict(zip(sorted(found), told(receipts), strict=True))
        assert {place for place, each in by_place.items() if each == ("rejected", "NO_SUCH_LEVER")} == {0, 1, 9, 10, 11}
        assert {each for place, each in by_place.items() if place not in (0, 1, 9, 10, 11)} == {("accepted", "")}
        assert {place for place, each in found.items() if not each.steers_bid} == {0, 1, 9, 10, 11}
        updates = [
            operation["update"]
            for path in ("biddingStrategies:mutate", "campaigns:mutate", "adGroups:mutate")
            for body in rig.asked(path)
            for operation in body["operations"]
        ]
        ceilings = [{"cpcBidCeilingMicros": "1500000"}, "1500000"]
        schemes = Counter(
            name for update in updates for name, value in update.items() if name != "resourceName" and value in ceilings
        )
        assert schemes == {
            "targetRoas": 4,
            "maximizeConversionValue": 1,
            "targetSpend": 3,
            "cpcBidMicros": 2,
        }


async def test_a_target_follows_the_worth_of_a_customer() -> None:
    """CON-05, CON-06, CON-08: LTV / bid beside a ceiling in micros, and more worth at an equal bid asks for more."""
    async with google(strategies=EVERYTHING) as rig:
        await rig.campaigns()
        places = (12, 0, 1, 4)
        for ltv, ratio in ((1_200_000_000, 8.0), (1_500_000_000, 10.0), (10**15, 1000.0), (1, 0.01)):
            kind = PLACE if ltv == 1_200_000_000 else ADJUST
            receipts = await rig.to(kind.value, [rig.intent(place, 150_000_000, kind, ltv=ltv) for place in places])
            assert told(receipts) == [("accepted", "")] * 4
            assert [rig.sandbox.account.roas[place] for place in places] == [ratio] * 4
        first = rig.asked("biddingStrategies:mutate")[0]["operations"]
        assert first[0]["update"]["targetRoas"] == {"cpcBidCeilingMicros": "150000000", "targetRoas": 8.0}
        assert first[1]["update"]["maximizeConversionValue"] == {"cpcBidCeilingMicros": "150000000", "targetRoas": 8.0}
        standard = [each["update"] for each in rig.asked("campaigns:mutate")[0]["operations"]]
        assert [set(each) - {"resourceName"} for each in standard] == [{"targetRoas"}, {"maximizeConversionValue"}]
        assert standard[0]["targetRoas"] == {"targetRoas": 8.0}


async def test_a_strategy_of_several_campaigns_is_left_alone() -> None:
    async with google(strategies=EVERYTHING) as rig:
        await rig.campaigns()
        assert told(await rig.to("adjust_bid", [rig.intent(10, 1_000_000)])) == [("rejected", "NO_SUCH_LEVER")]
        assert moved(rig) == []


async def test_a_shared_budget_is_one_budget() -> None:
    async with google() as rig:
        found = await rig.campaigns()
        assert found[2].budget_id == found[3].budget_id != ""
        assert found[0].budget_id == ""
        assert found[2].daily_budget_micros == found[3].daily_budget_micros == sum(map(rig.desk.budget_micros, (2, 3)))
        receipts = await rig.to("set_budget", [rig.intent(3, 50_000_000, BUDGET)])
        assert told(receipts) == [("accepted", "")]
        assert moved(rig) == [("set_budget", 2, 50_000_000)]
        assert sum(map(rig.desk.budget_micros, (2, 3))) == 50_000_000
        both = [rig.intent(2, 40_000_000, BUDGET), rig.intent(3, 60_000_000, BUDGET)]
        assert told(await rig.to("set_budget", both)) == [
            ("accepted", ""),
            ("rejected", "mutateError.ID_EXISTS_IN_MULTIPLE_MUTATES"),
        ]


async def test_status_goes_both_ways_and_nothing_is_ever_removed() -> None:
    async with google() as rig:
        for level, status in ((0, CampaignStatus.PAUSED), (1, CampaignStatus.ACTIVE)):
            assert told(await rig.to("set_status", [rig.intent(0, level, STATUS)])) == [("accepted", "")]
            assert (await rig.campaigns())[0].status is status
        assert moved(rig) == [("set_status", 0, 0), ("set_status", 0, 1)]
        assert not any("remove" in each for body in rig.asked(":mutate") for each in body["operations"])


async def test_signals_stand_beside_the_owners_parameters() -> None:
    """CON-07; an update replaces the whole list, so what the owner has is read first and sent along."""
    async with google() as rig:
        own = [{"key": "season", "value": "spring"}, {"key": "kikiltv", "value": "old"}]
        rig.sandbox.account.parameters[0] = own
        wanted = rig.intent(0, 150_000_000, PLACE, ltv=1_200_000_000, note='a "good" one', confidence=870)
        assert told(await rig.to("place_bid", [wanted])) == [("accepted", "")]
        kept = {each["key"]: each["value"] for each in rig.sandbox.account.parameters[0]}
        assert kept.keys() == {"season", "kikiltv", "kikiconf", "kikiwhy"}
        assert (kept["season"], kept["kikiltv"], kept["kikiconf"]) == ("spring", "1200", "0.870")
        assert json.loads(kept["kikiwhy"]) == {"bid": "150", "why": 'a "good" one'}
        rig.sandbox.account.parameters[1] = [{"key": f"own{number}", "value": "x"} for number in range(7)]
        before = json.dumps(rig.sandbox.account.parameters[1])
        assert told(await rig.to("place_bid", [rig.intent(1, 150_000_000, PLACE, ltv=10**9)])) == [("accepted", "")]
        assert json.dumps(rig.sandbox.account.parameters[1]) == before


async def test_signals_that_cannot_be_told_harm_no_bid() -> None:
    async with google() as rig:
        rig.faults.order(Fault.FAILED, path="/campaigns:mutate")
        assert told(await rig.to("place_bid", [rig.intent(0, 150_000_000, PLACE, ltv=10**9)])) == [("accepted", "")]
        assert rig.sandbox.account.parameters == {}


# ---- what Google refuses, wholly or in part


async def test_a_partial_failure_is_told_for_each_change() -> None:
    async with google() as rig:
        wanted = [
            rig.intent(0, 1_000_000),
            rig.intent(1, 1_000_001),
            rig.intent(12, 2_000_000),
            rig.intent(6, 0),
            rig.intent(9, 5_000_000),
            rig.intent(99, 1_000_000),
        ]
        receipts = await rig.to("adjust_bid", wanted)
        assert told(receipts) == [
            ("accepted", ""),
            ("rejected", "biddingError.BID_TOO_MANY_FRACTIONAL_DIGITS"),
            ("accepted", ""),
            ("rejected", "biddingError.BID_TOO_SMALL"),
            ("rejected", "NO_SUCH_LEVER"),
            ("rejected", "UNKNOWN_CAMPAIGN"),
        ]
        assert moved(rig) == [("adjust_bid", 0, 1_000_000), ("adjust_bid", 12, 2_000_000)]
        assert receipts[0].vendor_ref.endswith("/biddingStrategies/70000001")


@pytest.mark.parametrize(
    ("verb", "kind", "level"), [("set_budget", BUDGET, 10**7), ("adjust_bid", ADJUST, 10**6), ("set_status", STATUS, 0)]
)
async def test_a_200_that_failed_is_no_success(verb: str, kind: IntentKind, level: int) -> None:
    async with google() as rig:
        await rig.campaigns()
        rig.faults.order(Fault.FAILED, path=":mutate")
        receipts = await rig.to(verb, [rig.intent(0, level, kind), rig.intent(1, level, kind)])
        assert told(receipts) == [("rejected", "databaseError.CONCURRENT_MODIFICATION")] * 2
        assert moved(rig) == []


async def test_one_service_failing_does_not_hide_what_another_did() -> None:
    async with google() as rig:
        await rig.campaigns()
        rig.faults.order(Fault.LOST, path="biddingStrategies")
        receipts = await rig.to("adjust_bid", [rig.intent(6, 1_000_000), rig.intent(0, 1_000_000)])
        assert told(receipts) == [("accepted", ""), ("unknown", "NO_ANSWER")]
        rig.faults.order(Fault.THROTTLED, path="biddingStrategies")
        receipts = await rig.to("adjust_bid", [rig.intent(6, 2_000_000), rig.intent(0, 2_000_000)])
        assert told(receipts) == [("accepted", ""), ("rejected", "RATE_LIMITED")]


async def test_the_bids_of_some_ad_groups_leave_the_campaign_unknown() -> None:
    async with google() as rig:
        await rig.campaigns()

        def half(said: Any) -> Any:
            said["results"][1] = {}
            where = {"fieldPathElements": [{"fieldName": "operations", "index": 1}]}
            errors = [{"errorCode": {"adGroupError": "CANNOT_ADD_ADGROUP_OF_TYPE_DSA_TO_CAMPAIGN"}, "location": where}]
            kind = "type.googleapis.com/google.ads.googleads.v26.errors.GoogleAdsFailure"
            return said | {"partialFailureError": {"code": 3, "details": [{"@type": kind, "errors": errors}]}}

        rig.change_answer("adGroups:mutate", half)
        (receipt,) = await rig.to("adjust_bid", [rig.intent(8, 1_000_000)])
        assert (receipt.outcome, receipt.reason.partition(".")[0]) == (Outcome.UNKNOWN, "adGroupError")


# ---- dry run


async def test_a_dry_run_asks_google_and_changes_nothing() -> None:
    async with google(dry_run=True, strategies=EVERYTHING) as rig:
        found = await rig.campaigns()
        good = [rig.intent(place, 2_000_000, ltv=10**9) for place in found if place not in (9, 10, 11)]
        assert set(told(await rig.to("adjust_bid", good))) == {("accepted", "")}
        assert told(await rig.to("set_budget", [rig.intent(0, 12_345_678, BUDGET)])) == [
            ("rejected", "campaignBudgetError.NON_MULTIPLE_OF_MINIMUM_CURRENCY_UNIT")
        ]
        assert told(await rig.to("upload_conversions", [rig.conversion(1, 10**6)])) == [("accepted", "")]
        await rig.to("place_bid", [rig.intent(0, 2_000_000, PLACE, ltv=10**9)])
        assert moved(rig) == []
        assert rig.sandbox.account.parameters == {}
        assert rig.sandbox.uploads.orders == {}
        writes = [*rig.asked(":mutate"), *rig.asked(":upload")]
        assert len(writes) >= 6
        assert all(body["validateOnly"] is True for body in writes)


# ---- pages, days, quotas


async def test_small_pages_join_to_the_same_account() -> None:
    async with google() as whole, google(page_rows=5) as paged:
        assert await whole.to("fetch_campaigns") == await paged.to("fetch_campaigns")
        assert len(paged.asked(":search")) == len(whole.asked(":search")) + 2
        rows, cursor, pages = [], None, 0
        while True:
            report = await paged.to("fetch_performance", WINDOW, cursor)
            rows += report.rows
            pages += 1
            cursor = report.cursor
            if cursor is None:
                break
        assert tuple(rows) == (await whole.to("fetch_performance", WINDOW, None)).rows
        assert pages == -(-len(rows) // 5) > 3


async def test_pages_that_do_not_end_are_garbled() -> None:
    async with google() as rig:
        await rig.to("check")
        rig.answer(":search", 200, b'{"fieldMask":"campaign.id","nextPageToken":"again"}')
        with pytest.raises(Temporary, match="pages do not end"):
            await rig.to("fetch_campaigns")
        assert (await rig.to("fetch_performance", WINDOW, None)).cursor == "again"
        with pytest.raises(PluginError, match="pages do not end"):
            await rig.to("fetch_performance", WINDOW, "again")


async def test_a_day_is_the_accounts_and_conversions_restate_for_a_month() -> None:
    async with google(timezone="Pacific/Auckland", restated_days=30, data_age_s=3_600) as rig:
        report = await rig.to("fetch_performance", DayWindow("2026-05-30", "2026-06-02"), None)
        assert report.final_before == "2026-05-03"  # noon UTC of 1 June is the 2nd there
        assert report.as_of == NOW - HOUR
        await rig.to("fetch_spend", Instant(NOW - HOUR))
        assert "BETWEEN '2026-06-01' AND '2026-06-02'" in rig.asked(":searchStream")[0]["query"]


async def test_a_quota_that_is_used_up_changes_nothing_and_says_until_when() -> None:
    async with google(operations_per_day=5) as rig:
        await rig.campaigns()
        wanted = [rig.intent(place, 10_000_000, BUDGET) for place in (0, 1, 4)]
        with pytest.raises(RateLimited) as caught:
            await rig.to("set_budget", wanted)
        assert caught.value.retry_at == (NOW // DAY + 1) * DAY
        assert moved(rig) == []
        context = rig.plugins.instances["google"].context
        assert context is not None
        assert context.hints.retry_at == caught.value.retry_at


async def test_requests_of_a_minute_are_counted() -> None:
    async with google(requests_per_minute=3) as rig:
        for _ in range(3):
            await rig.to("check")
        with pytest.raises(RateLimited) as caught:
            await rig.to("check")
        assert caught.value.retry_at == NOW + 60 * SECOND


# ---- both ways are one


async def test_a_socket_and_a_function_call_give_equal_answers() -> None:
    async def story(rig: Rig) -> list[object]:
        """Every verb and every fault; what was asked and answered, and what it did."""
        await every_verb(rig)
        await every_fault(rig)
        heard = [
            (each.path, each.body, each.status, each.answer)
            for each in rig.recorder.exchanges
            if not each.path.endswith("/token")
        ]
        return [*heard, moved(rig), rig.sandbox.account.parameters, rig.market.state_hash()]

    async with google(strategies=EVERYTHING) as near, google(strategies=EVERYTHING, socket=True) as far:
        assert await story(near) == await story(far)


async def test_other_counts_of_the_same_conversions_are_not_added() -> None:
    async with google() as rig:
        plain = (await rig.to("fetch_performance", WINDOW, None)).rows

        def with_aliases(said: Any) -> Any:
            for row in said["results"]:
                metrics = row["metrics"]
                metrics["allConversions"] = metrics.get("conversions", 0)
                metrics["allConversionsValue"] = metrics.get("conversionsValue", 0)
                metrics["conversionsByConversionDate"] = metrics.get("conversions", 0)
            return said

        rig.change_answer(":search", with_aliases)
        assert (await rig.to("fetch_performance", WINDOW, None)).rows == plain


# ---- settings


async def test_the_version_and_the_manager_are_settings() -> None:
    """CON-02."""
    async with google(api_version="v23", login_customer_id="111-222-3333", api_sunset="2027-03-01") as rig:
        stated = await rig.to("capabilities")
        assert (stated.api_version, stated.sunset) == ("v23", "2027-03-01")
        last = rig.recorder.exchanges[-1]
        assert last.path.startswith("/v23/customers/1234567890/")
        assert last.headers["login-customer-id"] == "1112223333"
    async with google() as rig:
        assert (await rig.to("capabilities")).sunset == ""


def test_a_real_account_needs_all_its_credentials() -> None:
    assert GoogleAdsConfig.model_validate({}, context={"mode": "demo"}).customer_id == ""
    for mode in ("live", "dry-run"):
        with pytest.raises(ValidationError) as caught:
            GoogleAdsConfig.model_validate({"customer_id": "123-456-7890", "client_id": "x"}, context={"mode": mode})
        assert "developer_token, client_secret, refresh_token must be given" in str(caught.value)
    for wrong in ({"customer_id": "12"}, {"api_version": "26"}, {"base_url": "ftp://x"}, {"api_sunset": "soon"}):
        with pytest.raises(ValidationError):
            GoogleAdsConfig.model_validate(wrong)


async def test_many_calls_at_once_ask_for_one_token() -> None:
    async with google() as rig:
        await asyncio.gather(*(rig.to("check") for _ in range(10)))
        assert sum(each.path == "/token" for each in rig.recorder.exchanges) == 1


def test_the_page_of_the_plugin_names_every_key_and_verb() -> None:
    text = Path(kiki_google_ads.__file__).with_name("README.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    for name, field in GoogleAdsConfig.model_fields.items():
        default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        shown = f"{default:g}" if isinstance(default, float) else str(default)
        assert f"`{shown}`" in rows[name] if shown else "| none |" in rows[name]
    verbs = {*vars(GoogleAdsConnector)} & {*VERBS["connector"]} - {"close"}
    assert {name for name in rows if name in verbs} == verbs
