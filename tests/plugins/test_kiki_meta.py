"""Meta's bad days: whatever comes back is a typed error or a counted row left out, and no secret is in any text."""

from __future__ import annotations

import json
import traceback
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from kiki_meta import errors
from kiki_meta.client import MetaClient
from kiki_meta.config import MetaConfig
from kiki_meta.errors import Speaker, meaning

from kiki_agent.config import Settings
from kiki_agent.errors import (
    AuthExpired,
    ConfigError,
    Outdated,
    PluginError,
    RateLimited,
    Rejected,
    Temporary,
    UnknownOutcome,
)
from kiki_agent.hooks.context import ContextFactory
from kiki_agent.hooks.http import HttpAnswer, InProcessHttp, NoAnswer
from kiki_agent.hooks.manager import Plugins
from kiki_agent.model import DAY, HOUR, MINUTE, SECOND, DayWindow, Instant, IntentKind
from kiki_agent.runtime.limiter import VendorWord
from kiki_agent.sandbox import Fault
from tests.contracts.meta_drive import conversions
from tests.contracts.meta_rig import NOW, SECRET, TOKEN, Answer, Asked, Rig, intent, running

SET_1 = "120200000000001"
WINDOW, LONG = DayWindow("2026-05-30", "2026-06-01"), DayWindow("2026-01-01", "2026-06-01")
READS: dict[str, Callable[[Rig], Any]] = {
    "check": lambda rig: rig.to("check"),
    "fetch_campaigns": lambda rig: rig.to("fetch_campaigns"),
    "fetch_spend": lambda rig: rig.to("fetch_spend", Instant(NOW - DAY)),
    "fetch_performance": lambda rig: rig.to("fetch_performance", WINDOW, None),
    "a report": lambda rig: rig.to("fetch_performance", LONG, None),
    "fetch_edits": lambda rig: rig.to("fetch_edits", Instant(NOW - DAY)),
    "reconcile": lambda rig: rig.to("reconcile", [intent(IntentKind.ADJUST_BID, SET_1, 1_000_000)]),
}
WRITES: dict[str, Callable[[Rig], Any]] = {
    "one change": lambda rig: rig.to("adjust_bid", [intent(IntentKind.ADJUST_BID, SET_1, 1_000_000)]),
    "an upload": lambda rig: rig.to("upload_conversions", conversions(NOW)),
}


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """Six ad sets; what the account holds was read once."""
    async with running(campaigns=36, history_days=3) as made:
        await made.campaigns()
        yield made


def spoiled(rig: Rig, spoil: Callable[[bytes], bytes], status: int = 200, kind: str = "application/json") -> None:
    """From now on every answer is spoiled on its way."""

    def alter(asked: Asked, answer: Answer) -> Answer:
        return status, {"content-type": kind}, spoil(answer[2])

    rig.wire.alter = alter


