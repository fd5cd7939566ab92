"""The legal basis of a decision (M12): against a list of everything that was said, over restarts, races and strings."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiki_agent.consent import DENIED, NOT_PERSONAL, ConsentType, Status, Vendors, Why
from kiki_agent.errors import Denied, StoreError
from kiki_agent.model import DAY, HOUR, MINUTE, Instant

from .encoder import Tc, gpp
from .rooms import NOON, Room

T, P = ConsentType.TARGETING, ConsentType.PROFILING


# -- against a list of statements ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """One line of the model's list."""

    yes: bool
    first: int
    """The earliest instant it may have been said at: a yes counts from here."""
    last: int
    """The latest: a no counts from here."""
    expires: int | None
    vendors: frozenset[int] | None
    string: bool

    @property
    def when(self) -> int:
        return self.first if self.yes else self.last


def in_force(said: list[Said]) -> Said | None:
    """What is in force of everything said, in the order of arrival; a string not surely newer changes nothing."""
    best: Said | None = None
    newest = -1
    for each in said:
        undoes = not each.yes and best is not None and best.yes  # at one instant
        if each.string and (each.when < newest or (each.when == newest and not undoes)):
            continue
        best, newest = each, max(newest, each.when)
    return best


def model_basis(said: list[Said], platform: str, now: int) -> bool:
    found = in_force(said)
    if found is None or not found.yes or (found.expires is not None and now >= found.expires):
        return False
    needed = {755, 21} if platform == "tradedesk" else {755}
    return found.vendors is None or needed <= found.vendors


CUSTOMERS = st.sampled_from(["anna", "bob"])
KINDS = st.sampled_from([T, P])
STEPS = st.one_of(
    st.tuples(st.just("grant"), CUSTOMERS, KINDS, st.sampled_from([None, 1, HOUR, DAY])),
    st.tuples(st.just("revoke"), CUSTOMERS, KINDS),
    st.tuples(
        st.just("string"),
        CUSTOMERS,
        st.integers(-3, 1),
        st.sampled_from([(1, 3, 4), (1, 3), (1, 4), ()]),
        st.sampled_from([(755,), (755, 21), (21,), ()]),
    ),
    st.tuples(st.just("wait"), st.sampled_from([1, HOUR - 1, HOUR, 13 * HOUR, DAY, 395 * DAY])),
    st.tuples(st.just("restart")),
    st.tuples(st.just("erase"), CUSTOMERS),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=14), st.sampled_from([1_000, 1]))
def test_the_basis_is_what_a_list_of_all_statements_says(steps: list[tuple[object, ...]], most: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_follow(Room(Path(folder), most=most), steps))


async def _follow(room: Room, steps: list[tuple[object, ...]]) -> None:
    now = int(NOON)
    said: dict[tuple[str, ConsentType], list[Said]] = {}
    await room.start(Instant(now))
    for step in steps:
        now = await _do(room, step, said, now)
        for name in ("anna", "bob", "nobody"):
            for kind in (T, P):
                for platform in ("meta", "tradedesk"):
                    found = await room.consents.look(name, kind, platform, Instant(now))
                    wanted = model_basis(said.get((name, kind), []), platform, now)
                    assert (found != DENIED) is wanted, (step, name, kind, platform, found)
                    assert found == DENIED or found.startswith("consent:")
    await room.stop()


async def _do(room: Room, step: tuple[object, ...], said: dict[tuple[str, ConsentType], list[Said]], now: int) -> int:
    match step:
        case ("grant", str(name), ConsentType() as kind, span):
            expires = None if span is None else Instant(now + int(str(span)))
            await room.consents.grant(name, kind, Instant(now), expires_at=expires)
            said.setdefault((name, kind), []).append(Said(True, now, now, expires, None, False))
        case ("revoke", str(name), ConsentType() as kind):
            if (name, kind) in said:
                await room.consents.revoke(name, kind, Instant(now))
                said[name, kind].append(Said(False, now, now, None, None, False))
            else:
                with pytest.raises(Denied, match="no consent of this customer"):
                    await room.consents.revoke(name, kind, Instant(now))
        case ("string", str(name), int(days), tuple(purposes), tuple(vendors)):
            await _string(room, name, days, purposes, vendors, said, now)
        case ("wait", int(span)):
            now += span
        case ("restart",):
            await room.again(Instant(now))
        case ("erase", str(name)):
            await room.privacy.erase(name, Instant(now))
            for kind in (T, P):
                said.pop((name, kind), None)
    return now


