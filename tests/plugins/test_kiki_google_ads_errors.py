"""Google's refusals, tokens, versions and secrets: what each means, and what never stands in any text."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from kiki_google_ads.errors import Asked, meaning

from kiki_agent.errors import (
    AuthExpired,
    Outdated,
    PluginError,
    RateLimited,
    Rejected,
    Temporary,
    UnknownOutcome,
)
from kiki_agent.hooks.http import HttpAnswer, NoAnswer
from kiki_agent.model import DAY, HOUR, SECOND, Instant, IntentKind
from kiki_agent.sandbox import Fault
from tests.contracts.google_rig import EVERYTHING, ID, NOW, SECRET, WINDOW, Rig, google, quiet

SINCE = Instant(NOW - DAY)
BUDGET, PLACE = IntentKind.SET_BUDGET, IntentKind.PLACE_BID
READS: dict[str, tuple[Any, ...]] = {
    "check": (),
    "fetch_campaigns": (),
    "fetch_performance": (WINDOW, None),
    "fetch_spend": (SINCE,),
}


def budget(rig: Rig, place: int = 0) -> Any:
    return rig.to("set_budget", [rig.intent(place, 33_000_000, BUDGET)])


async def ready(rig: Rig) -> None:
    """Currency, time zone, levers and a token are known."""
    await rig.to("capabilities")
    await rig.campaigns()


# ---- tokens and clocks


async def test_an_expired_token_is_renewed_once_and_the_call_repeated() -> None:
    async with google() as rig:
        await ready(rig)
        rig.expire()
        before = len(rig.recorder.exchanges)
        assert (await budget(rig))[0].outcome.value == "accepted"
        assert [(each.path.rpartition("/")[2], each.status) for each in rig.recorder.exchanges[before:]] == [
            ("campaignBudgets:mutate", 401),
            ("token", 200),
            ("campaignBudgets:mutate", 200),
        ]
        assert rig.effects.count == 1


async def test_a_token_that_google_never_takes_is_tried_twice_and_no_more() -> None:
    async with google() as rig:
        await ready(rig)
        setattr(rig.desk.tokens, "valid", lambda header, now: False)  # noqa: B010
        before = len(rig.recorder.exchanges)
        with pytest.raises(AuthExpired):
            await rig.to("fetch_spend", SINCE)
        with pytest.raises(AuthExpired):
            await budget(rig)
        assert [each.status for each in rig.recorder.exchanges[before:]] == [401, 200, 401, 401, 200, 401]
        assert rig.effects.count == 0


@pytest.mark.parametrize(
    ("status", "body", "read", "write"),
    [
        (400, b'{"error":"invalid_grant"}', AuthExpired, AuthExpired),
        (401, b'{"error":"invalid_client"}', AuthExpired, AuthExpired),
        (403, b"<html>", AuthExpired, AuthExpired),
        (429, b"{}", RateLimited, RateLimited),
        (500, b"oops", Temporary, Rejected),
        (200, b"oops", Temporary, Rejected),
        (200, b'{"access_token":""}', Temporary, Rejected),
        (200, b'{"access_token":"a\\nb"}', Temporary, Rejected),
        (200, b'{"access_token":5}', Temporary, Rejected),
        (200, b'{"error":"x"}', Temporary, Rejected),
    ],
)
async def test_no_token_means_that_nothing_was_sent(
    status: int, body: bytes, read: type[PluginError], write: type[PluginError]
) -> None:
    async with google() as rig:
        await ready(rig)
        rig.clock.instant = Instant(rig.clock.instant + 2 * HOUR)
        rig.answer("/token", status, body)
        error = await quiet(rig.to("fetch_spend", SINCE))
        assert type(error) is read
        error = await quiet(budget(rig))
        assert type(error) is write
        assert not isinstance(error, Rejected) or error.reason == "NOT_SENT"
        assert rig.asked(":searchStream") == []
        assert rig.asked("campaignBudgets:") == []


async def test_odd_lives_of_tokens_are_survived() -> None:
    for life in ('"3599"', "0", "-5", "null", "1e99", '"soon"', "10000000000", "true"):
        async with google() as rig:
            await rig.to("check")

            def lives(path: str, said: Any, life: str = life) -> Any:
                return (said[0], said[1], re.sub(rb'"expires_in":\d+', f'"expires_in":{life}'.encode(), said[2]))

            rig.alter[:] = [lives]
            rig.clock.instant = Instant(NOW + 2 * HOUR)
            first = await quiet(rig.to("check"))
            assert first is None or isinstance(first, Temporary), life
            rig.clock.instant = Instant(NOW + 9 * HOUR)
            second = await quiet(rig.to("check"))
            assert second is None or isinstance(second, Temporary), life
            assert sum(each.status == 401 for each in rig.recorder.exchanges) <= 1


async def test_a_clock_that_jumps_is_survived() -> None:
    async with google() as rig:
        await ready(rig)
        for jump in (-DAY, 40 * DAY, -3 * HOUR):
            rig.clock.instant = Instant(rig.clock.instant + jump)
            report = await rig.to("fetch_spend", Instant(NOW + 90 * DAY))
            assert report.as_of == rig.clock.now() - 3 * HOUR
            assert len(await rig.to("fetch_campaigns")) == 14


async def test_a_connection_that_was_never_made_is_not_sent_and_one_that_broke_is_unknown() -> None:
    async with google() as rig:
        await ready(rig)

        async def refused(*args: Any, **options: Any) -> HttpAnswer:
            raise NoAnswer("POST googleads.test: connection refused", sent=False)

        honest = rig.recorder.inner.request
        setattr(rig.recorder.inner, "request", refused)  # noqa: B010
        assert isinstance(await quiet(rig.to("fetch_spend", SINCE)), Temporary)
        error = await quiet(budget(rig))
        assert isinstance(error, Rejected)
        assert error.reason == "NOT_SENT"
        setattr(rig.recorder.inner, "request", honest)  # noqa: B010
        rig.faults.order(Fault.LOST, path="campaignBudgets")
        assert isinstance(await quiet(budget(rig)), UnknownOutcome)
        assert rig.effects.count == 1


# ---- versions


@pytest.mark.parametrize("verb", READS)
async def test_an_ended_version_is_named_and_never_a_missing_campaign(verb: str) -> None:
    async with google(api_version="v15") as rig:
        with pytest.raises(Outdated) as caught:
            await rig.to(verb, *READS[verb])
        text = "API version v15 is not accepted by Google Ads: set connector.google.api_version to a current one"
        assert str(caught.value) == text
        assert isinstance(await quiet(budget(rig)), Outdated)
        assert isinstance(await quiet(rig.to("reconcile", [rig.intent(0, 1, BUDGET)])), Outdated)


async def test_every_form_of_an_ended_version_is_understood() -> None:
    unsupported = {"errorCode": {"requestError": "UNSUPPORTED_VERSION"}, "message": "gone"}
    kind = "type.googleapis.com/google.ads.googleads.v15.errors.GoogleAdsFailure"
    bodies = [
        (404, b"<!DOCTYPE html><title>Error 404</title>"),
        (404, b""),
        (404, b'{"error":{"code":404,"message":"Method not found.","status":"NOT_FOUND"}}'),
        (400, json.dumps({"error": {"code": 400, "details": [{"@type": kind, "errors": [unsupported]}]}}).encode()),
    ]
    async with google() as rig:
        await ready(rig)
        for status, body in bodies:
            rig.answer("customers/", status, body)
            assert isinstance(await quiet(rig.to("fetch_spend", SINCE)), Outdated)
            assert isinstance(await quiet(budget(rig)), Outdated)


async def test_a_resource_that_is_gone_is_no_ended_version() -> None:
    async with google() as rig:
        await ready(rig)
        gone = {"errorCode": {"mutateError": "RESOURCE_NOT_FOUND"}, "message": "gone"}
        kind = "type.googleapis.com/google.ads.googleads.v26.errors.GoogleAdsFailure"
        body = json.dumps({"error": {"code": 404, "details": [{"@type": kind, "errors": [gone]}]}}).encode()
        rig.answer(":mutate", 404, body)
        error = await quiet(budget(rig))
        assert isinstance(error, Rejected)
        assert error.reason == "mutateError.RESOURCE_NOT_FOUND"


# ---- the table of errors

TABLE: list[tuple[str, int, type[PluginError], type[PluginError]]] = [
    ("quotaError.RESOURCE_EXHAUSTED", 429, RateLimited, RateLimited),
    ("quotaError.RESOURCE_TEMPORARILY_EXHAUSTED", 429, RateLimited, RateLimited),
    ("quotaError.EXCESSIVE_SHORT_TERM_QUERY_RESOURCE_CONSUMPTION", 429, RateLimited, RateLimited),
    ("quotaError.EXCESSIVE_LONG_TERM_QUERY_RESOURCE_CONSUMPTION", 400, RateLimited, RateLimited),
    ("quotaError.ACCESS_PROHIBITED", 400, AuthExpired, AuthExpired),
    ("internalError.INTERNAL_ERROR", 500, Temporary, UnknownOutcome),
    ("internalError.TRANSIENT_ERROR", 503, Temporary, UnknownOutcome),
    ("internalError.DEADLINE_EXCEEDED", 504, Temporary, UnknownOutcome),
    ("internalError.ERROR_CODE_NOT_PUBLISHED", 400, Temporary, UnknownOutcome),
    ("internalError.UNKNOWN", 400, Temporary, UnknownOutcome),
    ("databaseError.CONCURRENT_MODIFICATION", 409, Temporary, Rejected),
    ("databaseError.DATA_CONSTRAINT_VIOLATION", 400, Temporary, Rejected),
    ("databaseError.REQUEST_TOO_LARGE", 400, Rejected, Rejected),
    ("requestError.RPC_DEADLINE_TOO_SHORT", 400, Temporary, Rejected),
    ("requestError.EXPIRED_PAGE_TOKEN", 400, Temporary, Rejected),
    ("requestError.UNSUPPORTED_VERSION", 400, Outdated, Outdated),
    ("requestError.DEVELOPER_TOKEN_PARAMETER_MISSING", 400, AuthExpired, AuthExpired),
    ("requestError.INVALID_ENUM_VALUE", 400, Rejected, Rejected),
    ("authenticationError.OAUTH_TOKEN_EXPIRED", 401, AuthExpired, AuthExpired),
    ("authenticationError.CUSTOMER_NOT_FOUND", 400, AuthExpired, AuthExpired),
    ("authorizationError.USER_PERMISSION_DENIED", 403, AuthExpired, AuthExpired),
    ("authorizationError.DEVELOPER_TOKEN_NOT_APPROVED", 403, AuthExpired, AuthExpired),
    ("headerError.INVALID_LOGIN_CUSTOMER_ID", 400, AuthExpired, AuthExpired),
    ("campaignBudgetError.BUDGET_BELOW_PER_DAY_MINIMUM", 400, Rejected, Rejected),
    ("biddingError.BID_TOO_SMALL", 400, Rejected, Rejected),
    ("queryError.UNRECOGNIZED_FIELD", 400, Rejected, Rejected),
    ("fieldMaskError.FIELD_NOT_FOUND", 400, Rejected, Rejected),
    ("someNewError.NOBODY_KNOWS", 400, Rejected, Rejected),
    ("someNewError.NOBODY_KNOWS", 500, Temporary, UnknownOutcome),
]


@pytest.mark.parametrize(("code", "status", "read", "write"), TABLE)
def test_codes_become_types(code: str, status: int, read: type[PluginError], write: type[PluginError]) -> None:
    group, name = code.split(".")
    kind = "type.googleapis.com/google.ads.googleads.v26.errors.GoogleAdsFailure"
    error = {"errorCode": {group: name}, "message": "why"}
    for wrap in (False, True):
        value: Any = {"error": {"code": status, "details": [{"@type": kind, "errors": [error]}]}}
        answer = HttpAnswer(status, {}, json.dumps([value] if wrap else value).encode())
        assert type(meaning(answer, Asked("v26", "g", NOW, write=False))) is read
        found = meaning(answer, Asked("v26", "g", NOW, write=True))
        assert type(found) is write
        assert not isinstance(found, Rejected) or found.reason == code


@pytest.mark.parametrize(
    ("status", "read", "write"),
    [
        (301, Temporary, UnknownOutcome),
        (400, Rejected, Rejected),
        (401, AuthExpired, AuthExpired),
        (403, AuthExpired, AuthExpired),
        (404, Outdated, Outdated),
        (408, Temporary, UnknownOutcome),
        (413, Rejected, Rejected),
        (429, RateLimited, RateLimited),
        (500, Temporary, UnknownOutcome),
        (502, Temporary, UnknownOutcome),
        (503, Temporary, UnknownOutcome),
        (504, Temporary, UnknownOutcome),
    ],
)
def test_statuses_without_a_body_become_types(status: int, read: type[PluginError], write: type[PluginError]) -> None:
    for body in (b"", b"<html>", b"[]", b"{}", b'{"error":"text"}'):
        answer = HttpAnswer(status, {}, body)
        assert type(meaning(answer, Asked("v26", "g", NOW, write=False))) is read
        assert type(meaning(answer, Asked("v26", "g", NOW, write=True))) is write


@pytest.mark.parametrize(
    ("delay", "header", "seconds"),
    [
        ("37s", None, 37),
        ("1.5s", None, 1.5),
        ("", None, 30),
        ("soon", None, 30),
        ("-5s", None, 30),
        ("99999999999s", None, 86_400),
        ("5s", "60", 60),
        ("90s", "60", 90),
        ("", "Mon, 01 Jun 2020 00:00:00 GMT", 0),
        ("", "nonsense", 30),
    ],
)
def test_google_says_how_long_to_wait(delay: str, header: str | None, seconds: float) -> None:
    kind = "type.googleapis.com/google.ads.googleads.v26.errors.GoogleAdsFailure"
    error = {"errorCode": {"quotaError": "RESOURCE_EXHAUSTED"}, "details": {"quotaErrorDetails": {"retryDelay": delay}}}
    body = json.dumps({"error": {"code": 429, "details": [{"@type": kind, "errors": [error]}]}}).encode()
    answer = HttpAnswer(429, {"retry-after": header} if header else {}, body)
    found = meaning(answer, Asked("v26", "g", NOW, write=True))
    assert isinstance(found, RateLimited)
    assert found.retry_at == NOW + seconds * SECOND


def test_a_read_that_is_told_when_to_come_back_comes_back_then() -> None:
    for body in (b"", b"<html>", b'{"error":{"code":"STARTING","message":"soon"}}'):
        answer = HttpAnswer(503, {"retry-after": "7"}, body)
        found = meaning(answer, Asked("v26", "g", NOW, write=False))
        assert isinstance(found, RateLimited)
        assert found.retry_at == NOW + 7 * SECOND
        assert isinstance(meaning(answer, Asked("v26", "g", NOW, write=True)), UnknownOutcome)


# ---- secrets


async def test_no_secret_is_in_any_text(capfd: pytest.CaptureFixture[str]) -> None:
    texts: list[str] = []
    async with google(strategies=EVERYTHING) as rig:
        await ready(rig)
        token = rig.recorder.exchanges[-1].headers["authorization"].removeprefix("Bearer ")
        echo = {"errorCode": {"authenticationError": "X"}, "message": f"{token} refresh-{SECRET} developer-{SECRET}"}
        kind = "type.googleapis.com/google.ads.googleads.v26.errors.GoogleAdsFailure"
        bad = [
            (401, {"error": {"code": 401, "message": token, "details": [{"@type": kind, "errors": [echo]}]}}),
            (400, {"error": {"code": 400, "message": "x" * 280 + token, "status": f"developer-{SECRET}"}}),
            (500, {"error": {"code": 500, "message": f"{SECRET} " * 20}}),
            (200, {"error": {"code": 500, "message": token}}),
            (429, {"error": {"code": 429, "message": SECRET}}),
            (404, {"error": {"code": 404, "message": SECRET}}),
        ]
        calls = [
            lambda: rig.to("fetch_spend", SINCE),
            lambda: rig.to("fetch_campaigns"),
            lambda: budget(rig),
            lambda: rig.to("place_bid", [rig.intent(0, 10**6, PLACE, ltv=10**9)]),
            lambda: rig.to("reconcile", [rig.intent(0, 1, BUDGET)]),
            lambda: rig.to("upload_conversions", [rig.conversion(1, 10**6)]),
        ]
        for status, body in bad:
            rig.answer("customers/", status, json.dumps(body).encode())
            for call in calls:
                said = await quiet(call())
                texts += [
                    str(said),
                    repr(said),
                    repr(getattr(said, "__cause__", "")),
                    repr(getattr(said, "reason", "")),
                ]
        rig.alter.clear()
        for fault in Fault:
            for path in (":search", ":mutate", ":upload"):
                rig.faults.order(fault, path=path)
                for call in calls:
                    texts += [repr(await quiet(call()))]
        for status, body in ((400, f'{{"error":"{SECRET}"}}'), (200, f'{{"access_token":5,"x":"{SECRET}"}}')):
            rig.clock.instant = Instant(rig.clock.instant + 2 * HOUR)
            rig.answer("/token", status, body.encode())
            texts += [repr(await quiet(rig.to("check")))]
        instance = rig.plugins.instances["google"]
        assert instance.context is not None
        texts += [repr(rig.plugins.describe()), repr(instance.context.config), repr(instance.context.metrics.values)]
        texts += [repr(rig.connector), repr(vars(rig.connector)["_client"]), instance.last_bug, instance.error]
    out, err = capfd.readouterr()
    everything = "\n".join([*texts, out, err])
    assert "Google Ads" in everything
    assert SECRET not in everything.replace(ID, "")
    assert token not in everything
    assert not re.search(r"sbx\.[0-9]{6}", everything)
