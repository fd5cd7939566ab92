"""Google's words and units, one at a time."""

from __future__ import annotations

import json
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some
from kiki_google_ads.errors import Status, by_operation
from kiki_google_ads.levers import MOST_PARAMETERS, bid, budget, parameters, signals, status, target_roas
from kiki_google_ads.mapping import (
    Lever,
    Place,
    account_of,
    count_of,
    micros_of,
    money,
    performance_rows,
    spend_rows,
    step_micros,
    whole,
)
from kiki_google_ads.uploads import date_time
from kiki_google_ads.wire import Page, Parameter, Row

from kiki_agent.errors import Temporary
from kiki_agent.model import CampaignStatus, Instant, Intent, IntentKind, parse_iso

NAMES = ("customers/1/campaigns/2", "customers/1/campaignBudgets/3")


def intent(after: int, *, ltv: int = 0, note: str = "", confidence: int = 0) -> Intent:
    at = Instant(0)
    return Intent("k", IntentKind.ADJUST_BID, "g", "2", 0, after, "USD", "T", at, ltv_micros=ltv, note=note,
                  confidence_permille=confidence)  # fmt: skip


def rows(*given: object) -> list[Row]:
    return msgspec.convert(list(given), list[Row])


def campaign(number: int = 2, budget: object = None, **fields: object) -> dict[str, object]:
    own = {"resourceName": f"customers/1/campaigns/{number}", "id": str(number), "status": "ENABLED"}
    return {"campaign": own | fields, "campaignBudget": budget or {"id": "3", "amountMicros": "5000000"}}


# ---- numbers


@given(some.integers(0, 10**18 - 1))
def test_whole_numbers_are_exact(number: int) -> None:
    assert whole(str(number), "x") == whole(number, "x") == number


@given(some.one_of(some.text(), some.integers(max_value=-1), some.integers(10**18), some.booleans()))
def test_what_is_no_whole_number_is_garbled(value: object) -> None:
    if isinstance(value, str) and value.isdecimal() and value.isascii() and len(value) <= 18:
        return
    with pytest.raises(Temporary, match="garbled"):
        whole(value, "x")  # type: ignore[arg-type]


@given(some.integers(0, 10**15))
def test_fractional_units_are_exact_to_the_micro(micros: int) -> None:
    assert micros_of(micros / 10**6, "x") == micros
    assert micros_of(str(Decimal(micros).scaleb(-6)), "x") == micros


@given(some.floats(allow_nan=True, allow_infinity=True))
def test_fractional_numbers_are_believed_or_garbled(value: float) -> None:
    if 0 <= value <= 10**9:
        assert abs(micros_of(value, "x") - Decimal(value) * 10**6) <= 1
    else:
        with pytest.raises(Temporary):
            micros_of(value, "x")


@pytest.mark.parametrize(
    ("given_number", "count"), [(0, 0), (0.4, 0), (0.5, 0), (1.5, 2), (2.5, 2), (2.500001, 3), ("7.9", 8), (12, 12)]
)
def test_parts_of_conversions_are_rounded_half_to_even(given_number: float | str, count: int) -> None:
    assert count_of(given_number, "x") == count


def test_the_billable_unit_is_the_smallest_coin() -> None:
    assert [step_micros(code) for code in ("USD", "EUR", "JPY", "KWD", "ZZZ")] == [10_000, 10_000, 10**6, 1_000, 10_000]


def test_money_has_an_upper_bound() -> None:
    assert money("1000000000000000", "x") == 10**15
    with pytest.raises(Temporary):
        money("1000000000000001", "x")


# ---- targets and signals


@given(some.integers(1, 10**15), some.integers(1, 10**15), some.integers(1, 10**15))
def test_a_target_is_within_googles_bounds_and_follows_worth(first: int, second: int, price: int) -> None:
    low, high = sorted((first, second))
    assert 0.01 <= target_roas(low, price) <= target_roas(high, price) <= 1000


def test_the_target_of_the_books_is_exact() -> None:
    assert target_roas(1_200_000_000, 150_000_000) == 8.0
    assert target_roas(10**9, 3 * 10**9) == 0.3333
    assert target_roas(5, 0) == 5.0


@given(some.text(max_size=600), some.integers(1, 10**15), some.integers(1, 10**15), some.integers(0, 1000))
def test_signals_fit_googles_fields(note: str, ltv: int, after: int, confidence: int) -> None:
    values = signals(intent(after, ltv=ltv, note=note, confidence=confidence))
    assert all(len(value.encode()) <= 250 for value in values.values())
    assert all(key.isalnum() and len(key) <= 16 for key in values)
    assert Decimal(values["kikiltv"]).scaleb(6) == ltv
    read = json.loads(values["kikiwhy"])
    assert note.startswith(read["why"])
    assert Decimal(read["bid"]).scaleb(6) == after


