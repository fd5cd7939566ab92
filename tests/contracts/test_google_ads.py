"""Google's contract, both ways: requests and answers fit the vendor's schema, and what does not is refused."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from . import google_coverage
from .google_judging import LENIENT, Judged, answered, judge_all, logged_in, make_ready, refused_by_both
from .google_mutations import kinds, wrong_answers
from .google_rig import EVERYTHING, ROOT, SECRET, STEPS, Rig, drive, exchanges_of, google
from .google_schema import PREFIX, judge_answer, judge_body, judge_request, needs_schema, schema
from .recording import Exchange, paths

pytestmark = needs_schema


@dataclass
class Driven:
    """What the connector sent and was told, over every verb, strategy, currency and fault."""

    rigs: list[Rig]

    @property
    def exchanges(self) -> list[Exchange]:
        return exchanges_of(self.rigs)


@pytest.fixture(scope="module")
def driven() -> Driven:
    return Driven(asyncio.run(drive()))


# ---- what is sent and what comes back


def test_every_request_fits_the_schema(driven: Driven) -> None:
    wrong = {}
    for each in driven.exchanges:
        found = judge_request(each.path, each.body, each.headers, each.params)
        if found:
            wrong[each.path, each.body] = found
    print(f"{len(driven.exchanges)} requests of {len(kinds(driven.exchanges))} kinds, {len(wrong)} against the schema")
    assert not wrong
    assert len(driven.exchanges) > 150


def test_every_answer_fits_the_schema(driven: Driven) -> None:
    judged, wrong = Counter[int](), {}
    other = Counter[str]()
    for each in driven.exchanges:
        if not each.status:
            other["lost"] += 1
        elif not each.is_json:
            other["no JSON, on purpose"] += 1
            assert each.answer.startswith(b"<html>")
        else:
            judged[each.status] += 1
            found = judge_answer(each.path, each.status, each.told)
            if found:
                wrong[each.path, each.answer] = found
    print(f"answers by status: {dict(judged)}; others: {dict(other)}; {len(wrong)} against the schema")
    assert not wrong
    assert {200, 401, 429, 500, 503} <= set(judged)


def test_everything_the_connector_can_send_was_sent(driven: Driven) -> None:
    sent = {each.rest for each in kinds(driven.exchanges)}
    assert sent == {
        "/googleAds:search",
        "/googleAds:searchStream",
        "/campaignBudgets:mutate",
        "/campaigns:mutate",
        "/biddingStrategies:mutate",
        "/adGroups:mutate",
        ":uploadClickConversions",
        ":uploadConversionAdjustments",
    }
    masks = {each.body["operations"][0]["updateMask"] for each in kinds(driven.exchanges) if "operations" in each.body}
    assert masks == {
        "amountMicros",
        "status",
        "urlCustomParameters",
        "cpcBidMicros",
        "targetSpend.cpcBidCeilingMicros",
        "targetRoas.targetRoas",
        "maximizeConversionValue.targetRoas",
        "targetRoas.cpcBidCeilingMicros",
        "targetRoas.cpcBidCeilingMicros,targetRoas.targetRoas",
        "maximizeConversionValue.cpcBidCeilingMicros",
        "maximizeConversionValue.cpcBidCeilingMicros,maximizeConversionValue.targetRoas",
    }
    assert {rig.currency for rig in driven.rigs} == set(STEPS)


# ---- what is wrong is refused


@pytest.fixture(scope="module")
def judged(driven: Driven) -> list[Judged]:
    """Each mutant of each kind of request, before the judge and the stand-in."""
    return asyncio.run(judge_all(kinds(driven.exchanges)))


def test_every_kind_is_taken_before_it_is_made_wrong(driven: Driven) -> None:
    async def check() -> Counter[str]:
        said: Counter[str] = Counter()
        for kind in kinds(driven.exchanges):
            async with google(strategies=EVERYTHING, page_rows=5) as rig:
                headers = await logged_in(rig)
                make_ready(rig, kind)
                said[answered(rig, kind.path, json.dumps(kind.body).encode(), headers)] += 1
        return said

    assert asyncio.run(check()) == {"taken": len(kinds(driven.exchanges))}


def test_what_is_made_wrong_is_refused_by_both(judged: list[Judged]) -> None:
    counts = Counter(each.mutant.sort for each in judged if each.excuse is None)
    taken = [
        (each.mutant.kind.label, each.mutant.sort, each.mutant.place, each.by_judge, each.by_sandbox)
        for each in judged
        if each.excuse is None and not each.refused
    ]
    excused = sum(each.excuse is not None for each in judged)
    print(f"{len(judged)} wrong requests: {dict(sorted(counts.items()))}, excused {excused}; taken: {len(taken)}")
    assert taken == []
    assert set(counts) == {"removed", "renamed", "type", "read-only", "mask", "value", "query", "oneof"}
    assert sum(counts.values()) > 2_000


def test_no_exception_is_made_for_nothing(judged: list[Judged]) -> None:
    """An entry of the list of leniencies that excuses nothing the stand-in takes has to go."""
    assert {each.excuse for each in judged if each.excuse is not None and each.by_sandbox == "taken"} == set(LENIENT)


def test_the_documentation_says_what_is_checked(driven: Driven, judged: list[Judged]) -> None:
    assert google_coverage.written() == google_coverage.table(kinds(driven.exchanges), refused_by_both(judged)), (
        "write it anew: python -m tests.contracts.google_coverage"
    )
    assert set(google_coverage.OPERATIONS) == {each.rest for each in kinds(driven.exchanges)}


def test_an_answer_that_is_made_wrong_is_refused(driven: Driven) -> None:
    found: dict[object, Exchange] = {}
    for each in driven.exchanges:
        if each.is_json and each.status:
            found.setdefault((each.path, each.status, frozenset(paths(each.told))), each)
    counts: Counter[str] = Counter()
    taken = []
    for each in found.values():
        match = PREFIX.fullmatch(each.path)
        for place, wrong in wrong_answers(_shortened(each.told)):
            counts[match["rest"] if match else ""] += 1
            if not judge_answer(each.path, each.status, wrong):
                taken.append((each.path, place))
    print(f"{len(found)} kinds of answers, {sum(counts.values())} wrong ones: {dict(counts)}; taken: {len(taken)}")
    assert taken == []
    assert sum(counts.values()) > 1_000


def _shortened(answer: Any) -> Any:
    """The first of everything there is many of."""
    if isinstance(answer, dict):
        return {name: _shortened(value) for name, value in answer.items()}
    return [_shortened(each) for each in answer[:1]] if isinstance(answer, list) else answer


WRONG_ENVELOPES = {
    "no token": ({"authorization": ""}, 401),
    "another token": ({"authorization": "Bearer sbx.9999999999999999.abc"}, 401),
    "no developer token": ({"developer-token": None}, 400),
    "another developer token": ({"developer-token": "x"}, 401),
    "no content type": ({"content-type": None}, 400),
    "a form": ({"content-type": "application/x-www-form-urlencoded"}, 400),
    "dashes in the manager": ({"login-customer-id": "123-456-7890"}, 400),
}


@pytest.mark.parametrize("name", WRONG_ENVELOPES)
async def test_a_wrong_header_is_refused(name: str) -> None:
    change, status = WRONG_ENVELOPES[name]
    async with google() as rig:
        headers = {key: value for key, value in ((await logged_in(rig)) | change).items() if value is not None}
        path, body = "/v26/customers/1234567890/googleAds:search", b'{"query":"SELECT customer.id FROM customer"}'
        assert judge_request(path, body, headers, {}) or name.startswith("another")
        said, _, answer = rig.sandbox.handle("POST", path, headers, body, rig.clock.now())
        assert said == status
        assert judge_answer(path, said, json.loads(answer)) == []


async def test_a_wrong_address_is_refused() -> None:
    async with google() as rig:
        headers = await logged_in(rig)
        body = b'{"query":"SELECT customer.id FROM customer"}'
        for method, path, status in (
            ("POST", "/v15/customers/1234567890/googleAds:search", 404),
            ("POST", "/v26/customers/1234567890/googleAds:find", 404),
            ("POST", "/v26/customers/1234567890/campaigns", 404),
            ("GET", "/v26/customers/1234567890/googleAds:search", 404),
            ("POST", "/v26/customers/1234567891/googleAds:search", 403),
            ("POST", "/v26/customers/1234567890/googleAds:search?alt=json", 400),
        ):
            said, answered, answer = rig.sandbox.handle(method, path, headers, body, rig.clock.now())
            assert said == status, path
            if status == 404:
                assert answered["content-type"].startswith("text/html")
            else:
                assert judge_answer(path.partition("?")[0], said, json.loads(answer)) == [] or status == 403


def test_the_judge_reads_the_vendors_file() -> None:
    """The judge itself can fail: what the file says is what it says."""
    assert schema().field("Campaign", "targetRoas.targetRoas") is not None
    assert schema().field("Campaign", "targetRoas.nothing") is None
    good = {"operations": [{"update": {"resourceName": "customers/1234567890/campaigns/1", "status": "PAUSED"},
                            "updateMask": "status"}]}  # fmt: skip
    rest, message = "/campaigns:mutate", "MutateCampaignsRequest"
    assert judge_body(message, rest, good, "1234567890") == []
    assert judge_body(message, rest, {**good, "customerId": "1234567890"}, "1234567890")
    assert judge_answer(f"/v26/customers/1234567890{rest}", 200, {"results": [{"campaign": {"id": 5}}]})
    assert judge_answer(f"/v26/customers/1234567890{rest}", 400, {"error": {"code": 404, "message": "", "status": "X"}})
    assert judge_answer(f"/v26/customers/1234567890{rest}", 200, {"error": {"code": 200}})


def test_the_secret_is_sent_in_headers_only(driven: Driven) -> None:
    for rig in driven.rigs:
        for each in rig.recorder.exchanges:
            assert SECRET not in each.url.removeprefix(ROOT)
            if each.path != "/token":
                assert SECRET.encode() not in each.body
                assert {key for key, value in each.headers.items() if SECRET in value} == {"developer-token"}
