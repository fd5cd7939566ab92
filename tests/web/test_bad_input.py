"""Whatever arrives, the answer is a problem body that says what is wrong, and never more than that."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from kiki_agent.web import Services
from kiki_agent.web.body import parse_json, validate
from kiki_agent.web.problem import Problem, phrase_of
from kiki_agent.web.routes import ENDPOINTS
from kiki_agent.web.shapes.base import micros_from_wire
from kiki_agent.web.shapes.money import AllocateBody

from .conftest import Client

ALLOCATE = "/api/v1/allocate"
JSON = {"Content-Type": "application/json"}


async def test_unknown_paths_are_json_404(client: Client) -> None:
    answer = await client.get("/no-such", headers={"Accept": "text/html"})
    assert answer.status == 404
    assert answer.content_type == "application/problem+json"
    body = await answer.json()
    assert body["code"] == "NOT_FOUND"
    assert body["detail"].startswith("Not Found")
    assert body["request_id"] == answer.headers["X-Request-Id"]


async def test_wrong_method_is_405_with_allow(client: Client) -> None:
    answer = await client.delete("/budget-efficiency")
    assert (answer.status, (await answer.json())["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert "GET" in answer.headers["Allow"]


@pytest.mark.parametrize(
    "raw",
    [
        b"{", b"", b"nonsense", b'{"a": NaN}', b'{"a": Infinity}', b"\xff\xfe", b'{"a": 1, "a": 2}', b"[" * 100_000,
        b'{"a":' * 20_000 + b"1" + b"}" * 20_000, b"[" * 40 + b"]" * 40, b"1" * 5_000, b"\xef\xbb\xbf{}",
    ],
)  # fmt: skip
async def test_malformed_bodies_are_400(client: Client, raw: bytes) -> None:
    answer = await client.post(ALLOCATE, data=raw, headers=JSON)
    assert answer.status == 400, await answer.text()
    assert answer.content_type == "application/problem+json"


async def test_a_number_of_endless_digits_is_refused_in_our_words(client: Client) -> None:
    answer = await client.post(ALLOCATE, data=b'{"campaign_id": "c1", "budget": ' + b"9" * 5_000 + b"}", headers=JSON)
    told = (await answer.json())["detail"]
    assert told == "the body is not usable JSON: a whole number has at most 4000 digits, one has 5000"


@pytest.mark.parametrize("body", [[], "text", 5, None, True])
async def test_json_that_is_no_object_is_422(client: Client, body: object) -> None:
    assert (await client.post(ALLOCATE, data=json.dumps(body), headers=JSON)).status == 422


@pytest.mark.parametrize(
    "amount",
    [0, -1, -0.01, "0", "-5", "1e3x", "", " 5", "5 ", "1_000", "NaN", "inf", 1e10, 10**30, "1" * 41, 0.0000001,
     True, None, [], {}, "0x10", "١٢"],
)  # fmt: skip
async def test_amounts_that_are_none(client: Client, amount: object) -> None:
    answer = await client.post(ALLOCATE, json={"campaign_id": "c1", "budget": amount})
    assert answer.status == 422, await answer.text()
    assert [each["field"] for each in (await answer.json())["errors"]] == ["budget"]


@pytest.mark.parametrize("raw", [b"1e400", b"-1e400", b"1e999999999", b"1e-999999999", b"12.3456789"])
async def test_numbers_out_of_reach_are_422(client: Client, raw: bytes) -> None:
    answer = await client.post(ALLOCATE, data=b'{"campaign_id":"c1","budget":%s}' % raw, headers=JSON)
    assert answer.status == 422


@pytest.mark.parametrize("name", ["", "x" * 129, "a\x00b", "a\nb", "\ud800", 5, None, {"a": 1}])
async def test_campaign_ids_that_are_none(client: Client, name: object) -> None:
    answer = await client.post(ALLOCATE, json={"campaign_id": name, "budget": 5})
    assert answer.status == 422
    assert (await answer.json())["errors"][0]["field"] == "campaign_id"


async def test_every_wrong_field_is_named_at_once(client: Client) -> None:
    answer = await client.post(ALLOCATE, json={"budget": -1, "currency": "usd", "colour": "red"})
    fields = {each["field"] for each in (await answer.json())["errors"]}
    assert fields == {"campaign_id", "budget", "currency", "colour"}


async def test_a_body_that_is_not_json_is_415(client: Client) -> None:
    answer = await client.post(ALLOCATE, data=b"a=1", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (answer.status, (await answer.json())["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


async def test_a_body_too_large_is_413(client: Client, services: Services) -> None:
    limit = services.settings.http.max_body
    answer = await client.post(ALLOCATE, data=io.BytesIO(b" " * (limit + 1)), headers=JSON)
    assert (answer.status, (await answer.json())["code"]) == (413, "BODY_TOO_LARGE")

    async def endless() -> object:
        for _ in range(limit // 65_536 + 2):
            yield b" " * 65_536

    answer = await client.post(ALLOCATE, data=endless(), headers=JSON)
    assert answer.status == 413


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=501", "offset=-1", "limit=abc", "limit=1&limit=2", "since=yesterday", "source=guess",
     "campain_id=x", "platform=myspace", "since=" + "9" * 50],
)  # fmt: skip
async def test_queries_that_make_no_sense_are_422(client: Client, query: str) -> None:
    answer = await client.get(f"/api/v1/decisions?{query}")
    assert answer.status == 422, await answer.text()
    assert query.partition("=")[0] in (await answer.json())["detail"]


@pytest.mark.parametrize("part", ["%00", "a%0Ab", "x" * 129, "%ED%A0%80", "%FF"])
async def test_path_parts_that_make_no_sense_are_refused(client: Client, part: str) -> None:
    answer = await client.get(f"/api/v1/budget/{part}")
    assert answer.status in (404, 422), await answer.text()
    assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize("given_id", ["abc-123", "A.b_c"])
async def test_request_ids_are_echoed(client: Client, given_id: str) -> None:
    answer = await client.get("/healthz", headers={"X-Request-Id": given_id})
    assert answer.headers["X-Request-Id"] == given_id


@pytest.mark.parametrize("given_id", ["", "a b", "<script>", "x" * 65, "ä"])
async def test_bad_request_ids_are_replaced(client: Client, given_id: str) -> None:
    answer = await client.get("/healthz", headers={"X-Request-Id": given_id})
    made = answer.headers["X-Request-Id"]
    assert made != given_id
    assert made.isascii()


async def test_request_ids_differ(client: Client) -> None:
    made = {(await client.get("/healthz")).headers["X-Request-Id"] for _ in range(5)}
    assert len(made) == 5


async def test_an_unexpected_error_shows_nothing_of_the_inside(client: Client, services: Services) -> None:
    async def broken(*_: object) -> object:
        raise RuntimeError("secret /path/inside.py")

    services.value.platform_ltv = broken  # type: ignore[union-attr,method-assign,assignment]
    answer = await client.get("/platform-ltv/meta")
    text = await answer.text()
    assert answer.status == 500
    assert "secret" not in text
    assert "RuntimeError" not in text
    assert json.loads(text)["request_id"] == answer.headers["X-Request-Id"]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
BODIES: list[type[BaseModel]] = sorted(
    {each.given for each in ENDPOINTS if each.given.model_fields}, key=lambda model: model.__name__
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_json_is_taken_or_refused_with_a_problem(data: st.DataObject) -> None:
    model = data.draw(st.sampled_from(BODIES))
    names = st.sampled_from(sorted(model.model_fields)) | st.text(max_size=8)
    body = data.draw(st.dictionaries(names, JSON_VALUES, max_size=6) | JSON_VALUES)
    assert _status(model, json.dumps(body).encode()) in (200, 400, 422)


def _status(model: type[BaseModel], raw: bytes) -> int:
    try:
        validate(model, parse_json(raw), "the body")
    except Problem as problem:
        return problem.response("id").status
    return 200


@given(st.integers(min_value=1, max_value=10**15))
def test_every_micro_survives_the_wire(micros: int) -> None:
    text = f"{micros // 10**6}.{micros % 10**6:06d}"
    assert micros_from_wire(text) == micros
    parsed = validate(AllocateBody, parse_json(b'{"campaign_id":"c","budget":%s}' % text.encode()), "the body")
    assert parsed.budget == micros


async def test_the_name_of_a_status_is_that_of_rfc_9110_whatever_python_calls_it(client: Client) -> None:
    wrong = await client.post(ALLOCATE, json={"campaign_id": "c1", "budget": -1})
    assert (wrong.status, (await wrong.json())["title"]) == (422, "Unprocessable Content")
    big = await client.post(ALLOCATE, data=io.BytesIO(b"1" * 2_000_000), headers=JSON)
    assert (big.status, (await big.json())["title"]) == (413, "Content Too Large")
    assert {code: phrase_of(code) for code in (404, 414, 416)} == {
        404: "Not Found", 414: "URI Too Long", 416: "Range Not Satisfiable",
    }  # fmt: skip