GARBAGE: dict[str, tuple[Callable[[bytes], bytes], int, str]] = {
    "truncated": (lambda body: body[: len(body) * 2 // 3], 200, "application/json"),
    "empty": (lambda body: b"", 200, "application/json"),
    "a page": (lambda body: b"<!DOCTYPE html><title>Sign in</title>", 200, "text/html"),
    "text": (lambda body: b"ok", 200, "text/plain"),
    "a list": (lambda body: b"[1,2,3]", 200, "application/json"),
    "nothing in it": (lambda body: b"{}", 200, "application/json"),
    "null": (lambda body: b"null", 200, "application/json"),
    "thirty megabytes": (lambda body: b'{"data":"' + b"x" * 30_000_000 + b'"}', 200, "application/json"),
    "deep": (lambda body: b"[" * 100_000, 200, "application/json"),
    "not UTF-8": (lambda body: body[:-1] + b"\xff\xfe", 200, "application/json"),
    "a gateway": (lambda body: b"<html>502 Bad Gateway</html>", 502, "text/html"),
}


@pytest.mark.parametrize("how", GARBAGE)
async def test_garbage_is_a_typed_error_of_every_call(rig: Rig, how: str) -> None:
    await rig.to("capabilities")
    spoiled(rig, *GARBAGE[how])
    for name, read in READS.items():
        with pytest.raises(Temporary) as caught:
            await read(rig)
        assert not isinstance(caught.value, RateLimited), name
    effects = rig.effects.count
    for name, write in WRITES.items():
        if name == "an upload" and how == "nothing in it":
            assert {each.outcome.value for each in await write(rig)} == {"unknown"}
            continue
        with pytest.raises(UnknownOutcome):
            await write(rig)
    assert rig.effects.count == effects + 1  # it was done, and nobody may say that it was not


@pytest.mark.parametrize("status", [400, 403, 404, 410, 429, 500, 503])
async def test_every_status_without_an_error_inside_is_typed(rig: Rig, status: int) -> None:
    spoiled(rig, lambda body: b"<html></html>", status, "text/html")
    wanted: dict[int, tuple[type, type]] = {
        400: (Rejected, Rejected),
        403: (AuthExpired, AuthExpired),
        404: (Outdated, Outdated),
        410: (Outdated, Outdated),
        429: (RateLimited, RateLimited),
        500: (Temporary, UnknownOutcome),
        503: (Temporary, UnknownOutcome),
    }
    for calls, kind in ((READS, wanted[status][0]), (WRITES, wanted[status][1])):
        for name, call in calls.items():
            with pytest.raises(kind):
                await call(rig)
            assert name


# -- the vendor's own errors


def envelope(code: int, subcode: int = 0, text: str = "what Meta says", **more: object) -> bytes:
    error = {"message": text, "type": "OAuthException", "code": code, "error_subcode": subcode, "fbtrace_id": "A1"}
    return json.dumps({"error": error | more}).encode()


CODES: tuple[tuple[int, int, int, type, type], ...] = (
    (1, 0, 500, Temporary, UnknownOutcome),
    (2, 0, 400, Temporary, UnknownOutcome),
    (2, 0, 200, Temporary, UnknownOutcome),
    (4, 1_504_022, 400, RateLimited, RateLimited),
    (17, 2_446_079, 400, RateLimited, RateLimited),
    (32, 0, 400, RateLimited, RateLimited),
    (613, 1_487_742, 400, RateLimited, RateLimited),
    *((code, 2_446_079, 400, RateLimited, RateLimited) for code in range(80_000, 80_015)),
    (17, 1_487_632, 400, Rejected, Rejected),
    (613, 1_487_632, 400, Rejected, Rejected),
    (10, 0, 403, AuthExpired, AuthExpired),
    (102, 0, 401, AuthExpired, AuthExpired),
    (190, 463, 400, AuthExpired, AuthExpired),
    (190, 463, 401, AuthExpired, AuthExpired),
    (200, 0, 403, AuthExpired, AuthExpired),
    (294, 0, 400, AuthExpired, AuthExpired),
    (12, 0, 400, Outdated, Outdated),
    (2635, 0, 400, Outdated, Outdated),
    (100, 33, 400, Rejected, Rejected),
    (100, 1_885_272, 400, Rejected, Rejected),
    (100, 0, 200, Rejected, Rejected),
    (803, 0, 404, Rejected, Rejected),
    (3018, 0, 400, Rejected, Rejected),
)


@pytest.mark.parametrize(("code", "subcode", "status", "read", "write"), CODES)
def test_every_code_has_a_meaning(code: int, subcode: int, status: int, read: type, write: type) -> None:
    answer = HttpAnswer(status, {}, envelope(code, subcode))
    speaker = Speaker("m", "v26.0", (TOKEN,))
    assert type(meaning(answer, speaker, NOW, write=False)) is read
    assert type(meaning(answer, speaker, NOW, write=True)) is write


def test_what_is_transient_is_tried_again_whatever_its_code() -> None:
    answer = HttpAnswer(400, {}, envelope(99_999, is_transient=True))
    speaker = Speaker("m", "v26.0", ())
    assert type(meaning(answer, speaker, NOW, write=False)) is Temporary
    assert type(meaning(answer, speaker, NOW, write=True)) is UnknownOutcome


async def test_an_expired_token_is_for_a_person(rig: Rig) -> None:
    rig.sandbox.token_expires_at = NOW
    for call in (*READS.values(), *WRITES.values()):
        with pytest.raises(AuthExpired, match="190"):
            await call(rig)
    assert rig.effects.count == 0


@pytest.mark.parametrize("version", ["v18.0", "v24.0", "v99.0"])
async def test_a_version_that_is_not_spoken_is_told_and_is_never_an_absent_campaign(version: str) -> None:
    async with running(campaigns=36, history_days=3, api_version=version) as rig:
        for call in (*READS.values(), *WRITES.values()):
            if call is WRITES["one change"]:  # it has to read where the levers are, so nothing was sent
                with pytest.raises(Rejected, match=r"connector\.m\.api_version") as caught:
                    await call(rig)
                assert caught.value.reason == "NOT_SENT"
                continue
            with pytest.raises(
                Outdated, match=rf"API version {version} is not accepted by Meta: set connector\.m\.api"
            ):
                await call(rig)
        assert rig.effects.count == 0
        assert all(each.path.startswith(f"/{version}/") for each in rig.wire.asked)


async def test_another_version_in_force_is_a_setting() -> None:
    async with running(campaigns=36, history_days=1, api_version="v25.0") as rig:
        for call in (*READS.values(), *WRITES.values()):
            await call(rig)
        assert (await rig.to("capabilities")).api_version == "v25.0"
        assert all(each.path.startswith("/v25.0/") for each in rig.wire.asked)


async def test_an_account_that_is_not_ours_is_refused_and_not_temporary() -> None:
    async with running(campaigns=36, history_days=3, account_id="999") as rig:
        with pytest.raises(Rejected, match="100/33"):
            await rig.to("check")


# -- numbers


def row(**more: object) -> dict[str, object]:
    usual = {"adset_id": SET_1, "date_start": "2026-06-01", "date_stop": "2026-06-01", "spend": "1.50",
             "impressions": "100", "clicks": "7"}  # fmt: skip
    return {**usual, **more}


def rows(rig: Rig, *given: dict[str, object]) -> None:
    rig.answer("/insights", json.dumps({"data": given}).encode())


ABSURD: tuple[dict[str, object], ...] = (
    {"spend": "-1.50"},
    {"spend": "NaN"},
    {"spend": "Infinity"},
    {"spend": "1e400"},
    {"spend": ""},
    {"spend": "1,50"},
    {"spend": "9" * 30},
    {"spend": -1},
    {"spend": None},
    {"adset_id": ""},
    {"adset_id": "12a"},
    {"date_start": ""},
    {"date_start": "2026-06-02"},
    {"date_start": "2026-05-01"},
    {"date_start": "2026-05-99"},
    {"date_start": "yesterday"},
)


@pytest.mark.parametrize("absurd", ABSURD)
async def test_spend_that_cannot_be_read_counts_as_unread_and_never_as_none(
    rig: Rig, absurd: dict[str, object]
) -> None:
    rows(rig, row(), row(**absurd))
    with pytest.raises(Temporary, match="garbled"):
        await rig.to("fetch_spend", Instant(NOW - DAY))
    left = {name: value for name, value in row().items() if name != "spend"}
    rows(rig, left)
    with pytest.raises(Temporary, match="spend"):
        await rig.to("fetch_spend", Instant(NOW - DAY))


@pytest.mark.parametrize(
    "absurd",
    [
        *(each for each in ABSURD if each != {"spend": None} and each != {"date_start": "2026-05-30"}),
        {"impressions": "-3"},
        {"clicks": "-1"},
        {"impressions": "many"},
        {"clicks": None},
        {"impressions": None},
        {"actions": [{"action_type": "omni_purchase", "value": "-2"}]},
        {"action_values": [{"action_type": "omni_purchase", "value": "-2.00"}]},
    ],
)
async def test_rows_that_make_no_sense_are_left_out_and_counted(rig: Rig, absurd: dict[str, object]) -> None:
    rows(rig, row(), row(adset_id="120200000000002", clicks="8") | absurd)
    report = await rig.to("fetch_performance", WINDOW, None)
    assert [each.campaign_id for each in report.rows] == [SET_1]
    context = rig.plugins.instances["m"].context
    assert context is not None
    assert context.metrics.values == {"rows_skipped": 1}


async def test_numbers_may_be_numbers_and_ids_may_be_longer_than_a_double_holds(rig: Rig) -> None:
    big = "12020000000000000000000123"
    rows(rig, row(adset_id=big, spend=20.12, impressions=9_007_199_254_740_993 % 10**8, clicks=7))
    report = await rig.to("fetch_performance", WINDOW, None)
    assert [(each.campaign_id, each.spend_micros, each.clicks) for each in report.rows] == [(big, 20_120_000, 7)]
    rows(rig, row(adset_id=big, spend="20.12"))
    spend = await rig.to("fetch_spend", Instant(NOW - DAY))
    assert [(each.campaign_id, each.spend_micros) for each in spend.rows] == [(big, 20_120_000)]
    rows(rig, row(adset_id=12020000000000000000123))
    with pytest.raises(Temporary, match="garbled"):
        await rig.to("fetch_spend", Instant(NOW - DAY))


async def test_a_row_that_comes_twice_counts_once_with_the_higher_spend(rig: Rig) -> None:
    rows(rig, row(spend="2.00"), row(spend="3.00"), row(spend="1.00"))
    spend = await rig.to("fetch_spend", Instant(NOW - DAY))
    assert [each.spend_micros for each in spend.rows] == [3_000_000]
    assert len((await rig.to("fetch_performance", WINDOW, None)).rows) == 1


@pytest.mark.parametrize(
    ("purchase", "counted"),
    [("omni_purchase", 3), ("purchase", 4), ("offsite_conversion.fb_pixel_purchase", 2), ("no_such_action", 0)],
)
async def test_a_purchase_is_counted_once_whatever_names_it_has(purchase: str, counted: int) -> None:
    names = {"purchase": "4", "omni_purchase": "3", "offsite_conversion.fb_pixel_purchase": "2"}
    actions = [{"action_type": name, "value": value} for name, value in names.items()]
    values = [{"action_type": name, "value": f"{value}.50"} for name, value in names.items()]
    async with running(campaigns=36, history_days=1, purchase_action=purchase) as rig:
        rows(rig, row(actions=[*actions, *actions], action_values=values))
        (found,) = (await rig.to("fetch_performance", WINDOW, None)).rows
        assert found.conversions == counted
        assert found.revenue_micros == (counted * 1_000_000 + 500_000 if counted else 0)


# -- throttling


@pytest.mark.parametrize(
    ("headers", "usage", "wait"),
    [
        ({"x-business-use-case-usage": '{"1":[{"call_count":28,"total_cputime":85,"total_time":3,'
          '"estimated_time_to_regain_access":7}]}'}, 0.85, 7 * MINUTE),
        ({"x-ad-account-usage": '{"acc_id_util_pct":9.67,"reset_time_duration":100}'}, 0.0967, 0),
        ({"x-ad-account-usage": '{"acc_id_util_pct":100,"reset_time_duration":90}'}, 1.0, 90 * SECOND),
        ({"x-app-usage": '{"call_count":10,"total_cputime":25,"total_time":60}'}, 0.6, 0),
        ({"x-fb-ads-insights-throttle": '{"app_id_util_pct":40,"acc_id_util_pct":12}'}, 0.4, 0),
        ({"x-app-usage": "garbage", "x-ad-account-usage": "[1]", "x-business-use-case-usage": '{"1":7}'}, 0.0, 0),
        ({"x-app-usage": '{"call_count":"many","total_time":-5,"total_cputime":true}'}, 0.0, 0),
    ],
)  # fmt: skip
async def test_usage_headers_reach_the_limiter(rig: Rig, headers: dict[str, str], usage: float, wait: int) -> None:
    hints = hints_of(rig)
    hints.usage, hints.retry_at = 0.0, Instant(0)
    body = b'{"currency":"USD","timezone_name":"UTC","min_daily_budget":100}'
    rig.answer("/act_", body, headers=headers)
    await rig.to("check")
    assert hints.usage == pytest.approx(usage)
    assert hints.retry_at == (NOW + wait if wait else 0)


def hints_of(rig: Rig) -> VendorWord:
    context = rig.plugins.instances["m"].context
    assert context is not None
    return context.hints


@pytest.mark.parametrize("code", [4, 17, 32, 613, 80_000, 80_004, 80_014])
async def test_throttling_codes_reach_the_limiter_and_name_an_end(rig: Rig, code: int) -> None:
    rig.answer("/", envelope(code), 400)
    for call in (READS["fetch_spend"], WRITES["one change"], WRITES["an upload"]):
        hints_of(rig).retry_at = Instant(0)
        with pytest.raises(RateLimited) as caught:
            await call(rig)
        assert caught.value.retry_at == hints_of(rig).retry_at == NOW + errors.PATIENCE


async def test_a_quota_that_is_used_up_ends_when_its_headers_say_so() -> None:
    async with running(campaigns=36, history_days=1, score_per_hour=20) as rig:
        await rig.campaigns()
        for _ in range(8):
            await rig.campaigns()
        with pytest.raises(RateLimited, match="80004") as caught:
            await rig.campaigns()
        assert NOW < caught.value.retry_at <= NOW + HOUR
        assert hints_of(rig).usage == 1.0
        rig.clock.instant = Instant(caught.value.retry_at)
        await rig.campaigns()


async def test_retry_after_is_minded_where_there_is_nothing_else(rig: Rig) -> None:
    for status in (429, 503):
        rig.answer("/", b"slow down", status, {"retry-after": "17"})
        with pytest.raises(RateLimited) as caught:
            await rig.to("check")
        assert caught.value.retry_at == NOW + 17 * SECOND
    with pytest.raises(UnknownOutcome):
        await WRITES["one change"](rig)


# -- pages


async def test_pages_end_or_are_called_garbled(rig: Rig) -> None:
    body = {"data": [row()], "paging": {"cursors": {"before": "a", "after": "same"}, "next": "https://x"}}
    for edge, call in (("/insights", "fetch_spend"), ("/campaigns", "fetch_campaigns"), ("/activities", "fetch_edits")):
        if edge != "/insights":
            body["data"] = []
        rig.answer(edge, json.dumps(body).encode())
        with pytest.raises(Temporary, match="do not end"):
            await READS[call](rig)


@pytest.mark.parametrize(
    "account",
    [
        {"currency": "USD", "timezone_name": "Nowhere/Land"},
        {"currency": "USD", "timezone_name": "../../etc/passwd"},
        {"currency": "USD", "timezone_name": ""},
        {"currency": "dollars", "timezone_name": "UTC"},
        {"currency": "", "timezone_name": "UTC"},
        {"timezone_name": "UTC"},
        {"currency": "USD", "timezone_name": "UTC", "min_daily_budget": -1},
        {"currency": "USD", "timezone_name": "UTC", "min_daily_budget": 1.5},
    ],
)
async def test_an_account_without_a_currency_or_days_is_none(rig: Rig, account: dict[str, object]) -> None:
    rig.answer("/act_1234567890", json.dumps(account).encode())
    with pytest.raises(Temporary, match="garbled"):
        await rig.to("capabilities")


async def test_what_takes_several_pages_is_the_same_as_in_one() -> None:
    async with running(history_days=5) as whole, running(history_days=5, page_size=3) as paged:
        for call in (READS["fetch_campaigns"], READS["fetch_spend"]):
            one, many = await call(whole), await call(paged)
            assert many == one
        assert len([each for each in paged.wire.asked if "after" in each.params]) > 10
        found: list[object] = []
        for rig in (whole, paged):
            for window in (WINDOW, LONG):
                cursor: str | None = None
                got: list[object] = []
                while True:
                    report = await rig.to("fetch_performance", window, cursor)
                    got += report.rows
                    cursor = report.cursor
                    if cursor is None:
                        break
                found.append(got)
        assert found[0] == found[2] != []
        assert found[1] == found[3] != []


# -- reports made in the background


async def test_a_report_that_takes_longer_goes_on_with_the_next_call(rig: Rig) -> None:
    waiting = json.dumps({"id": "600500400300001", "async_status": "Job Running", "async_percent_completion": 10})

    def alter(asked: Asked, answer: Answer) -> Answer:
        running = asked.path.startswith("/v26.0/60050040030000") and not asked.path.endswith("insights")
        return (200, {"content-type": "application/json"}, waiting.encode()) if running else answer

    usual = rig.wire.alter
    rig.wire.alter = alter
    first = await rig.to("fetch_performance", LONG, None)
    second = await rig.to("fetch_performance", LONG, first.cursor)
    assert (first.rows, second.rows) == ((), ())
    assert first.cursor != second.cursor
    assert rig.clock.now() == NOW + 60 * SECOND
    rig.wire.alter = usual
    third = await rig.to("fetch_performance", LONG, second.cursor)
    assert third.rows
    assert third.cursor is None
    rig.wire.alter = alter
    cursor: str | None = None
    for _ in range(20):
        cursor = (await rig.to("fetch_performance", LONG, cursor)).cursor
    with pytest.raises(Temporary, match="did not make the report"):
        await rig.to("fetch_performance", LONG, cursor)


async def test_a_report_not_known_yet_is_waited_for_and_one_that_failed_is_told(rig: Rig) -> None:
    polls = 0

    def alter(asked: Asked, answer: Answer) -> Answer:
        nonlocal polls
        if not asked.path.endswith("/600500400300001"):
            return answer
        polls += 1
        return (400, {"content-type": "application/json"}, envelope(100, 33)) if polls == 1 else answer

    rig.wire.alter = alter
    assert (await rig.to("fetch_performance", LONG, None)).rows
    early = json.dumps({"id": "1", "async_status": "Job Completed", "async_percent_completion": 90}).encode()
    rig.answer("/60050040030000", early)  # said to be completed, and still counting
    assert (await rig.to("fetch_performance", LONG, None)).rows == ()
    failed = json.dumps({"id": "1", "async_status": "Job Failed", "async_percent_completion": 40}).encode()
    rig.answer("/60050040030000", failed)
    with pytest.raises(Temporary, match="Job Failed"):
        await rig.to("fetch_performance", LONG, None)


async def test_too_much_data_at_once_is_ordered_as_a_report() -> None:
    async with running(campaigns=36, history_days=3, report_days=1_000) as rig:
        report = await rig.to("fetch_performance", LONG, None)
        assert report.rows
        assert [(each.method, each.path[-9:]) for each in rig.wire.asked][:2] == [
            ("GET", "/insights"),
            ("POST", "/insights"),
        ]


async def test_a_window_the_wrong_way_round_is_refused(rig: Rig) -> None:
    for window in (DayWindow("2026-06-02", "2026-06-01"), DayWindow("soon", "later")):
        with pytest.raises(Rejected) as caught:
            await rig.to("fetch_performance", window, None)
        assert caught.value.reason == "INVALID_ARGUMENT"


# -- secrets


PROOF_OF = "appsecret_proof"


def secrets_of(rig: Rig) -> tuple[str, ...]:
    return SECRET, TOKEN, next(each.params[PROOF_OF] for each in rig.wire.asked if PROOF_OF in each.params)


async def test_no_secret_is_in_any_error_log_or_repr(rig: Rig, capfd: pytest.CaptureFixture[str]) -> None:
    texts: list[str] = []
    proof = secrets_of(rig)[2]
    quoting = f"Malformed access token {TOKEN} with {proof} of app-{SECRET} and EAAcanary7391canary7391"

    async def provoked() -> None:
        for call in (*READS.values(), *WRITES.values()):
            try:
                texts.append(repr(await call(rig)))
            except PluginError as error:
                texts.extend((str(error), repr(error), "".join(traceback.format_exception(error))))

    for code, status in ((190, 401), (100, 400), (2, 500), (17, 400), (2635, 400), (1, 200)):
        rig.answer("/", envelope(code, text="x" * 150 + quoting), status)
        await provoked()
    for how in GARBAGE.values():
        spoiled(rig, *how)
        await provoked()
    rig.wire.alter = lambda asked, answer: answer
    for fault in Fault:
        rig.faults.order(fault, times=20)
        await provoked()
        rig.faults._ordered.clear()
    client = MetaClient(rig.connector._context)
    texts += [repr(rig.connector), repr(client), repr(rig.connector._config), str(rig.connector._config)]
    texts += [repr(rig.plugins.instances["m"]), json.dumps(rig.plugins.instances["m"].describe(), default=str)]
    out, err = capfd.readouterr()
    texts += [out, err]
    for secret in (*secrets_of(rig), "EAAcanary", "canary"):
        assert not [text for text in texts if secret in text], secret
    assert any("***" in text for text in texts)
    assert not [text for text in texts if text.startswith("Bug(")]


def test_what_looks_like_a_token_is_never_shown_and_no_half_of_one_either() -> None:
    speaker = Speaker("m", "v26.0", (TOKEN, "abc"))
    assert (
        speaker.shown("Malformed access token EAAB1234567890abcdefg for an abc")
        == "Malformed access token *** for an abc"
    )
    assert "canary" not in speaker.shown("x" * 190 + TOKEN)
    assert len(speaker.shown("y" * 10_000)) == errors.MAX_TEXT


async def test_a_wrong_token_is_quoted_by_meta_and_not_by_us() -> None:
    async with running(campaigns=36, history_days=1, access_token="EAAcanary9999wrong") as rig:
        with pytest.raises(AuthExpired, match=r"\*\*\*") as caught:
            await rig.to("check")
        assert b"EAAcanary9999wrong" in rig.wire.exchanges[-1].body
        assert "canary" not in str(caught.value)


# -- settings


async def test_without_an_app_secret_nothing_is_signed() -> None:
    async with running(campaigns=36, history_days=1, app_secret="") as rig:
        with pytest.raises(Rejected, match="appsecret_proof"):
            await rig.to("check")
        assert PROOF_OF not in rig.wire.asked[0].params


async def test_a_real_account_needs_its_number_and_a_token(tmp_path: object) -> None:
    table = {"plugin": "meta", "platform": "meta", "daily_cap": "1"}
    settings = Settings.model_validate({"mode": "dry-run", "plugins": {"allow": ["meta"]}, "connector": {"m": table}})
    factory = ContextFactory(clock=running_clock(), make_http=lambda _: InProcessHttp(_never, running_clock()))
    with pytest.raises(ConfigError, match="account_id, access_token must be given"):
        await Plugins.load(settings, make_context=factory)
    assert MetaConfig.model_validate({"account_id": "act_12"}).account == "12"


def running_clock() -> Any:
    from kiki_agent.runtime.clock import SimClock

    return SimClock(NOW)


def _never(*args: object) -> Any:
    raise NoAnswer("never asked", sent=False)
