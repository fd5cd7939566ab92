"""Log lines: their form, and no secret in any of them."""

from __future__ import annotations

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki_agent.runtime import log, secrets
from kiki_agent.runtime.secrets import mask_text

from .scripts import START


@pytest.fixture
def stream():
    output = io.StringIO()
    log.configure("info", "json", stream=output, now=lambda: START)
    yield output
    log.configure()
    secrets.forget_secrets()


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_the_agreed_fields(stream):
    log.get_logger("optimizer").info(
        "budget_shifted", "Moved money\nfrom a to b", micros=20, platform="meta", none=None
    )
    assert lines(stream) == [
        {
            "timestamp": "2025-06-15T15:06:40.000000Z",
            "level": "info",
            "service": "kiki-agent",
            "component": "optimizer",
            "event": "budget_shifted",
            "message": "Moved money\nfrom a to b",
            "micros": 20,
            "platform": "meta",
            "none": None,
        }
    ]


def test_levels_below_the_configured_one_are_silent(stream):
    logger = log.get_logger("x")
    log.configure("warning", "json", stream=stream)
    logger.debug("a")
    logger.info("b")
    logger.warning("c")
    logger.error("d")
    assert [line["event"] for line in lines(stream)] == ["c", "d"]
    assert not logger.enabled_for("info")
    assert logger.enabled_for("error")


def test_tracebacks_come_at_debug_only(stream):
    def fail():
        raise ValueError("no")

    for level in ("info", "debug"):
        log.configure(level, "json", stream=stream)
        try:
            fail()
        except ValueError as error:
            log.get_logger("x").error("failed", error=error)
    first, second = lines(stream)
    assert first["error"] == second["error"] == "ValueError: no"
    assert "traceback" not in first
    assert "in fail" in second["traceback"]


def test_the_text_form_is_one_readable_line(stream):
    log.configure("info", "text", stream=stream, now=lambda: START)
    log.get_logger("store").warning("slow", "Disk is slow\nFAKE LINE\x1b[31m", seconds=1.5, path="a b")
    assert stream.getvalue() == ("15:06:40.000 WARNING store: Disk is slow\\nFAKE LINE\\x1b[31m seconds=1.5 path=a b\n")


def test_lines_of_libraries_have_the_same_form(stream):
    try:
        raise OSError("broken")
    except OSError:
        logging.getLogger("aiohttp.server").exception("Error handling %s", "request")
    logging.getLogger("aiohttp.access").info("not shown")
    bridge = next(handler for handler in logging.getLogger().handlers if type(handler).__module__ == log.__name__)
    bridge.handle(logging.makeLogRecord({"name": "bad", "levelno": 30, "msg": "%d", "args": ("text",)}))
    first, second = lines(stream)
    assert (first["component"], first["level"], first["message"]) == (
        "aiohttp.server",
        "error",
        "Error handling request",
    )
    assert first["error"] == "OSError: broken"
    assert second["message"] == "%d"


CANARY = 'canary-"7f3\\x'


@pytest.mark.parametrize("form", ["json", "text"])
def test_registered_values_appear_nowhere(stream, form):
    log.configure("debug", form, stream=stream)
    secrets.register_secret(CANARY)
    logger = log.get_logger("x")
    logger.info(
        "a", f"value {CANARY}!", plain=CANARY, nested={"list": [f"x{CANARY}y", {CANARY: 1}]}, other=Exception(CANARY)
    )
    try:
        raise ValueError(CANARY)
    except ValueError as error:
        logger.error("b", error=error)
    text = stream.getvalue()
    assert "canary" not in text
    assert text.count("***") >= 6


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "access_token",
        "Authorization",
        "api_key",
        "apiKey",
        "API-KEY",
        "client_secret",
        "db_password",
        "Cookie",
    ],
)
def test_what_stands_under_a_telling_name_is_masked(stream, name):
    log.get_logger("x").info(
        "a", f'{name}=hidden1 {name}: "hidden2"', headers={name: "hidden3"}, deep=[{name: ["hidden4"]}]
    )
    log.get_logger("x").info("a", **{name.replace("-", "_"): "hidden5"})
    assert "hidden" not in stream.getvalue()


def test_bearer_tokens_and_passwords_in_addresses_are_masked():
    assert mask_text("sent Bearer abcdef0123456789 to it") == "sent Bearer *** to it"
    assert mask_text("https://me:hunter22@host/path") == "https://me:***@host/path"
    assert mask_text("Authorization: Bearer abcdef") == "Authorization: Bearer ***"
    assert mask_text("/x?access_token=abc&y=2") == "/x?access_token=***&y=2"


@pytest.mark.parametrize(
    "text",
    [
        "POST http://127.0.0.1:9/token: cannot connect",
        "https://oauth2.googleapis.com/token: no answer within 20 s",
        "https://host/v1/access_token: broken",
        "found a cap, but a basic connector has no window",
        "the bearer certificate",
    ],
)
def test_words_after_an_address_or_a_kind_of_access_are_no_secrets(text):
    assert mask_text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "http://host/token: Hunter2Hunter2",
        "http://host/token: hidden-4711",
        "http://host/token=hidden",
        "http://host/token:hidden",
        "token: hidden",
        "http://host/ token: hidden",
        '{"/token": "hidden"}',
        "http://host/token: Bearer hidden",
        "http://host/authorization: basic hidden",
        "basic hiddenhidden=",
        "Bearer hiddenhidden",
        "BASIC hiddenhidden",
        "bearer hidden7hidden",
        "bearer hiddenhiddenhidden",
    ],
)
def test_what_may_be_a_secret_is_masked_there_all_the_same(text):
    masked = mask_text(text)
    assert "hidden" not in masked
    assert "Hunter" not in masked
    assert "***" in masked


def test_a_registered_value_as_short_as_a_word_is_left_alone(stream):
    secrets.register_secret("conn")
    assert mask_text("cannot connect") == "cannot connect"


def test_ordinary_text_stays():
    for text in (
        "moved 20 % from meta to tiktok",
        "tokens left: many",
        "the bearer of news",
        "a:b@c",
        "http://host:80/x",
    ):
        assert mask_text(text) == text or "token" in text
    assert secrets.mask({"tokens_left": 5, "empty_token": ""}) == {"tokens_left": 5, "empty_token": ""}


@given(secret=st.text(min_size=6, max_size=20), before=st.text(max_size=10), after=st.text(max_size=10))
def test_no_text_hides_a_registered_secret(secret, before, after):
    secrets.forget_secrets()
    secrets.register_secret(secret)
    masked = mask_text(before + secret + after)
    secrets.forget_secrets()
    if secret not in secrets.MASK * 3 and not set(secret) <= {"*"}:
        assert secret not in masked or secret in before + "***" + after


def test_a_closed_stream_costs_a_line_and_nothing_else(stream):
    before = log.lines_lost()
    stream.close()
    log.get_logger("x").info("a")
    assert log.lines_lost() == before + 1