@given(some.lists(some.sampled_from(["a", "b", "c", "d", "e", "f", "g", "kikiltv", "kikiwhy"]), unique=True))
def test_the_owners_parameters_are_never_lost(keys: list[str]) -> None:
    present = [Parameter(key, "own") for key in keys]
    made = parameters(intent(10**6, ltv=10**6), Place(*NAMES, Lever.PORTFOLIO), present)
    own = {key for key in keys if not key.startswith("kiki")}
    if made is None:
        assert len(own) + 2 > MOST_PARAMETERS
    else:
        sent = {each["key"]: each["value"] for each in made["update"]["urlCustomParameters"]}
        assert {key for key, value in sent.items() if value == "own"} == own
        assert len(sent) <= MOST_PARAMETERS


# ---- operations


def test_each_lever_becomes_one_operation_and_its_mask_names_what_is_set() -> None:
    ltv = intent(2_000_000, ltv=4_000_000)
    plain = intent(2_000_000)
    portfolio = Place(*NAMES, Lever.PORTFOLIO, "maximizeConversionValue", "customers/1/biddingStrategies/4")
    assert bid(ltv, portfolio) == (
        "/biddingStrategies:mutate",
        [
            {
                "update": {
                    "resourceName": "customers/1/biddingStrategies/4",
                    "maximizeConversionValue": {"cpcBidCeilingMicros": "2000000", "targetRoas": 2.0},
                },
                "updateMask": "maximizeConversionValue.cpcBidCeilingMicros,maximizeConversionValue.targetRoas",
            }
        ],
    )
    spend = Place(*NAMES, Lever.PORTFOLIO, "targetSpend", "customers/1/biddingStrategies/4")
    assert bid(ltv, spend)[1][0]["updateMask"] == "targetSpend.cpcBidCeilingMicros"
    assert bid(plain, portfolio)[1][0]["updateMask"] == "maximizeConversionValue.cpcBidCeilingMicros"
    assert bid(plain, Place(*NAMES, Lever.CEILING, "targetSpend"))[1][0]["update"] == {
        "resourceName": NAMES[0],
        "targetSpend": {"cpcBidCeilingMicros": "2000000"},
    }
    manual = bid(plain, Place(*NAMES, Lever.MANUAL, ad_groups=("customers/1/adGroups/5", "customers/1/adGroups/6")))
    assert [each["update"]["resourceName"][-1] for each in manual[1]] == ["5", "6"]
    assert bid(plain, Place(*NAMES, Lever.RATIO, "targetRoas")) == ("", [])
    assert bid(ltv, Place(*NAMES, Lever.NONE)) == ("", [])
    assert budget(plain, portfolio) == (
        "/campaignBudgets:mutate",
        [{"update": {"resourceName": NAMES[1], "amountMicros": "2000000"}, "updateMask": "amountMicros"}],
    )
    assert status(intent(1), portfolio)[1][0]["update"]["status"] == "ENABLED"
    assert status(intent(0), portfolio)[1][0]["update"]["status"] == "PAUSED"


# ---- campaigns


