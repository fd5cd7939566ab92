"""A small agent that spends: store, ledger, shield and outbox as the real one has them, and what was acknowledged.

What it is killed in, and whose disks are taken away, is up to whoever runs it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from kiki_agent.config import Settings
from kiki_agent.errors import Denied, UnknownOutcome
from kiki_agent.flow import PlacedSettler
from kiki_agent.ledger import Ledger, Outbox, Records
from kiki_agent.model import MINUTE, Instant, Intent, IntentKind, Outcome, Receipt, intent_key, parse_iso
from kiki_agent.sandbox.noise import seed_key, unit
from kiki_agent.shield import Caps, Permit, Shield
from kiki_agent.store import Store
from kiki_agent.store.store import Synchronous

BEGIN = parse_iso("2026-03-28T00:00:00Z")
UNIT = 1_000_000
CAPS = {"meta": (20_000 * UNIT, 1_000 * UNIT), "tiktok": (1_500 * UNIT, 600 * UNIT)}
"""Daily and window cap; the second one's day is full after a while."""
STEP = 2 * MINUTE
"""Time between two lives, so that windows empty, days end, and permits of the dead are old enough to be settled."""
LANES = 8

Tell = Callable[[str, str], None]
"""`tell(what, fact)`: an effect or an acknowledgement that must outlive the spender."""


class _Platform:
    """What it calls; what was made outlives the caller."""

    def __init__(self, tell: Tell, made: set[str], key: int) -> None:
        self._tell, self._made, self._key = tell, made, key
        self._number = 0

    async def call(self, connector: str, verb: str, arguments: tuple[object, ...]) -> object:
        """Make, refuse or lose a change; or say what is in force."""
        intents = cast("Sequence[Intent]", arguments[0])
        await asyncio.to_thread(len, intents)  # a call takes a while, and other lanes go on
        if verb == "reconcile":
            return [
                Receipt(each.key, Outcome.ACCEPTED if each.key in self._made else Outcome.REJECTED) for each in intents
            ]
        receipts = []
        for each in intents:
            self._number += 1
            chance = unit(self._key, self._number)
            if chance < 0.1:
                receipts.append(Receipt(each.key, Outcome.REJECTED, "NO"))
                continue
            if chance < 0.9:
                self._tell("fx", each.key)
                self._made.add(each.key)
            if chance > 0.8:
                raise UnknownOutcome("no answer", (each.key,))
            receipts.append(Receipt(each.key, Outcome.ACCEPTED))
        return receipts


class Held(Exception):
    """The ledger that was found cannot be trusted."""


async def live(
    folder: Path,
    number: int,
    tell: Tell,
    made: set[str],
    seed: int,
    *,
    turns: int = 1_000_000,
    synchronous: Synchronous = "FULL",
    prepare: Callable[[Store], Awaitable[None]] | None = None,
) -> None:
    """Open what is there, settle what the dead left open, and spend for so many turns in each lane, or until killed.

    `made` are the keys whose effects the platform knows. Raises Held.
    """
    now = Instant(BEGIN + number * STEP)
    names = {name: {"plugin": "sandbox", "platform": name} for name in CAPS}
    store = await Store.open(folder / "agent.db", now=now, readers=1, synchronous=synchronous)
    if prepare is not None:
        await prepare(store)
    ledger = await Ledger.open(store, folder / "agent.head", client_id="forks", now=now)
    if ledger.hold_reason is not None:
        raise Held(ledger.hold_reason)
    caps = {name: Caps(*amounts) for name, amounts in CAPS.items()}
    shield = await Shield.open(store, ledger, Settings.model_validate({"connector": names}), caps, now)
    platform = _Platform(tell, made, seed_key(seed, number))
    outbox = Outbox(store, ledger, platform.call, settle=0)
    await outbox.load(now)
    await outbox.reconcile(now)
    await _end_orphans(shield, store, now)
    await PlacedSettler(shield, Records(store)).tick(now)
    tell("open", str(len(shield.open_permits())))

    moments = itertools.count(now, 10_000)

    async def lane(which: int) -> None:
        for turn in range(turns):
            at = Instant(next(moments))
            name = "meta" if (which + turn) % 3 else "tiktok"
            amount = (5 + (which * 7 + turn * 13) % 20) * UNIT
            try:
                permit = await shield.place(name, f"c{which}", amount, at)
            except Denied:
                tell("denied", name)
                await ledger.write_head()
                continue
            tell("permit", permit.reservation_id)
            key = intent_key(name, permit.campaign_id, IntentKind.PLACE_BID, at, f"{number}.{which}.{turn}")
            receipt = (await outbox.send(at, name, IntentKind.PLACE_BID, [_intent(key, permit, at)]))[0]
            tell(receipt.outcome.value, key)
            at = Instant(next(moments))
            if receipt.outcome is Outcome.ACCEPTED:
                await shield.commit(permit, at)
                tell("spent", permit.reservation_id)
            elif receipt.outcome is Outcome.REJECTED:
                await shield.release(permit, at)
                tell("released", permit.reservation_id)

    await asyncio.gather(*(lane(which) for which in range(LANES)))
    await shield.close(Instant(next(moments)))
    await ledger.write_head()
    await store.close()


def _intent(key: str, permit: Permit, at: Instant) -> Intent:
    return Intent(
        key=key,
        kind=IntentKind.PLACE_BID,
        connector=permit.connector,
        campaign_id=permit.campaign_id,
        before=0,
        after=permit.amount_micros,
        currency="USD",
        reason="PROOF",
        at=at,
        cause=permit.reservation_id,
    )


async def _end_orphans(shield: Shield, store: Store, now: Instant) -> None:
    """Permits whose holder died before it meant anything: nobody can have spent them."""
    known = {
        cause
        for (cause,) in await store.read(lambda connection: connection.execute("SELECT cause FROM intents").fetchall())
    }
    for permit in shield.open_permits():
        if permit.reservation_id not in known:
            await shield.release(permit, now)


@dataclass
class Known:
    """What was heard about one database, and what may be asked of it."""

    heard: dict[str, set[str]] = field(default_factory=dict)
    effects: Counter[str] = field(default_factory=Counter)

    def take(self, what: str, fact: str) -> None:
        """Remember one line."""
        if what == "fx":
            self.effects[fact] += 1
        else:
            self.heard.setdefault(what, set()).add(fact)

    def missing(self, states: dict[str, str], permits: dict[str, str]) -> list[str]:
        """What was acknowledged and is not on record as it was acknowledged."""
        heard = self.heard
        missing = [key for key in heard.get("permit", ()) if key not in permits]
        for what, state in (("spent", "committed"), ("released", "released")):
            missing += [key for key in heard.get(what, ()) if permits.get(key) != state]
        for what in ("accepted", "rejected"):
            missing += [key for key in heard.get(what, ()) if states.get(key) != what]
        return missing + [key for key in heard.get("unknown", ()) if key not in states]
