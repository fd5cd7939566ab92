"""A placed bid whose outcome came late is spent or given back once, also by the next process."""

from __future__ import annotations

from pathlib import Path

import pytest

from kiki_agent.config import Settings
from kiki_agent.errors import UnknownOutcome
from kiki_agent.flow import PlacedSettler
from kiki_agent.ledger import Ledger, Outbox, Records
from kiki_agent.model import MINUTE, SECOND, Instant, Intent, IntentKind, Outcome, Receipt, intent_key
from kiki_agent.shield import Caps, Shield
from kiki_agent.store import Store

NOW = Instant(1_767_571_200_000_000)


@pytest.mark.parametrize(("outcome", "spent"), [(Outcome.ACCEPTED, 15_000_000), (Outcome.REJECTED, 0)])
async def test_a_late_outcome_ends_the_reservation_after_a_restart(
    tmp_path: Path, outcome: Outcome, spent: int
) -> None:
    async def vendor(connector: str, verb: str, arguments: tuple[object, ...]) -> object:
        if verb == "place_bid":
            raise UnknownOutcome("the answer was lost")
        (intents,) = arguments
        return [Receipt(intent.key, outcome) for intent in intents]  # type: ignore[attr-defined]

    async def open_all() -> tuple[Store, Shield, Outbox]:
        store = await Store.open(tmp_path / "a.db", now=NOW)
        ledger = await Ledger.open(store, tmp_path / "a.head", client_id="c", now=NOW)
        caps = {"meta": Caps(1_000_000_000, 1_000_000_000, "UTC", "USD")}
        return store, await Shield.open(store, ledger, Settings(), caps, NOW), Outbox(store, ledger, vendor)

    store, shield, outbox = await open_all()
    permit = await shield.place("meta", "c1", 15_000_000, NOW)
    key = intent_key("meta", "c1", IntentKind.PLACE_BID, NOW)
    intent = Intent(key, IntentKind.PLACE_BID, "meta", "c1", 0, 15_000_000, "USD", "MANUAL", NOW, permit.reservation_id)
    assert (await outbox.send(NOW, "meta", IntentKind.PLACE_BID, [intent]))[0].outcome is Outcome.UNKNOWN
    await store.close()

    store, shield, outbox = await open_all()
    later = Instant(NOW + MINUTE)
    settler = PlacedSettler(shield, Records(store))
    await outbox.load(later)
    assert await settler.tick(later) == "outcomes of placed bids are still unknown"
    assert shield.status("meta", later).reserved_micros == 15_000_000
    assert await outbox.reconcile(later) == 1
    assert await settler.tick(Instant(later + 10 * SECOND)) is None
    status = shield.status("meta", Instant(later + 10 * SECOND))
    assert (status.spent_today_micros, status.reserved_micros) == (spent, 0)
    assert await settler.tick(Instant(later + 20 * SECOND)) == "no placed bid waits for its outcome"
    await store.close()