@pytest.mark.parametrize(
    ("fields", "strategy", "lever", "scheme", "levels"),
    [
        ({"biddingStrategyType": "TARGET_SPEND"}, None, Lever.CEILING, "targetSpend", (0,)),
        ({"biddingStrategyType": "TARGET_SPEND", "targetSpend": {"cpcBidCeilingMicros": "7"}}, None, Lever.CEILING,
         "targetSpend", (7,)),
        ({"biddingStrategyType": "TARGET_ROAS", "targetRoas": {"targetRoas": 2.5}}, None, Lever.RATIO, "targetRoas",
         ()),
        ({"biddingStrategyType": "TARGET_ROAS"}, None, Lever.NONE, "", ()),
        ({"biddingStrategyType": "MAXIMIZE_CONVERSION_VALUE"}, None, Lever.NONE, "", ()),
        ({"biddingStrategyType": "MAXIMIZE_CONVERSION_VALUE", "maximizeConversionValue": {}}, None, Lever.NONE, "", ()),
        ({"biddingStrategyType": "MAXIMIZE_CONVERSION_VALUE", "maximizeConversionValue": {"targetRoas": 3}}, None,
         Lever.RATIO, "maximizeConversionValue", ()),
        ({"biddingStrategyType": "MANUAL_CPC"}, None, Lever.NONE, "", ()),
        ({"biddingStrategyType": "TARGET_IMPRESSION_SHARE"}, None, Lever.NONE, "", ()),
        ({"biddingStrategy": "s"}, None, Lever.NONE, "", ()),
        ({"biddingStrategy": "s"}, {"targetCpa": {}}, Lever.NONE, "", ()),
        ({"biddingStrategy": "s"}, {"targetRoas": {"cpcBidCeilingMicros": 9}}, Lever.PORTFOLIO, "targetRoas", (9,)),
        ({"biddingStrategy": "s"}, {"targetRoas": {}, "nonRemovedCampaignCount": "2"}, Lever.NONE, "", ()),
        ({"biddingStrategy": "s"}, {"targetSpend": {}}, Lever.PORTFOLIO, "targetSpend", (0,)),
    ],
)  # fmt: skip
def test_strategies_become_levers(
    fields: dict[str, object], strategy: object, lever: Lever, scheme: str, levels: tuple[int, ...]
) -> None:
    row = campaign(**fields) | ({"biddingStrategy": strategy} if strategy is not None else {})
    found = account_of(rows(row), [], "g", "google_ads", "USD")
    place = found.places["2"]
    assert (place.lever, place.scheme, place.levels) == (lever, scheme, levels)
    assert found.campaigns[0].steers_bid is (sum(levels) > 0)


def test_budgets_status_and_learning_are_read() -> None:
    given_rows = rows(
        campaign(1),
        campaign(2, {"id": "7", "amountMicros": "1", "explicitlyShared": True}, status="PAUSED"),
        campaign(3, {"id": "8", "referenceCount": "2"}, biddingStrategySystemStatus="LEARNING_BUDGET_CHANGE"),
        campaign(4, {"id": "9", "period": "CUSTOM_PERIOD", "totalAmountMicros": "1"}, status="UNKNOWN"),
    )
    found = account_of(given_rows, [], "g", "google_ads", "JPY").campaigns
    assert [each.budget_id for each in found] == ["", "7", "8", ""]
    assert [each.status for each in found] == [
        CampaignStatus.ACTIVE, CampaignStatus.PAUSED, CampaignStatus.ACTIVE, CampaignStatus.PAUSED,
    ]  # fmt: skip
    assert [each.steers_budget for each in found] == [True, True, True, False]
    assert [each.learning for each in found] == [False, False, True, False]
    assert {each.min_budget_micros for each in found} == {10**6}


@pytest.mark.parametrize("bad", [[{}], [{"campaign": {"id": "1"}}], [campaign(), campaign()], [campaign(id="x")]])
def test_an_account_that_makes_no_sense_is_garbled(bad: list[object]) -> None:
    with pytest.raises(Temporary, match="garbled"):
        account_of(rows(*bad), [], "g", "google_ads", "USD")


# ---- reports


def test_an_empty_report_is_empty() -> None:
    assert spend_rows([], "2026-06-01", "2026-06-01") == ()
    assert performance_rows(Page(), "2026-06-01", "2026-06-01") == ([], 0)


def test_conversion_times_are_written_with_their_zone() -> None:
    assert date_time(parse_iso("2026-02-28T23:59:59.999999Z")) == "2026-02-28 23:59:59+00:00"


# ---- partial failures


def failure(*errors: tuple[str, int | None]) -> Status:
    made = []
    for code, index in errors:
        group, name = code.split(".")
        where = {"fieldPathElements": [{"fieldName": "operations", "index": index}]} if index is not None else None
        made.append({"errorCode": {group: name}} | ({"location": where} if where else {}))
    return Status(code=3, details=[{"@type": "x/GoogleAdsFailure", "errors": made}])


def test_failures_belong_to_their_operations() -> None:
    assert by_operation(None, 3) == {}
    assert by_operation(failure(("aError.B", 1), ("cError.D", 1)), 3) == {1: "aError.B"}
    assert by_operation(failure(("aError.B", 2)), 3) == {2: "aError.B"}
    assert by_operation(failure(("aError.B", None)), 2) == {0: "aError.B", 1: "aError.B"}
    assert by_operation(failure(("aError.B", 0), ("internalError.X", 0)), 1) == {0: "internalError.X"}
    assert by_operation(failure(("internalError.X", 0), ("aError.B", 0)), 1) == {0: "internalError.X"}
    assert by_operation(failure(("aError.B", 7)), 2) == {0: "PARTIAL_FAILURE", 1: "PARTIAL_FAILURE"}
    assert by_operation(Status(), 1) == {0: "PARTIAL_FAILURE"}
