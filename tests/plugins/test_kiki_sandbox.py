"""The sandbox plugin from the caller to the market and back: exact units, typed errors, nothing booked that was not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import kiki_sandbox
import pytest
from hypothesis import given
from hypothesis import strategies as some
from kiki_sandbox.config import SandboxConfig
from kiki_sandbox.connector import SandboxConnector
from kiki_sandbox.crm import SandboxCrm
from kiki_sandbox.mapping import micros, price_text
from pydantic import SecretStr

from kiki_agent.errors import AuthExpired, PluginError, RateLimited, Rejected, Temporary, UnknownOutcome
from kiki_agent.hooks.capabilities import Capabilities
from kiki_agent.hooks.http import NoAnswer
from kiki_agent.hooks.specs import VERBS
from kiki_agent.model import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Campaign,
    CampaignStatus,
    Customer,
    DayWindow,
    Instant,
    IntentKind,
    Outcome,
    PerformanceRow,
    Receipt,
)
from kiki_agent.sandbox import Fault
from kiki_agent.sandbox import layout as at
from kiki_agent.sandbox.tokens import Tokens

from .sandbox_rig import PLATFORMS, START, Rig, intent, running

WAYS = ("process", "socket")
WINDOW = DayWindow("2026-01-02", "2026-01-05")
READS = {
    "check": ("meta", (), "campaigns"),
    "fetch_campaigns": ("meta", (), "campaigns"),
    "fetch_performance": ("meta", (WINDOW, None), "performance"),
    "fetch_spend": ("meta", (START,), "spend"),
    "reconcile": ("meta", ([intent("100001", 1_000_000)],), "effects"),
    "fetch_customers": ("shop", ("",), "customers"),
}
WRITES = {
    IntentKind.ADJUST_BID: "bids",
    IntentKind.SET_BUDGET: "budgets",
    IntentKind.SET_STATUS: "status",
    IntentKind.PLACE_BID: "placements",
}


@pytest.fixture(params=WAYS)
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    """The plugin over either way."""
    async with running(request.param) as made:
        yield made


@pytest.fixture
async def near() -> AsyncIterator[Rig]:
    """The plugin in process."""
    async with running() as made:
        yield made


async def read(rig: Rig, verb: str) -> Any:
    instance, args, _ = READS[verb]
    return await rig.to(verb, *args, instance=instance)


async def write(rig: Rig, kind: IntentKind = IntentKind.ADJUST_BID) -> Any:
    """Two changes of this kind."""
    level = 1 if kind is IntentKind.SET_STATUS else 5_000_000
    return await rig.to(kind.value, [intent("100001", level, kind), intent("100002", level, kind)])


async def pages(rig: Rig, window: DayWindow, instance: str = "meta") -> list[PerformanceRow]:
    found: list[PerformanceRow] = []
    cursor = None
    while True:
        report = await rig.to("fetch_performance", window, cursor, instance=instance)
        found += report.rows
        cursor = report.cursor
        if cursor is None:
            return found


# ---- the plugin as it is found


async def test_every_instance_comes_up_and_describes_itself(rig: Rig) -> None:
    assert {each.id: each.state for each in rig.plugins.instances.values()} == dict.fromkeys((*PLATFORMS, "shop"), "ok")
    for platform in PLATFORMS:
        assert await rig.to("check", instance=platform) is None
        told = await rig.to("capabilities", instance=platform)
        assert told == Capabilities(currency="USD", timezone="UTC", batch_size=500, keeps_keys=True)
    assert await rig.to("check", instance="shop") is None
    assert {kind.value for kind in WRITES} <= set(rig.plugins.instances["meta"].hooks)


async def test_a_secret_is_in_no_description(near: Rig) -> None:
    near.answer("/v1/", 500, b'{"error":{"code":"X","message":"y"}}')
    with pytest.raises(Temporary) as caught:
        await read(near, "check")
    for text in (str(caught.value), repr(near.plugins.describe())):
        assert "client_secret" not in text
        assert "sbx." not in text


# ---- both ways are one


async def test_a_socket_and_a_function_call_give_equal_answers() -> None:
    async def story(rig: Rig) -> list[object]:
        told: list[object] = []

        async def tell(verb: str, *args: object, instance: str = "meta") -> None:
            try:
                told.append(await rig.to(verb, *args, instance=instance))
            except PluginError as error:
                told.append((type(error), getattr(error, "retry_at", 0), getattr(error, "keys", ())))

        for hours in (0, 7, 26):
            rig.clock.instant = Instant(START + hours * HOUR + 123_456)
            campaigns = (await rig.to("fetch_campaigns"))[:2]
            for verb, (instance, args, _) in READS.items():
                await tell(verb, *args, instance=instance)
            rig.faults.order(Fault.LOST, path="/bids")
            for kind, level in zip(WRITES, (1_230_000, 20_500_000, 0, 7_777_777), strict=True):
                wanted = [intent(each.campaign_id, level, kind, at=rig.clock.instant) for each in campaigns]
                for fault in (None, Fault.ERROR, Fault.GARBAGE, Fault.FAILED, Fault.THROTTLED):
                    if fault is not None:
                        rig.faults.order(fault, path=f"/v1/meta/{WRITES[kind]}")
                    await tell(kind.value, wanted)
                await tell("reconcile", wanted)
            await tell("fetch_spend", START)
        told.append(rig.market.state_hash())
        return told

    stories = []
    for way in WAYS:
        async with running(way) as rig:
            stories.append(await story(rig))
    assert stories[0] == stories[1]
    errors = {each[0] for each in stories[0] if isinstance(each, tuple)}
    assert errors == {RateLimited, UnknownOutcome}


# ---- units


@given(some.integers(0, 10**15))
def test_prices_go_out_and_come_back_exactly(amount: int) -> None:
    assert micros(price_text(amount)) == amount


@given(some.integers(0, 10**9))
def test_whole_cents_have_two_decimals(cents: int) -> None:
    assert price_text(cents * 10_000) == f"{cents // 100}.{cents % 100:02d}"


@pytest.mark.parametrize("text", ["", "1,23", "1e3", "free", "1.2345678", " 1", "1.00\n", "--1", "NaN", "9" * 30])
def test_an_amount_that_is_none_is_garbled(text: str) -> None:
    with pytest.raises(Temporary, match="garbled"):
        micros(text)


async def test_campaigns_are_those_of_the_market(rig: Rig) -> None:
    for place, platform in enumerate(PLATFORMS):
        found = await rig.to("fetch_campaigns", instance=platform)
        first, last = rig.market.span(place)
        assert [each.campaign_id for each in found] == [str(100_001 + index) for index in range(first, last)]
        for index, each in enumerate(found, first):
            assert isinstance(each, Campaign)
            assert (each.connector, each.platform, each.currency) == (platform, platform, "USD")
            assert each.bid_micros == rig.market.control[at.BID, index]
            assert each.daily_budget_micros == rig.market.control[at.BUDGET, index]
            assert each.status is CampaignStatus.ACTIVE
            steps = (each.bid_step_micros, each.min_bid_micros, each.budget_step_micros, each.min_budget_micros)
            assert steps == (10_000, 50_000, 10_000, 1_000_000)


async def test_every_micro_of_spend_and_revenue_arrives(rig: Rig) -> None:
    rig.clock.instant = Instant(START + 9 * HOUR)
    for place, platform in enumerate(PLATFORMS):
        first, last = rig.market.span(place)
        report = await rig.to("fetch_spend", Instant(START - 3 * DAY), instance=platform)
        assert report.as_of == START + 9 * HOUR
        assert sum(row.spend_micros for row in report.rows) == rig.market.days[at.SPEND, :, first:last].sum() > 0
        rows = await pages(rig, WINDOW, platform)
        shown, as_of = rig.market.report(place, rig.clock.now())
        for name, metric in (
            ("impressions", at.IMPRESSIONS),
            ("clicks", at.CLICKS),
            ("conversions", at.CONVERSIONS),
            ("spend_micros", at.SPEND),
            ("revenue_micros", at.REVENUE),
        ):
            assert sum(getattr(row, name) for row in rows) == shown[metric].sum()
        told = await rig.to("fetch_performance", WINDOW, None, instance=platform)
        assert told.as_of == as_of < rig.clock.now()


async def test_every_micro_of_a_change_arrives_and_none_is_rounded_away(rig: Rig) -> None:
    wanted = [intent("100001", 1_230_000), intent("100002", 1_234_567), intent("100002", 40_000, cause="low")]
    receipts = await rig.to("adjust_bid", wanted)
    assert [(each.key, each.outcome, each.reason) for each in receipts] == [
        (wanted[0].key, Outcome.ACCEPTED, ""),
        (wanted[1].key, Outcome.REJECTED, "BAD_STEP"),
        (wanted[2].key, Outcome.REJECTED, "BELOW_MINIMUM"),
    ]
    assert receipts[0].vendor_ref == "fx-1"
    assert rig.market.control[at.BID, 0] == 1_230_000
    kind = IntentKind.SET_BUDGET
    assert (await rig.to("set_budget", [intent("100002", 98_760_000, kind)]))[0].outcome is Outcome.ACCEPTED
    assert rig.market.control[at.BUDGET, 1] == 98_760_000
    kind = IntentKind.SET_STATUS
    for level, status in ((0, CampaignStatus.PAUSED), (1, CampaignStatus.ACTIVE)):
        assert (await rig.to("set_status", [intent("100001", level, kind)]))[0].outcome is Outcome.ACCEPTED
        assert rig.market.control[at.ACTIVE, 0] == level
        assert (await rig.to("fetch_campaigns"))[0].status is status
    kind = IntentKind.PLACE_BID
    assert (await rig.to("place_bid", [intent("100001", 4_560_000, kind)]))[0].outcome is Outcome.ACCEPTED
    assert [each.after for each in rig.vendor.service.effects.recent()][-1] == 4_560_000


async def test_a_campaign_of_another_account_is_refused(near: Rig) -> None:
    (receipt,) = await near.to("adjust_bid", [intent("100003", 1_000_000)])
    assert (receipt.outcome, receipt.reason) == (Outcome.REJECTED, "NOT_FOUND")
    assert near.effects == 0


async def test_small_pages_join_to_the_same_campaigns(near: Rig) -> None:
    async with running(page_size=1) as small:
        assert await small.to("fetch_campaigns") == await near.to("fetch_campaigns")
        assert small.asked("campaigns") == 2


# ---- what goes wrong, as types


@pytest.mark.parametrize("verb", READS)
@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.GARBAGE, Fault.FAILED, Fault.LOST, Fault.THROTTLED])
async def test_a_failing_read_is_temporary_and_the_next_one_works(near: Rig, verb: str, fault: Fault) -> None:
    near.faults.order(fault, path=f"/{READS[verb][2]}")
    with pytest.raises(Temporary) as caught:
        await read(near, verb)
    if fault is Fault.THROTTLED:
        assert isinstance(caught.value, RateLimited)
        assert caught.value.retry_at == START + 30 * SECOND
    else:
        assert not isinstance(caught.value, RateLimited)
    assert isinstance(caught.value, NoAnswer) == (fault is Fault.LOST)
    assert ("TRY_LATER" in str(caught.value)) == (fault is Fault.FAILED)
    await read(near, verb)


@pytest.mark.parametrize("kind", WRITES)
@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.GARBAGE, Fault.LOST])
async def test_a_write_that_may_have_been_done_is_unknown_and_read_back(
    rig: Rig, kind: IntentKind, fault: Fault
) -> None:
    rig.faults.order(fault, path=f"/{WRITES[kind]}")
    with pytest.raises(UnknownOutcome) as caught:
        await write(rig, kind)
    assert type(caught.value) is UnknownOutcome
    level = 1 if kind is IntentKind.SET_STATUS else 5_000_000
    wanted = [intent("100001", level, kind), intent("100002", level, kind)]
    assert caught.value.keys == tuple(each.key for each in wanted)
    done = fault is Fault.LOST
    assert rig.effects == 2 * done
    settled = await rig.to("reconcile", wanted)
    assert [each.key for each in settled] == [each.key for each in wanted]
    if done:
        assert [(each.outcome, each.vendor_ref) for each in settled] == [
            (Outcome.ACCEPTED, "fx-1"),
            (Outcome.ACCEPTED, "fx-2"),
        ]
    else:
        assert [(each.outcome, each.reason) for each in settled] == [(Outcome.REJECTED, "NOT_APPLIED")] * 2


@pytest.mark.parametrize("kind", WRITES)
async def test_success_that_failed_inside_is_a_refusal_of_each(rig: Rig, kind: IntentKind) -> None:
    rig.faults.order(Fault.FAILED, path=f"/{WRITES[kind]}")
    receipts = await write(rig, kind)
    assert [(each.outcome, each.reason) for each in receipts] == [(Outcome.REJECTED, "TRY_LATER")] * 2
    assert rig.effects == 0


@pytest.mark.parametrize("kind", WRITES)
async def test_a_throttled_write_says_until_when(rig: Rig, kind: IntentKind) -> None:
    rig.faults.order(Fault.THROTTLED, path=f"/{WRITES[kind]}")
    with pytest.raises(RateLimited) as caught:
        await write(rig, kind)
    assert caught.value.retry_at == START + 30 * SECOND
    assert rig.effects == 0


async def test_the_vendors_own_throttling_ends_when_it_says(near: Rig) -> None:
    near.vendor.service.requests_per_minute = 2
    near.clock.instant = Instant(START + 15 * SECOND)
    await read(near, "check")
    await write(near)
    for attempt in (write(near), read(near, "fetch_spend")):
        with pytest.raises(RateLimited) as caught:
            await attempt
        assert caught.value.retry_at == START + MINUTE
    near.clock.instant = Instant(START + MINUTE)
    await read(near, "check")


@pytest.mark.parametrize(
    ("status", "headers", "of_read", "of_write"),
    [
        (400, {}, Rejected, Rejected),
        (403, {}, AuthExpired, AuthExpired),
        (404, {}, Rejected, Rejected),
        (405, {}, Rejected, Rejected),
        (413, {}, Rejected, Rejected),
        (429, {}, RateLimited, RateLimited),
        (503, {"retry-after": "7"}, RateLimited, RateLimited),
        (503, {}, Temporary, UnknownOutcome),
        (500, {"retry-after": "7"}, Temporary, UnknownOutcome),
        (502, {}, Temporary, UnknownOutcome),
        (504, {}, Temporary, UnknownOutcome),
        (302, {"location": "/elsewhere"}, Temporary, UnknownOutcome),
        (418, {}, Temporary, UnknownOutcome),
        (204, {}, Temporary, UnknownOutcome),
    ],
)
@pytest.mark.parametrize("body", [b'{"error":{"code":"SOME_CODE","message":"m"}}', b"<html>", b"\xff\xfe", b""])
async def test_a_status_means_one_error(
    near: Rig,
    status: int,
    headers: dict[str, str],
    of_read: type[PluginError],
    of_write: type[PluginError],
    body: bytes,
) -> None:
    near.answer("/v1/", status, body, headers)
    with pytest.raises(of_read) as caught:
        await read(near, "fetch_campaigns")
    assert type(caught.value) is of_read
    with pytest.raises(of_write) as caught:
        await write(near)
    assert type(caught.value) is of_write
    if isinstance(caught.value, RateLimited):
        assert caught.value.retry_at == START + (7 if headers else 30) * SECOND
    if isinstance(caught.value, Rejected):
        assert caught.value.reason == ("SOME_CODE" if body.startswith(b"{") else "")
    if isinstance(caught.value, UnknownOutcome):
        assert len(caught.value.keys) == 2


@pytest.mark.parametrize("text", ["Mon, 05 Jan 2026 00:02:00 GMT", "120"])
async def test_both_notations_of_retry_after_are_read(near: Rig, text: str) -> None:
    near.answer("/v1/", 429, b"", {"retry-after": text})
    with pytest.raises(RateLimited) as caught:
        await read(near, "check")
    assert caught.value.retry_at == START + 120 * SECOND


GARBLED = [
    b"",
    b"null",
    b"[]",
    b"{",
    b'"\xff\xfe"',
    b'{"\xff": 1}',
    b"[" * 100_000,
    b'{"campaigns": 1, "rows": 1, "customers": 1, "effects": 1, "results": 1}',
    b'{"campaigns": [{}], "rows": [{}], "customers": [{}], "effects": [{}], "results": [{}]}',
    b'{"other":' + b"[" * 100_000,
    b'{"error": "text"}',
    b'{"error": {"code": "\xff"}}',
]


@pytest.mark.parametrize("body", GARBLED)
async def test_no_bytes_are_a_bug_of_the_plugin(near: Rig, body: bytes) -> None:
    near.answer("/v1/", 200, body)
    for verb in READS:
        with pytest.raises(Temporary):
            await read(near, verb)
    for kind in WRITES:
        with pytest.raises(UnknownOutcome) as caught:
            await write(near, kind)
        assert len(caught.value.keys) == 2


@pytest.mark.parametrize(
    ("verb", "field", "value"),
    [
        ("fetch_campaigns", "state", "REMOVED"),
        ("fetch_campaigns", "daily_budget", "12,50"),
        ("fetch_campaigns", "max_cpc", "1e2"),
        ("fetch_campaigns", "id", 100001),
        ("fetch_performance", "cost", "much"),
        ("fetch_performance", "clicks", "3"),
        ("fetch_performance", "clicks", 3.5),
        ("fetch_performance", "as_of", "now"),
        ("fetch_spend", "cost", ""),
        ("fetch_spend", "as_of", "2026-13-01T00:00:00Z"),
        ("fetch_customers", "total", None),
        ("fetch_customers", "updated_at", "yesterday"),
        ("fetch_customers", "first_order_at", ""),
    ],
)
async def test_one_bad_field_makes_an_answer_garbled(near: Rig, verb: str, field: str, value: object) -> None:
    def change(body: bytes) -> bytes:
        told = json.loads(body)
        if field in told:
            return json.dumps(told | {field: value}).encode()
        (items,) = (each for each in told.values() if isinstance(each, list))
        assert field in items[0]
        items[0][field] = value
        return json.dumps(told).encode()

    near.vendor.alter = lambda path, said: (said[0], said[1], change(said[2])) if "/v1/" in path else said
    with pytest.raises(Temporary, match="garbled"):
        await read(near, verb)


async def test_pages_that_never_end_are_garbled(near: Rig) -> None:
    def change(body: bytes) -> bytes:
        return json.dumps(json.loads(body) | {"next_page_token": "1"}).encode()

    near.vendor.alter = lambda path, said: (said[0], said[1], change(said[2])) if "campaigns" in path else said
    with pytest.raises(Temporary, match="do not end"):
        await read(near, "fetch_campaigns")


async def test_an_operation_left_out_or_unclear_is_unknown(near: Rig) -> None:
    def change(body: bytes) -> bytes:
        results = json.loads(body)["results"]
        return json.dumps({"results": [results[2], results[1] | {"status": "QUEUED"}]}).encode()

    near.vendor.alter = lambda path, said: (said[0], said[1], change(said[2])) if "bids" in path else said
    wanted = [intent("100001", 1_000_000, cause=str(number)) for number in range(3)]
    receipts = await near.to("adjust_bid", wanted)
    assert [(each.key, each.outcome, each.reason) for each in receipts] == [
        (wanted[0].key, Outcome.UNKNOWN, "NOT_MENTIONED"),
        (wanted[1].key, Outcome.UNKNOWN, "UNCLEAR_STATUS"),
        (wanted[2].key, Outcome.ACCEPTED, ""),
    ]


async def test_a_window_the_wrong_way_round_is_rejected(near: Rig) -> None:
    with pytest.raises(Rejected) as caught:
        await near.to("fetch_performance", DayWindow("2026-01-05", "2026-01-02"), None)
    assert caught.value.reason == "INVALID_ARGUMENT"


async def test_a_platform_the_sandbox_does_not_have_is_rejected() -> None:
    async with running(platforms=("x",)) as rig:
        with pytest.raises(Rejected) as caught:
            await rig.to("check", instance="x")
        assert caught.value.reason == "NOT_FOUND"


# ---- tokens


class Forgetful(Tokens):
    """Forgets every token the first `times` it is shown one."""

    def __init__(self, times: int) -> None:
        super().__init__("sandbox", "sandbox")
        self.times = times

    def valid(self, header: str, now: Instant) -> bool:
        self.times -= 1
        return self.times < 0 and super().valid(header, now)


async def test_one_token_serves_until_shortly_before_its_end(rig: Rig) -> None:
    for minutes in (0, 1, 58):
        rig.clock.instant = Instant(START + minutes * MINUTE)
        await asyncio.gather(*(read(rig, "fetch_spend") for _ in range(3)), write(rig))
    assert rig.asked("/token") == 1
    rig.clock.instant = Instant(START + 59 * MINUTE)
    await read(rig, "fetch_spend")
    assert rig.asked("/token") == 2


async def test_a_refused_token_is_fetched_anew_once(rig: Rig) -> None:
    await read(rig, "check")
    rig.vendor.service.tokens = Forgetful(1)
    receipts = await write(rig)
    assert [each.outcome for each in receipts] == [Outcome.ACCEPTED] * 2
    assert (rig.asked("/token"), rig.asked("/bids"), rig.effects) == (2, 2, 2)


async def test_tokens_that_are_never_accepted_expire_the_credentials(near: Rig) -> None:
    near.vendor.service.tokens = Forgetful(10**6)
    for attempt in (read(near, "fetch_spend"), write(near)):
        with pytest.raises(AuthExpired):
            await attempt
    assert near.effects == 0
    assert near.asked("/token") <= 4


async def test_wrong_credentials_are_for_a_person() -> None:
    async with running(secret="wrong") as rig:
        for attempt in (read(rig, "check"), read(rig, "fetch_customers"), write(rig)):
            with pytest.raises(AuthExpired):
                await attempt
        assert rig.asked("/v1/") == 0


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.GARBAGE, Fault.LOST, Fault.THROTTLED])
async def test_without_a_token_nothing_was_sent(rig: Rig, fault: Fault) -> None:
    for attempt in (write(rig), read(rig, "fetch_campaigns")):
        rig.faults.order(fault, path="/token")
        with pytest.raises(Temporary) as caught:
            await attempt
        assert isinstance(caught.value, RateLimited) == (fault is Fault.THROTTLED)
        if isinstance(caught.value, NoAnswer):
            assert not caught.value.sent
    assert rig.asked("/v1/") == 0
    await write(rig)


# ---- a socket only


async def test_where_nobody_listens_nothing_was_sent() -> None:
    async with running("socket") as rig:
        await read(rig, "check")
        assert rig.server is not None
        await rig.server.close()
        for attempt in (read(rig, "fetch_spend"), write(rig)):
            with pytest.raises(NoAnswer) as caught:
                await attempt
            assert not caught.value.sent
        assert rig.effects == 0


async def test_a_market_that_is_still_being_made_asks_for_patience() -> None:
    async with running("socket") as rig:
        assert rig.server is not None
        service, rig.server.service = rig.server.service, None
        for attempt in (read(rig, "check"), read(rig, "fetch_customers"), write(rig)):
            with pytest.raises(RateLimited) as caught:
                await attempt
            assert caught.value.retry_at == START + SECOND
        rig.server.service = service
        await read(rig, "check")


# ---- reading back


async def test_reading_back_tells_what_was_done_from_what_was_not(rig: Rig) -> None:
    done = [intent("100001", 1_000_000), intent("100002", 20_000_000, IntentKind.SET_BUDGET)]
    refused, never = intent("100002", 1_234_567), intent("100001", 9_000_000, cause="never sent")
    receipts = [*await rig.to("adjust_bid", [done[0], refused]), *await rig.to("set_budget", [done[1]])]
    told = await rig.to("reconcile", [never, done[1], refused, done[0]])
    assert told == [
        Receipt(never.key, Outcome.REJECTED, "NOT_APPLIED"),
        Receipt(done[1].key, Outcome.ACCEPTED, vendor_ref=receipts[2].vendor_ref),
        Receipt(refused.key, Outcome.REJECTED, "NOT_APPLIED"),
        Receipt(done[0].key, Outcome.ACCEPTED, vendor_ref=receipts[0].vendor_ref),
    ]
    assert rig.asked("/effects") == 1
    assert await rig.to("reconcile", []) == []


async def test_hundreds_of_keys_are_read_back_in_parts(near: Rig) -> None:
    wanted = [intent("100001", 1_000_000, cause=str(number)) for number in range(250)]
    await near.to("adjust_bid", wanted[::2])
    told = await near.to("reconcile", wanted)
    assert [each.key for each in told] == [each.key for each in wanted]
    assert [each.outcome for each in told] == [Outcome.ACCEPTED, Outcome.REJECTED] * 125
    assert near.asked("/effects") == 3


async def test_what_is_too_old_is_confirmed_by_its_value_and_never_denied(near: Rig) -> None:
    wanted = [
        intent("100001", 1_000_000),
        intent("100002", 2_000_000, cause="overwritten"),
        intent("100001", 30_000_000, IntentKind.SET_BUDGET),
        intent("100002", 0, IntentKind.SET_STATUS),
        intent("100002", 5_000_000, IntentKind.PLACE_BID),
        intent("999999", 1_000_000),
    ]
    for each in wanted:
        await near.to(each.kind.value, [each])
    near.clock.instant = Instant(START + 4 * DAY)
    await near.to("adjust_bid", [intent("100002", 3_000_000, at=near.clock.instant)])
    told = await near.to("reconcile", wanted)
    assert [(each.outcome, each.reason) for each in told] == [
        (Outcome.ACCEPTED, "IN_FORCE"),
        (Outcome.UNKNOWN, "TOO_OLD_TO_TELL"),
        (Outcome.ACCEPTED, "IN_FORCE"),
        (Outcome.ACCEPTED, "IN_FORCE"),
        (Outcome.UNKNOWN, "TOO_OLD_TO_TELL"),
        (Outcome.UNKNOWN, "TOO_OLD_TO_TELL"),
    ]


async def test_sending_a_change_twice_is_visible_as_a_double(near: Rig) -> None:
    wanted = intent("100001", 1_000_000)
    for _ in range(2):
        await near.to("adjust_bid", [wanted])
    assert len(near.vendor.service.effects.find(wanted.key)) == 2
    assert (await near.to("reconcile", [wanted]))[0].outcome is Outcome.ACCEPTED


async def test_more_changes_than_fit_one_request_are_told_apart_when_the_second_fails(near: Rig) -> None:
    wanted = [intent("100001", 1_000_000, cause=str(number)) for number in range(700)]
    receipts = await near.to("adjust_bid", wanted)
    assert {each.outcome for each in receipts} == {Outcome.ACCEPTED}
    assert near.asked("/bids") == 2
    near.vendor.service.requests_per_minute = near.asked("/v1/meta") + 1
    again = [intent("100001", 1_000_000, cause=f"again {number}") for number in range(700)]
    receipts = await near.to("adjust_bid", again)
    assert [each.outcome for each in receipts] == [Outcome.ACCEPTED] * 500 + [Outcome.UNKNOWN] * 200
    assert [each.key for each in receipts] == [each.key for each in again]


# ---- customers


@pytest.mark.parametrize("way", WAYS)
async def test_customers_are_read_once_and_then_only_what_changed(way: str) -> None:
    async with running(way, page_size=20, history_days=4) as rig:

        async def read_on(cursor: str) -> tuple[list[Customer], str]:
            found: list[Customer] = []
            while True:
                page = await rig.to("fetch_customers", cursor, instance="shop")
                assert len(page.customers) <= 20
                found += page.customers
                cursor = page.cursor
                if not page.more:
                    return found, cursor

        first, cursor = await read_on("")
        facts, _, _ = rig.market.customers(0, 10**6)
        assert [each.customer_id for each in first] == [each.customer_id for each in facts]
        assert [each.revenue_micros for each in first] == [each.revenue_micros for each in facts]
        assert [each.updated_at for each in first] == [each.updated_at for each in facts]
        assert [each.platform for each in first] == [PLATFORMS[each.platform] for each in facts]
        assert await read_on(cursor) == ([], cursor)
        rig.clock.instant = Instant(START + DAY)
        second, later = await read_on(cursor)
        assert second
        assert all(START <= each.updated_at <= START + DAY for each in second)
        assert int(later) > int(cursor)
        merged = {each.customer_id: each for each in first} | {each.customer_id: each for each in second}
        facts, _, _ = rig.market.customers(0, 10**6)
        assert {key: each.revenue_micros for key, each in merged.items()} == {
            each.customer_id: each.revenue_micros for each in facts
        }


async def test_a_source_that_is_no_platform_becomes_empty(near: Rig) -> None:
    def change(body: bytes) -> bytes:
        told = json.loads(body)
        for each, source in zip(told["customers"], ("newsletter", "", "facebook"), strict=False):
            each["source"] = source
        return json.dumps(told).encode()

    near.vendor.alter = lambda path, said: (said[0], said[1], change(said[2])) if "customers" in path else said
    page = await read(near, "fetch_customers")
    assert [each.platform for each in page.customers[:3]] == ["", "", "meta"]


# ---- its own page


def test_the_page_of_the_plugin_names_every_key_and_verb() -> None:
    text = Path(kiki_sandbox.__file__).with_name("README.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    for name, field in SandboxConfig.model_fields.items():
        default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        shown = f"{default:g}" if isinstance(default, float) else str(default)
        assert f"`{shown}`" in rows[name]
    verbs = {*vars(SandboxConnector), *vars(SandboxCrm)} & {*VERBS["connector"], *VERBS["crm"]} - {"close"}
    assert {name for name in rows if name in verbs} == verbs
