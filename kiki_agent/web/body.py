"""Strict reading of what a request carries: JSON bodies, query strings and path parts, validated by pydantic models."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import NoReturn, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from kiki_agent.web.problem import FieldProblem, Problem

MAX_DEPTH = 32
"""Objects and arrays inside one another; deeper bodies are refused."""
MAX_DIGITS = 4_000
"""Of a whole number in a body: far more than any amount, and fewer than the 4,300 that Python reads."""
MAX_FINDINGS = 20

G = TypeVar("G", bound=BaseModel)


async def read_body(request: web.Request, model: type[G]) -> G:
    """The JSON body as a model. 400 malformed, 413 too large, 415 not JSON, 422 wrong values, each field named."""
    limit = request.client_max_size
    if request.content_length is not None and limit and request.content_length > limit:
        raise Problem(413, f"the body is larger than {limit} bytes (http.max_body)")
    raw = await request.read()
    if not raw:
        if any(field.is_required() for field in model.model_fields.values()):
            raise Problem(400, "a JSON object is expected as body, and there is none")
        return validate(model, {}, "the body")
    if request.content_type != "application/json":
        raise Problem(415, f"the body must be application/json, not {request.content_type[:60]}")
    return validate(model, parse_json(raw), "the body")


def parse_json(raw: bytes) -> object:
    """Decode one JSON text: UTF-8, finite numbers, no key twice, bounded depth; fractions as exact decimals."""
    try:
        decoded: object = json.loads(
            raw.decode("utf-8"),
            parse_float=Decimal,
            parse_int=_whole,
            parse_constant=_refuse_constant,
            object_pairs_hook=_unique,
        )
    except RecursionError:
        raise Problem(400, f"the body nests deeper than {MAX_DEPTH} levels", "TOO_DEEP") from None
    except UnicodeDecodeError:
        raise Problem(400, "the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise Problem(400, f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError as error:
        raise Problem(400, f"the body is not usable JSON: {str(error)[:120]}") from None
    if _deeper_than(decoded, MAX_DEPTH):
        raise Problem(400, f"the body nests deeper than {MAX_DEPTH} levels", "TOO_DEEP")
    return decoded


def read_query(request: web.Request, model: type[G]) -> G:
    """The query string as a model; unknown and repeated names are refused by name."""
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name in given:
            raise Problem(
                422, f"{_clip(name)}: given more than once", fields=[FieldProblem(_clip(name), "given more than once")]
            )
        given[name] = value
    return validate(model, given, "the query")


def validate(model: type[G], given: object, what: str) -> G:
    """Validate, or raise a 422 that names each wrong field."""
    if not isinstance(given, dict):
        raise Problem(422, f"{what} must be a JSON object")
    try:
        return model.model_validate(given)
    except ValidationError as error:
        _raise_invalid(error)
    except RecursionError:
        raise Problem(400, f"the body nests deeper than {MAX_DEPTH} levels", "TOO_DEEP") from None


def _raise_invalid(error: ValidationError) -> NoReturn:
    fields = []
    for finding in error.errors(include_url=False, include_context=False, include_input=False)[:MAX_FINDINGS]:
        place = ".".join(_clip(str(part)) for part in finding["loc"]) or "body"
        message = {
            "missing": "required",
            "extra_forbidden": "unknown field",
        }.get(finding["type"], finding["msg"].removeprefix("Value error, "))
        fields.append(FieldProblem(place, message[:300]))
    detail = "; ".join(f"{each.field}: {each.message}" for each in fields)
    raise Problem(422, detail, fields=fields)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise ValueError(f"the key {_clip(twice)!r} stands twice in one object")
    return found


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a whole number has at most {MAX_DIGITS} digits, one has {len(digits)}")
    return int(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _deeper_than(value: object, limit: int) -> bool:
    level: list[object] = [value]
    for _ in range(limit):
        following: list[object] = []
        for each in level:
            if isinstance(each, dict):
                following.extend(each.values())
            elif isinstance(each, list):
                following.extend(each)
        if not following:
            return False
        level = following
    return any(isinstance(each, dict | list) for each in level)


def _clip(text: str) -> str:
    return text.encode("utf-8", "replace").decode()[:60]
