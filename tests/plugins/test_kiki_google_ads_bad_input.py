"""Google on a bad day: a broken answer is a typed error or a counted skip, nothing is booked wrongly or shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kiki_agent.errors import (
    Bug,
    PluginError,
    Temporary,
    UnknownOutcome,
)
from kiki_agent.model import DAY, Instant, IntentKind
from tests.contracts.google_rig import EVERYTHING, NOW, WINDOW, Rig, google, quiet

SINCE = Instant(NOW - DAY)
BUDGET, PLACE = IntentKind.SET_BUDGET, IntentKind.PLACE_BID
READS: dict[str, tuple[Any, ...]] = {
    "check": (),
    "fetch_campaigns": (),
    "fetch_performance": (WINDOW, None),
    "fetch_spend": (SINCE,),
}
JSON = {"content-type": "application/json; charset=UTF-8"}


def budget(rig: Rig, place: int = 0) -> Any:
    return rig.to("set_budget", [rig.intent(place, 33_000_000, BUDGET)])


async def ready(rig: Rig) -> None:
    """Currency, time zone, levers and a token are known."""
    await rig.to("capabilities")
    await rig.campaigns()


# ---- bodies


def _broken() -> dict[str, tuple[bytes, dict[str, str]]]:
    whole = b'[{"results":[{"campaign":{"id":"1"}}],"fieldMask":"x"}]'
    return {
        "empty": (b"", JSON),
        "cut in the middle": (whole[:30], JSON),
        "cut at the end": (whole[:-1], JSON),
        "twice": (whole * 2, JSON),
        "a page": (b"<html>login</html>", {"content-type": "text/html"}),
        "a page called JSON": (b"<html>login</html>", JSON),
        "JSON called a page": (b'{"results":[],"fieldMask":"x"}', {"content-type": "text/html"}),
        "JSON called bytes": (b'[{"fieldMask":"x"}]', {"content-type": "application/octet-stream"}),
        "null": (b"null", JSON),
        "a number": (b"17", JSON),
        "a text": (b'"ok"', JSON),
        "lists of lists": (b"[" * 5_000 + b"]" * 5_000, JSON),
        "no UTF-8": (b'{"results":[{"campaign":{"name":"\xff\xfe"}}]}', JSON),
        "NUL bytes": (b"\0" * 100, JSON),
        "another object": (b'{"hello":"world"}', JSON),
        "a list of others": (b'[{"hello":"world"}]', JSON),
        "results of another type": (b'{"results":{"campaign":1}}', JSON),
        "an error under a 200": (b'{"error":{"code":500,"message":"x","status":"INTERNAL"}}', JSON),
        "an error in a stream": (
            b'[{"fieldMask":"x"},{"error":{"code":503,"message":"x","status":"UNAVAIL"}}]',
            JSON,
        ),
        "30 MB": (b'{"results":[' + b" " * 30_000_000 + b"]}", JSON),
    }


BROKEN = _broken()


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_answer_is_temporary_for_a_read_and_unknown_for_a_change(name: str) -> None:
    body, headers = BROKEN[name]
    async with google() as rig:
        await ready(rig)
        rig.answer("googleAds:", 200, body, headers)
        for verb, args in READS.items():
            with pytest.raises(Temporary):
                await rig.to(verb, *args)
        if body[:1] not in (b"{",) or name in ("30 MB", "no UTF-8", "JSON called a page", "results of another type"):
            rig.answer(":mutate", 200, body, headers)
            error = await quiet(budget(rig))
            assert isinstance(error, UnknownOutcome)
            assert len(error.keys) == 1
        assert rig.effects.count <= 1


async def test_a_change_that_google_does_not_mention_is_unknown() -> None:
    async with google() as rig:
        await ready(rig)
        for body in (b"{}", b'{"results":[]}', b'{"results":[{}]}', b'{"hello":"world"}'):
            rig.answer(":mutate", 200, body)
            (receipt,) = await budget(rig)
            assert (receipt.outcome.value, receipt.reason) == ("unknown", "NOT_MENTIONED")


async def test_a_partial_failure_that_cannot_be_read_settles_nothing() -> None:
    kind = "type.googleapis.com/google.ads.googleads.v26.errors.GoogleAdsFailure"
    async with google() as rig:
        await ready(rig)
        for failure in (
            {"code": 3},
            {"code": 3, "message": "x", "details": []},
            {"code": 3, "details": [{"@type": "another"}]},
            {"code": 3, "details": [{"@type": kind, "errors": [{"errorCode": 5}]}]},
            {"code": 3, "details": [{"@type": kind, "errors": []}]},
            {"code": 3, "details": [{"@type": kind, "errors": [_failed("mutateError", "X", 9)]}]},
            {"code": 13, "details": [{"@type": kind, "errors": [_failed("internalError", "INTERNAL_ERROR", 0)]}]},
        ):
            rig.answer(":mutate", 200, json.dumps({"results": [{}], "partialFailureError": failure}).encode())
            (receipt,) = await budget(rig)
            assert receipt.outcome.value == "unknown", failure


def _failed(group: str, name: str, index: int) -> dict[str, Any]:
    where = {"fieldPathElements": [{"fieldName": "operations", "index": index}]}
    return {"errorCode": {group: name}, "message": "no", "location": where}


# ---- numbers


def spend_row(**changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "campaign": {"resourceName": "customers/1/campaigns/1", "id": "20000001"},
        "metrics": {"costMicros": "1000000"},
        "segments": {"date": "2026-06-01"},
    }
    for path, value in changes.items():
        outer, _, inner = path.partition("__")
        if not inner:
            row.pop(outer) if value is None else row.__setitem__(outer, value)
        else:
            row[outer][inner] = value
    return row


BAD_COSTS: dict[str, list[dict[str, Any]]] = {
    "negative": [spend_row(metrics__costMicros="-5")],
    "beyond 64 bits": [spend_row(metrics__costMicros="9223372036854775808")],
    "beyond belief": [spend_row(metrics__costMicros=str(10**15 + 1))],
    "a fraction": [spend_row(metrics__costMicros=1.5)],
    "a fraction as text": [spend_row(metrics__costMicros="1.0")],
    "words": [spend_row(metrics__costMicros="much")],
    "nothing as text": [spend_row(metrics__costMicros="")],
    "true": [spend_row(metrics__costMicros=True)],
    "null": [spend_row(metrics__costMicros=None)],
    "digits of another script": [spend_row(metrics__costMicros="٣٤")],
    "a campaign without a number": [spend_row(campaign__id="abc")],
    "no campaign": [spend_row(campaign=None)],
    "no day": [spend_row(segments=None)],
    "a day nobody asked for": [spend_row(segments__date="2026-05-01")],
    "a day to come": [spend_row(segments__date="2026-06-02")],
    "no day at all": [spend_row(segments__date="")],
    "the same twice": [spend_row(), spend_row()],
}


@pytest.mark.parametrize("name", BAD_COSTS)
async def test_a_cost_that_makes_no_sense_fails_the_read_and_is_never_nothing(name: str) -> None:
    async with google() as rig:
        await ready(rig)
        rig.answer(":searchStream", 200, json.dumps([{"results": BAD_COSTS[name], "fieldMask": "x"}]).encode())
        with pytest.raises(Temporary, match="garbled"):
            await rig.to("fetch_spend", SINCE)


@pytest.mark.parametrize(
    ("given", "booked"),
    [
        ("9007199254740993", None),
        (str(2**49 + 1), 2**49 + 1),
        ("999999999999999", 10**15 - 1),
        (1234567, 1234567),
        ("0", 0),
        (0, 0),
    ],
)
async def test_whole_numbers_are_exact_as_text_and_as_numbers(given: Any, booked: int | None) -> None:
    async with google() as rig:
        await ready(rig)
        rows = [spend_row(metrics__costMicros=given)]
        rig.answer(":searchStream", 200, json.dumps([{"results": rows, "fieldMask": "x"}]).encode())
        if booked is None:  # 2^53 + 1 micros are nine thousand million units: no money at all
            with pytest.raises(Temporary):
                await rig.to("fetch_spend", SINCE)
        else:
            assert [row.spend_micros for row in (await rig.to("fetch_spend", SINCE)).rows] == [booked]


def _day(*clicks_and_costs: tuple[int, int | None], day: str = "2026-06-01") -> list[dict[str, Any]]:
    """Rows of one day; a cost of None is left out, as a cost of nothing is."""
    return [
        {
            "campaign": {"id": str(20000001 + number)},
            "segments": {"date": day},
            "metrics": {"clicks": str(clicks)} | ({} if cost is None else {"costMicros": str(cost)}),
        }
        for number, (clicks, cost) in enumerate(clicks_and_costs)
    ]


async def test_a_day_with_clicks_and_no_cost_anywhere_is_not_booked_as_nothing() -> None:
    """An absent cost is a cost of zero by the rules of the wire, and may as well be one that was left out."""
    async with google() as rig:
        await ready(rig)
        rows = [*_day((5, 10**6), day="2026-05-31"), *_day((6, None), (0, None), (4, 0))]
        rig.answer(":searchStream", 200, json.dumps([{"results": rows, "fieldMask": "x"}]).encode())
        with pytest.raises(Temporary, match="10 clicks on 2026-06-01 and no cost at all, which is not believed"):
            await rig.to("fetch_spend", SINCE)
        context = rig.plugins.instances["google"].context
        assert context is not None
        assert context.metrics.values["cost_missing"] == 1


@pytest.mark.parametrize(
    "rows",
    [
        _day((9, None), (0, None)),
        _day((500, None), (1, 1)),
        [*_day((9, None), day="2026-05-31"), *_day((9, None))],
        _day((0, None), (0, None)),
    ],
    ids=["few clicks", "one campaign charged", "few on each day", "a day that begins"],
)
async def test_a_day_that_may_have_cost_nothing_is_booked_so(rows: list[dict[str, Any]]) -> None:
    async with google() as rig:
        await ready(rig)
        rig.answer(":searchStream", 200, json.dumps([{"results": rows, "fieldMask": "x"}]).encode())
        report = await rig.to("fetch_spend", SINCE)
        assert [row.spend_micros for row in report.rows] == [int(row["metrics"].get("costMicros", 0)) for row in rows]


async def test_a_costless_day_is_no_evidence_that_customers_come_for_nothing() -> None:
    rows = [*_day((40, None), (3, None), day="2026-05-30"), *_day((40, 10**6), (3, None), day="2026-05-29")]
    async with google() as rig:
        await ready(rig)
        rig.answer(":search", 200, json.dumps({"results": rows, "fieldMask": "x"}).encode())
        found = (await rig.to("fetch_performance", WINDOW, None)).rows
        assert {row.day for row in found} == {"2026-05-29"}
        assert _skipped(rig) == 2


async def test_counts_beyond_2_53_are_exact_text_or_nothing() -> None:
    rows = [
        _performance(impressions=str(10**15 - 1), clicks=str(2**49 + 1), costMicros="1"),
        _performance(number=2, clicks=str(2**53)),
    ]
    async with google() as rig:
        await ready(rig)
        rig.answer(":search", 200, json.dumps({"results": rows, "fieldMask": "x"}).encode())
        (row,) = (await rig.to("fetch_performance", WINDOW, None)).rows
        assert (row.impressions, row.clicks) == (10**15 - 1, 2**49 + 1)
        assert _skipped(rig) == 1


async def test_absent_metrics_are_zero_and_numbers_may_be_text() -> None:
    rows = [
        _performance(number=1),
        _performance(number=2, conversions="2.0", conversionsValue="12.340001", clicks=7, costMicros=5),
        _performance(number=3, conversions=2.5, conversionsValue=0.1 + 0.2),
        _performance(number=4, conversions=3.5, conversionsValue=10**9),
        {"campaign": {"id": "5"}, "segments": {"date": "2026-05-30"}},
    ]
    async with google() as rig:
        await ready(rig)
        rig.answer(":search", 200, json.dumps({"results": rows, "fieldMask": "x"}).encode())
        found = (await rig.to("fetch_performance", WINDOW, None)).rows
        assert [(row.conversions, row.revenue_micros, row.clicks, row.spend_micros) for row in found] == [
            (0, 0, 0, 0),
            (2, 12_340_001, 7, 5),
            (2, 300_000, 0, 0),
            (4, 10**15, 0, 0),
            (0, 0, 0, 0),
        ]
        assert _skipped(rig) == 0


def _performance(number: int = 1, **metrics: Any) -> dict[str, Any]:
    return {"campaign": {"id": str(number)}, "segments": {"date": "2026-05-30"}, "metrics": metrics}


def _skipped(rig: Rig) -> int:
    context = rig.plugins.instances["google"].context
    assert context is not None
    return int(context.metrics.values.get("rows_skipped", 0))


async def test_rows_of_performance_that_make_no_sense_are_left_out_and_counted() -> None:
    bad = [
        _performance(costMicros="-1"),
        _performance(clicks="-1"),
        _performance(impressions="many"),
        _performance(conversions=-0.5),
        _performance(conversions="NaN"),
        _performance(conversionsValue="Infinity"),
        _performance(conversionsValue="1e999999999"),
        _performance(conversionsValue=10**10),
        {"campaign": {"id": "1"}, "metrics": {}},
        {"segments": {"date": "2026-05-30"}, "metrics": {}},
        {"campaign": {"id": "1"}, "segments": {"date": "2026-04-30"}},
        {"campaign": {"id": "1"}, "segments": {"date": "2026-05-30x"}},
        _performance(number=2),
        _performance(number=2, costMicros="5"),
    ]
    async with google() as rig:
        await ready(rig)
        rig.answer(":search", 200, json.dumps({"results": bad, "fieldMask": "x"}).encode())
        (row,) = (await rig.to("fetch_performance", WINDOW, None)).rows
        assert (row.campaign_id, row.spend_micros) == ("2", 0)
        assert _skipped(rig) == len(bad) - 1


@pytest.mark.parametrize("seed", range(6))
async def test_no_answer_whatever_makes_the_connector_a_bug(seed: int) -> None:
    """Every field of every answer, one at a time, of another type: a typed error or an answer, and never more."""
    strange: list[Any] = [None, True, -1, 2**70, 1.5, "", "x" * 300, [], {}, [[]], {"a": {}}, "NaN"]
    async with google(strategies=EVERYTHING) as rig:
        await ready(rig)
        await rig.to("adjust_bid", [rig.intent(8, 10**6)])
        calls: dict[str, Callable[[], Any]] = {name: lambda name=name: rig.to(name, *READS[name]) for name in READS} | {
            "set_budget": lambda: budget(rig),
            "reconcile": lambda: rig.to(
                "reconcile", [rig.intent(0, 1, BUDGET), rig.intent(8, 1), rig.intent(12, 1, PLACE)]
            ),
            "upload_conversions": lambda: rig.to("upload_conversions", [rig.conversion(1, 10**6)]),
        }
        for name, call in calls.items():
            for change in _changes(rig, await _answers(rig, call), strange, seed):
                rig.alter[:] = [change]
                said = await quiet(call())
                if isinstance(said, Exception):
                    assert isinstance(said, PluginError), (name, said)
                    assert not isinstance(said, Bug), (name, said)
            rig.alter.clear()


async def _answers(rig: Rig, call: Callable[[], Any]) -> list[tuple[str, bytes]]:
    before = len(rig.recorder.exchanges)
    await call()
    return [(each.path, each.answer) for each in rig.recorder.exchanges[before:] if each.is_json]


def _changes(rig: Rig, answers: list[tuple[str, bytes]], strange: list[Any], seed: int) -> list[Callable[..., Any]]:
    made = []
    for path, answer in answers:
        fields = list(_steps(json.loads(answer)))
        for number, steps in enumerate(fields[seed::6] if len(fields) > 12 else fields):
            value = strange[(number + seed) % len(strange)]

            def change(
                asked: str, said: Any, path: str = path, steps: tuple[Any, ...] = steps, value: Any = value
            ) -> Any:
                if not path.endswith(asked) or said[0] != 200:
                    return said
                try:
                    body = json.loads(said[2])
                    box = body
                    for step in steps[:-1]:
                        box = box[step]
                    box[steps[-1]] = value
                except (KeyError, IndexError, TypeError, ValueError):
                    return said
                return said[0], said[1], json.dumps(body).encode()

            made.append(change)
    return made


def _steps(value: Any, steps: tuple[Any, ...] = ()) -> Any:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (*steps, name)
            yield from _steps(inner, (*steps, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:3]):
            yield (*steps, index)
            yield from _steps(inner, (*steps, index))
