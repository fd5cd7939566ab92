"""Conversions: taken in with a consent, sent until the platform has them, gone with the person."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kiki_agent.consent import Consents, ConsentType, Privacy, Vault, Vendors, seeded_entropy
from kiki_agent.errors import AuthExpired, Denied, RateLimited, Rejected, Temporary, UnknownOutcome
from kiki_agent.hooks.conversion import Conversion
from kiki_agent.ledger import Ledger
from kiki_agent.model import DAY, HOUR, MINUTE, SECOND, Instant, Outcome, Receipt, parse_iso
from kiki_agent.store import Store
from kiki_agent.value import ConversionReport, Conversions, ConversionsLoop

NOON = parse_iso("2026-03-10T12:00:00Z")
CLICK = "EAIaIQobChMI-click-canary"


def later(span: int) -> Instant:
    return Instant(NOON + span)


class Desk:
    """Everything conversions need, and a platform that answers as it is told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[tuple[str, tuple[Conversion, ...]]] = []
        self.answers: list[Any] = []
        self.held: str | None = None

    async def open(self) -> Desk:
        self.store = await Store.open(self.folder / "a.db", synchronous="OFF", readers=1, now=NOON)
        self.ledger = await Ledger.open(self.store, self.folder / "a.head", client_id="demo", now=NOON)
        self.vault = await Vault.open(
            self.folder / "a.keys", self.folder / "a.erased", synchronous="OFF", entropy=seeded_entropy(1)
        )
        self.consents = Consents(self.store, self.ledger, self.vault, Vendors(None, {}), 100)
        self.privacy = Privacy(self.store, self.ledger, self.vault, self.consents)
        self.conversions = Conversions(
            self.store,
            self.ledger,
            self.vault,
            self.consents,
            self.call,
            {"search": "google_ads", "social": "meta"},
            lambda connector: self.held,
        )
        await self.consents.grant("ann", ConsentType.DATA_SHARING, NOON)
        return self

    async def call(self, connector: str, verb: str, arguments: tuple[object, ...]) -> object:
        assert verb == "upload_conversions"
        batch = arguments[0]
        assert isinstance(batch, Sequence)
        self.calls.append((connector, tuple(batch)))
        answer = self.answers.pop(0) if self.answers else Outcome.ACCEPTED
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Outcome):
            return [Receipt(each.key, answer) for each in batch]
        return [Receipt(each.key, outcome, reason) for each, (outcome, reason) in zip(batch, answer, strict=True)]

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        await self.store.drain()
        return await self.store.read(lambda connection: connection.execute(sql).fetchall())

    async def close(self) -> None:
        assert (await self.ledger.verify()).ok
        await self.store.close()
        await self.vault.close()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = await Desk(tmp_path).open()
    yield desk
    await desk.close()


def told(order: str = "o-1", value: int | None = 50_000_000, **facts: Any) -> ConversionReport:
    return ConversionReport(
        **{
            "connector": "search",
            "customer_id": "ann",
            "click_id": CLICK,
            "at": later(-HOUR),
            "currency": "USD",
            "order_id": order,
            "value_micros": value,
            **facts,
        }
    )


async def refused(wish: Any) -> str:
    with pytest.raises(Denied) as denied:
        await wish
    return str(denied.value.reason)


async def test_a_conversion_is_kept_sent_once_and_on_record(desk: Desk) -> None:
    queued = await desk.conversions.report(told(), NOON)
    assert (queued.state, queued.value_micros) == ("queued", 50_000_000)
    loop = ConversionsLoop(desk.conversions)
    assert await loop.tick(later(SECOND)) is None
    assert await loop.tick(later(MINUTE)) == "nothing to send"
    ((connector, (sent,)),) = desk.calls
    assert (connector, sent.click_id, sent.order_id, sent.value_micros) == ("search", CLICK, "o-1", 50_000_000)
    assert sent.basis.startswith("consent:")
    found = await desk.conversions.find(queued.conversion_id)
    assert found is not None
    assert (found.state, found.settled_at) == ("accepted", later(SECOND))
    ((body,),) = await desk.rows("SELECT body FROM ledger_entries WHERE kind = 'conversion'")
    assert json.loads(body)["outcome"] == "accepted"
    assert CLICK not in body


async def test_the_same_conversion_again_changes_its_value_or_nothing(desk: Desk) -> None:
    first = await desk.conversions.report(told(), NOON)
    await desk.conversions.send(NOON)
    again = await desk.conversions.report(told(), later(HOUR))
    assert (again.conversion_id, again.state) == (first.conversion_id, "accepted")
    better = await desk.conversions.report(told(value=60_000_000), later(HOUR))
    assert (better.conversion_id, better.state) == (first.conversion_id, "queued")
    await desk.conversions.send(later(HOUR))
    assert [batch[0].value_micros for _, batch in desk.calls] == [50_000_000, 60_000_000]
    other = await desk.conversions.report(told("o-2"), later(HOUR))
    assert other.conversion_id != first.conversion_id