async def _string(
    room: Room,
    name: str,
    days: int,
    purposes: tuple[int, ...],
    vendors: tuple[int, ...],
    said: dict[tuple[str, ConsentType], list[Said]],
    now: int,
) -> None:
    day = (now // DAY + days) * DAY
    made = Instant(day)
    text = Tc(made, made, purposes=purposes, vendor_consent=vendors, disclosed=(21, 755)).text()
    erased = room.vault.refuses(name)
    why, _ = await room.consents.take_string(name, text, Instant(now))
    assert why is (Why.FUTURE if day > now + HOUR else Why.YES)
    if why is Why.FUTURE:
        return
    first = min(day, now // DAY * DAY)
    allowed = {kind: set(need) <= set(purposes) and bool(vendors) for kind, need in ((T, (1, 3, 4)), (P, (1, 3)))}
    if erased and not any(allowed.values()):
        return
    for kind, yes in allowed.items():
        last = min(first + DAY, now)
        who = frozenset(vendors) if yes else None
        line = Said(yes, first, last, day + 395 * DAY if yes else None, who, True)
        said.setdefault((name, kind), []).append(line)


# -- by hand ------------------------------------------------------------------------------------------------------


async def test_nobody_is_not_personal_and_who_said_nothing_is_denied(room: Room) -> None:
    assert room.consents.basis(None, T, "meta", NOON) == NOT_PERSONAL
    assert room.consents.basis("anna", T, "meta", NOON) == DENIED
    assert room.consents.basis("", T, "meta", NOON) == DENIED


async def test_a_grant_is_for_one_purpose_until_the_instant_it_names(room: Room) -> None:
    until = Instant(NOON + HOUR)
    made = await room.consents.grant("anna", T, NOON, expires_at=until)
    assert room.consents.basis("anna", T, "meta", Instant(until - 1)) == f"consent:{made.consent_id}"
    assert room.consents.basis("anna", T, "meta", until) == DENIED
    assert room.consents.basis("anna", P, "meta", NOON) == DENIED
    with pytest.raises(Denied, match="expires_at has passed"):
        await room.consents.grant("bob", T, NOON, expires_at=NOON)
    assert await room.vault.subject("bob") is None


async def test_a_new_statement_has_a_new_id(room: Room) -> None:
    first = await room.consents.grant("anna", T, NOON)
    gone = await room.consents.revoke("anna", T, NOON)
    second = await room.consents.grant("anna", T, NOON)
    assert len({first.consent_id, gone.consent_id, second.consent_id}) == 3
    assert room.consents.basis("anna", T, "meta", NOON) == f"consent:{second.consent_id}"


async def test_a_revocation_counts_before_it_is_written(room: Room) -> None:
    await room.consents.grant("anna", T, NOON)
    taking_back = asyncio.create_task(room.consents.revoke("anna", T, NOON))
    await asyncio.sleep(0)
    assert not taking_back.done()
    assert room.consents.basis("anna", T, "meta", NOON) == DENIED
    await taking_back
    await room.again()
    assert room.consents.basis("anna", T, "meta", NOON) == DENIED


async def test_a_revocation_that_cannot_be_written_still_counts(room: Room) -> None:
    await room.consents.grant("anna", T, NOON)
    await room.store.close()
    with pytest.raises(StoreError):
        await room.consents.revoke("anna", T, NOON)
    assert room.consents.basis("anna", T, "meta", NOON) == DENIED
    await room.vault.close()
    await room.start()


async def test_a_grant_counts_only_once_it_is_written(room: Room) -> None:
    giving = asyncio.create_task(room.consents.grant("anna", T, NOON))
    await asyncio.sleep(0)
    assert room.consents.basis("anna", T, "meta", NOON) == DENIED
    await giving
    assert room.consents.basis("anna", T, "meta", NOON) != DENIED


async def test_a_grant_whose_caller_went_away_is_known_all_the_same(room: Room) -> None:
    giving = asyncio.create_task(room.consents.grant("anna", T, NOON))
    for _ in range(1_000_000):
        if room.store.queue_depth:
            break
        await asyncio.sleep(0)
    assert giving.cancel()
    await room.store.drain()
    await asyncio.sleep(0)
    remembered = room.consents.basis("anna", T, "meta", NOON)
    await room.again()
    assert room.consents.basis("anna", T, "meta", NOON) == remembered != DENIED


async def test_a_grant_and_a_revocation_at_once_end_as_they_were_ordered(room: Room) -> None:
    await room.consents.grant("anna", T, NOON)
    seen = []
    for _ in range(20):
        await asyncio.gather(
            room.consents.grant("anna", T, NOON),
            room.consents.revoke("anna", T, NOON),
            room.consents.look("anna", T, "meta", NOON),
        )
        memory = room.consents.basis("anna", T, "meta", NOON)
        (status,) = (await room.rows("SELECT status FROM consents"))[0]
        assert (memory == DENIED) is (status != "GRANTED")
        seen.append(status)
    assert seen


async def test_what_does_not_fit_in_memory_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    room = await Room(tmp_path, most=3).start()
    for number in range(9):
        await room.consents.grant(f"c{number}", T, Instant(NOON + number))
    assert room.consents.held == 3
    for _ in range(2):
        assert not room.consents.complete
        assert room.consents.basis("c0", T, "meta", NOON) == DENIED
        found = [await room.consents.look(f"c{number}", T, "meta", NOON) for number in range(9)]
        assert len(set(found)) == 9
        assert DENIED not in found
        assert room.consents.held == 3
        await room.consents.revoke("c0", T, NOON)
        assert await room.consents.look("c0", T, "meta", NOON) == DENIED
        await room.consents.grant("c0", T, NOON)
        await room.again(Instant(NOON + HOUR))
    await room.stop()


async def test_reading_back_never_undoes_a_revocation(tmp_path: Path) -> None:
    room = await Room(tmp_path, most=1).start()
    for _ in range(30):
        await room.consents.grant("anna", T, NOON)
        await room.consents.grant("bob", T, NOON)  # anna has no room in memory now
        await asyncio.gather(
            room.consents.look("anna", T, "meta", NOON),
            room.consents.revoke("anna", T, NOON),
            room.consents.look("anna", T, "meta", NOON),
        )
        assert room.consents.basis("anna", T, "meta", NOON) == DENIED
        assert await room.consents.look("anna", T, "meta", NOON) == DENIED
    await room.stop()


async def test_what_was_read_before_a_revocation_is_not_taken_up_after_it(tmp_path: Path) -> None:
    room = await Room(tmp_path, most=1).start()
    await room.consents.grant("anna", T, NOON)
    await room.consents.grant("bob", T, NOON)
    real, go, has_read = room.store.read, asyncio.Event(), asyncio.Event()

    async def slow(work: object) -> object:
        found = await real(work)  # type: ignore[type-var]
        has_read.set()
        await go.wait()
        return found

    room.store.read = slow  # type: ignore[method-assign, assignment]
    asking = asyncio.create_task(room.consents.look("anna", T, "meta", NOON))
    await has_read.wait()
    room.store.read = real  # type: ignore[method-assign]
    await room.consents.revoke("anna", T, NOON)
    go.set()
    assert await asking == DENIED
    assert room.consents.basis("anna", T, "meta", NOON) == DENIED
    await room.stop()


async def test_every_statement_is_in_the_ledger_with_its_evidence_sealed(room: Room) -> None:
    await room.consents.grant("anna", T, NOON, evidence={"ip_address": "203.0.113.9"})
    await room.consents.revoke("anna", T, NOON)
    bodies = await room.rows("SELECT body FROM ledger_entries WHERE kind = 'consent' ORDER BY seq")
    assert ["GRANTED" in str(bodies[0]), "REVOKED" in str(bodies[1])] == [True, True]
    assert b"203.0.113.9" not in room.bytes()
    assert "v1:" in str(bodies[0])


# -- strings ------------------------------------------------------------------------------------------------------

TODAY = Instant(NOON // DAY * DAY)


def string(day: int = TODAY, **more: object) -> str:
    made = Instant(day)
    return Tc(made, made, **{"vendor_consent": (21, 755), "disclosed": (21, 755), **more}).text()  # type: ignore[arg-type]


async def test_a_string_is_for_the_vendors_it_names(room: Room) -> None:
    why, said = await room.consents.take_string("anna", string(vendor_consent=(755,)), NOON)
    assert why is Why.YES
    assert {each.status for each in said if each.consent_type in (T, P)} == {Status.GRANTED}
    assert room.consents.basis("anna", T, "meta", NOON) != DENIED
    assert room.consents.basis("anna", T, "tradedesk", NOON) == DENIED
    assert room.consents.basis("anna", ConsentType.MARKETING, "meta", NOON) == DENIED


async def test_without_a_vendor_id_no_string_is_a_basis(tmp_path: Path) -> None:
    room = await Room(tmp_path, vendors=Vendors(None, {})).start()
    why, _ = await room.consents.take_string("anna", string(), NOON)
    assert why is Why.NOT_ASKED
    assert await room.rows("SELECT * FROM consents") == []
    await room.stop()


async def test_a_platform_without_an_id_of_ours_or_its_own_takes_no_string(tmp_path: Path) -> None:
    room = await Room(tmp_path, vendors=Vendors(None, {"tradedesk": frozenset({21})})).start()
    await room.consents.take_string("anna", string(), NOON)
    assert room.consents.basis("anna", T, "tradedesk", NOON) != DENIED
    assert room.consents.basis("anna", T, "meta", NOON) == DENIED
    await room.stop()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", Why.MALFORMED),
        ("nonsense", Why.MALFORMED),
        ("DBAA~x", Why.MALFORMED),
        (string(policy=3), Why.POLICY),
        (string(TODAY - 400 * DAY, policy=4, disclosed=None), Why.EXPIRED),
        (string(TODAY + DAY), Why.FUTURE),
        (string(disclosed=None), Why.NOT_DISCLOSED),
    ],
)
async def test_a_string_that_says_nothing_changes_nothing(room: Room, text: str, why: Why) -> None:
    made = await room.consents.grant("anna", T, NOON)
    found, said = await room.consents.take_string("anna", text, NOON)
    assert (found, said) == (why, [])
    assert room.consents.basis("anna", T, "meta", NOON) == f"consent:{made.consent_id}"


async def test_an_older_string_undoes_no_revocation(room: Room) -> None:
    await room.consents.take_string("anna", string(), NOON)
    await room.consents.revoke("anna", T, NOON)
    for day in (TODAY - DAY, TODAY):
        await room.consents.take_string("anna", string(day), NOON)
        assert room.consents.basis("anna", T, "meta", NOON) == DENIED
    tomorrow = Instant(NOON + DAY)
    await room.consents.take_string("anna", string(TODAY + DAY), tomorrow)
    assert room.consents.basis("anna", T, "meta", tomorrow) != DENIED


async def test_a_clock_that_was_ahead_makes_no_yes_newer_than_what_is_said_today(room: Room) -> None:
    before_midnight = Instant(TODAY + DAY - MINUTE)
    ahead = string(TODAY + DAY)
    await room.consents.take_string("anna", ahead, before_midnight)
    assert room.consents.basis("anna", T, "meta", before_midnight) != DENIED
    await room.consents.take_string("anna", string(purposes=()), before_midnight)
    assert room.consents.basis("anna", T, "meta", before_midnight) == DENIED
    await room.consents.take_string("anna", ahead, before_midnight)  # nor does it undo what was taken back today
    assert room.consents.basis("anna", T, "meta", before_midnight) == DENIED


async def test_of_a_yes_and_a_no_of_one_instant_the_no_is_in_force(room: Room) -> None:
    yes, no = string(TODAY), string(TODAY - DAY, purposes=())
    for text in (yes, no, yes, no, no):
        await room.consents.take_string("anna", text, TODAY)
    assert room.consents.basis("anna", T, "meta", TODAY) == DENIED
    assert (
        len(await room.rows("SELECT seq FROM ledger_entries WHERE kind = 'consent' AND body LIKE '%targeting%'")) == 2
    )


async def test_a_gpp_string_counts_by_its_european_section(room: Room) -> None:
    await room.consents.take_string("anna", gpp({2: string()}), NOON)
    found = (await room.consents.status("anna"))[T]
    assert (found.source.value, found.status) == ("gpp", Status.GRANTED)