async def test_nothing_is_told_about_who_has_not_allowed_it(desk: Desk) -> None:
    assert await refused(desk.conversions.report(told(customer_id="bob"), NOON)) == "CONSENT"
    await desk.consents.grant("bob", ConsentType.TARGETING, NOON)
    assert await refused(desk.conversions.report(told(customer_id="bob"), NOON)) == "CONSENT"
    kept = await desk.conversions.report(told(), NOON)
    await desk.consents.revoke("ann", ConsentType.DATA_SHARING, NOON)
    await desk.conversions.send(NOON)
    assert desk.calls == [], "taken back before it was sent"
    found = await desk.conversions.find(kept.conversion_id)
    assert found is not None
    assert (found.state, found.reason) == ("rejected", "CONSENT")


async def test_who_is_erased_leaves_nothing_behind(desk: Desk) -> None:
    await desk.conversions.report(told(), NOON)
    assert (await desk.rows("SELECT count(*) FROM conversions")) == [(1,)]
    export = await desk.privacy.export(str(await desk.vault.subject("ann")), NOON, "a test")
    assert export is not None
    assert export["conversions"][0]["sealed"]["click_id"] == CLICK  # type: ignore[index]
    await desk.privacy.erase("ann", NOON)
    assert (await desk.rows("SELECT count(*) FROM conversions")) == [(0,)]
    await desk.conversions.send(NOON)
    assert desk.calls == []


@pytest.mark.parametrize(
    "answer",
    [
        Temporary("no"),
        UnknownOutcome("who knows"),
        AuthExpired("who?"),
        Rejected("open", "CIRCUIT_OPEN"),
        Outcome.UNKNOWN,
        [(Outcome.REJECTED, "NOT_SENT")],
    ],
)
async def test_without_a_clear_answer_it_is_sent_again_ever_later(desk: Desk, answer: Any) -> None:
    kept = await desk.conversions.report(told(), NOON)
    desk.answers = [answer] * 3
    sent_at = []
    for second in range(0, 600, 5):
        before = len(desk.calls)
        await desk.conversions.send(later(second * SECOND))
        if len(desk.calls) > before:
            sent_at.append(second)
    assert sent_at == [0, 30, 90, 210]
    found = await desk.conversions.find(kept.conversion_id)
    assert found is not None
    assert (found.state, found.attempts) == ("accepted", 4)


async def test_a_vendor_that_asks_for_patience_gets_it(desk: Desk) -> None:
    await desk.conversions.report(told(), NOON)
    desk.answers = [RateLimited("slowly", later(HOUR))]
    for minute in range(61):
        await desk.conversions.send(later(minute * MINUTE))
    assert len(desk.calls) == 2


async def test_it_is_given_up_after_a_week(desk: Desk) -> None:
    kept = await desk.conversions.report(told(), NOON)
    desk.answers = [Temporary("no")] * 1_000
    for hour in range(8 * 24):
        await desk.conversions.send(later(hour * HOUR))
    found = await desk.conversions.find(kept.conversion_id)
    assert found is not None
    assert (found.state, found.reason) == ("rejected", "GAVE_UP")
    assert len(desk.calls) < 50
    await desk.conversions.forget(later(100 * DAY))
    assert await desk.conversions.find(kept.conversion_id) is None


async def test_each_of_a_batch_has_its_own_answer(desk: Desk) -> None:
    kept = [await desk.conversions.report(told(f"o-{number}"), NOON) for number in range(3)]
    order = sorted(kept, key=lambda each: each.conversion_id)
    desk.answers = [[(Outcome.ACCEPTED, ""), (Outcome.REJECTED, "EXPIRED_EVENT"), (Outcome.UNKNOWN, "")]]
    assert await desk.conversions.send(NOON) == 2
    states = [await desk.conversions.find(each.conversion_id) for each in order]
    assert [each.state for each in states if each] == ["accepted", "rejected", "queued"]
    assert await desk.conversions.counts() == {"accepted": 1, "rejected": 1, "queued": 1}


async def test_a_value_is_given_or_predicted(desk: Desk) -> None:
    assert await refused(desk.conversions.report(told(value=None), NOON)) == "UNKNOWN_VALUE"
    subject = await desk.vault.subject("ann")
    await desk.store.write(
        lambda connection: connection.execute(
            "INSERT INTO ltv_predictions (client_id, customer_id, predicted_ltv_micros, confidence_score, predicted_at)"
            " VALUES ('demo', ?, 321000000, 0.75, ?)",
            (subject, NOON),
        )
    )
    assert (await desk.conversions.report(told(value=None), NOON)).value_micros == 321_000_000
    await desk.conversions.send(NOON)
    sent = desk.calls[0][1][0]
    assert (sent.value_micros, sent.ltv_micros, sent.confidence_permille) == (321_000_000, 321_000_000, 750)


async def test_where_the_agent_may_not_write_they_wait(desk: Desk) -> None:
    await desk.conversions.report(told(), NOON)
    desk.held = "at level watch nothing is sent"
    assert await desk.conversions.send(NOON) == 0
    desk.held = None
    assert await desk.conversions.send(NOON) == 1
    assert await refused(desk.conversions.report(told(connector="nowhere"), NOON)) == "NOT_FOUND"
