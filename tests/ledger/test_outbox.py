"""Journal, call, confirm: an effect happens once, or is shown as unknown until it is read back (M3)."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from kiki_agent.errors import (
    AuthExpired,
    Bug,
    Outdated,
    PluginError,
    RateLimited,
    Rejected,
    StoreError,
    Temporary,
    UnknownOutcome,
    Unsupported,
)
from kiki_agent.ledger import Ledger, Outbox, Records, verify_file
from kiki_agent.model import SECOND, Instant, Intent, IntentKind, Outcome, Receipt, intent_key
from kiki_agent.store import Store

Agent = tuple[Store, Ledger]
OpenAgent = Callable[..., Awaitable[Agent]]
KIND = IntentKind.SET_BUDGET
T0 = Instant(100 * SECOND)


def intent(campaign: str = "c-1", at: int = T0, after: int = 2_000_000, kind: IntentKind = KIND) -> Intent:
    return Intent(
        key=intent_key("meta", campaign, kind, at),
        kind=kind,
        connector="meta",
        campaign_id=campaign,
        before=1_000_000,
        after=after,
        currency="USD",
        reason="ON_PLAN",
        at=Instant(at),
        cause="shift-1",
    )


class Vendor:
    """A platform with a memory of effects; `weather` is raised once, before or after the effect took place."""

    def __init__(self) -> None:
        self.effects: list[str] = []
        self.calls: list[str] = []
        self.weather: BaseException | None = None
        self.effect_happens = True
        self.can_say = True
        self.gate: asyncio.Event | None = None
        self.called = asyncio.Event()

    async def __call__(self, instance_id: str, verb: str, args: tuple[object, ...]) -> object:
        assert instance_id == "meta"
        (intents,) = args
        assert isinstance(intents, tuple)
        self.calls.append(verb)
        self.called.set()
        if verb == "reconcile":
            if not self.can_say:
                return [Receipt(each.key, Outcome.UNKNOWN, "") for each in intents]
            return [
                Receipt(each.key, Outcome.ACCEPTED if each.key in self.effects else Outcome.REJECTED, "READ_BACK")
                for each in intents
            ]
        if self.gate is not None:
            await self.gate.wait()
        weather, self.weather = self.weather, None
        if weather is None or self.effect_happens:
            self.effects += [each.key for each in intents]
        if weather is not None:
            raise weather
        return [Receipt(each.key, Outcome.ACCEPTED, vendor_ref=f"v-{len(self.effects)}") for each in intents]


@pytest.fixture
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
def outbox(agent: Agent, vendor: Vendor) -> Outbox:
    return Outbox(*agent, vendor)


async def kinds(store: Store) -> list[str]:
    rows = await store.read(lambda connection: connection.execute("SELECT kind FROM ledger_entries").fetchall())
    return [kind for (kind,) in rows if kind in ("intent", "receipt")]


async def states(store: Store) -> list[str]:
    return [row.state for row in await Records(store).intents(since=Instant(0))]


async def test_an_accepted_intent_is_journaled_called_once_and_confirmed(
    agent: Agent, outbox: Outbox, vendor: Vendor
) -> None:
    store, _ = agent
    receipts = await outbox.send(T0, "meta", KIND, [intent("c-1"), intent("c-2")])
    assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED] * 2
    assert vendor.calls == ["set_budget"]
    assert await kinds(store) == ["intent", "intent", "receipt", "receipt"]
    assert not outbox.unsettled("meta", "c-1")
    rows = await Records(store).intents(since=T0, kinds=[KIND])
    assert {row.intent for row in rows} == {intent("c-1"), intent("c-2")}
    assert {(row.state, row.settled_at, row.vendor_ref) for row in rows} == {("accepted", T0, "v-2")}
    assert await Records(store).intents(since=Instant(T0 + 1)) == []
    assert await outbox.send(T0, "meta", KIND, []) == []


async def test_the_intent_is_durable_before_the_call_begins(agent: Agent, vendor: Vendor) -> None:
    store, ledger = agent
    seen: list[str] = []

    async def call(instance_id: str, verb: str, args: tuple[object, ...]) -> object:
        outside = sqlite3.connect(store.path)
        seen.extend(state for (state,) in outside.execute("SELECT state FROM intents"))
        outside.close()
        return await vendor(instance_id, verb, args)

    await Outbox(store, ledger, call).send(T0, "meta", KIND, [intent()])
    assert seen == ["pending"]


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (Rejected("no", "BUDGET_TOO_LOW"), Outcome.REJECTED, "BUDGET_TOO_LOW"),
        (RateLimited("later", 5), Outcome.REJECTED, "RATE_LIMITED"),
        (AuthExpired("who?"), Outcome.REJECTED, "AUTH_EXPIRED"),
        (Outdated("v1 is gone"), Outcome.REJECTED, "OUTDATED"),
        (Unsupported("cannot"), Outcome.REJECTED, "UNSUPPORTED"),
        (UnknownOutcome("time-out"), Outcome.UNKNOWN, "NO_ANSWER"),
        (Temporary("connection reset"), Outcome.UNKNOWN, "NO_ANSWER"),
        (Bug("wrong type"), Outcome.UNKNOWN, "PLUGIN_BUG"),
        (ZeroDivisionError("ours"), Outcome.UNKNOWN, "AGENT_BUG"),
    ],
)
async def test_what_each_error_says_about_the_effect(
    agent: Agent, outbox: Outbox, vendor: Vendor, error: Exception, outcome: Outcome, reason: str
) -> None:
    vendor.weather = error
    (receipt,) = await outbox.send(T0, "meta", KIND, [intent()])
    assert (receipt.outcome, receipt.reason) == (outcome, reason)
    assert outbox.unsettled("meta", "c-1") is (outcome is Outcome.UNKNOWN)
    assert await states(agent[0]) == [outcome.value]
    assert await kinds(agent[0]) == ["intent", "receipt"]


@pytest.mark.parametrize(
    "answer",
    [None, [], ["x"], [Receipt("other", Outcome.ACCEPTED)], [Receipt(intent().key, Outcome.ACCEPTED)] * 2, "text"],
)
async def test_an_answer_of_the_wrong_form_is_unknown(agent: Agent, answer: object) -> None:
    async def call(instance_id: str, verb: str, args: tuple[object, ...]) -> object:
        return answer

    (receipt,) = await Outbox(*agent, call).send(T0, "meta", KIND, [intent()])
    assert (receipt.outcome, receipt.reason) == (Outcome.UNKNOWN, "PLUGIN_BUG")


@pytest.mark.parametrize("effect_happens", [True, False])
async def test_a_lost_answer_is_read_back_and_not_before_it_can_no_longer_be_travelling(
    agent: Agent, outbox: Outbox, vendor: Vendor, effect_happens: bool
) -> None:
    vendor.weather, vendor.effect_happens = UnknownOutcome("lost"), effect_happens
    await outbox.send(T0, "meta", KIND, [intent()])
    assert await outbox.reconcile(Instant(T0 + 29 * SECOND)) == 0
    assert vendor.calls == ["set_budget"]
    vendor.can_say = False
    assert await outbox.reconcile(Instant(T0 + 30 * SECOND)) == 0
    assert outbox.unsettled("meta", "c-1")
    vendor.can_say = True
    assert await outbox.reconcile(Instant(T0 + 60 * SECOND), "other") == 0
    assert await outbox.reconcile(Instant(T0 + 60 * SECOND), "meta") == 1
    assert not outbox.unsettled("meta", "c-1")
    assert await states(agent[0]) == ["accepted" if effect_happens else "rejected"]
    assert vendor.calls == ["set_budget", "reconcile", "reconcile"]
    assert await kinds(agent[0]) == ["intent", "receipt", "receipt"]
    assert await outbox.reconcile(Instant(T0 + 90 * SECOND)) == 0


async def test_a_connector_that_cannot_read_back_leaves_it_unknown(
    agent: Agent, outbox: Outbox, vendor: Vendor
) -> None:
    vendor.weather = UnknownOutcome("lost")
    await outbox.send(T0, "meta", KIND, [intent()])

    async def down(instance_id: str, verb: str, args: tuple[object, ...]) -> object:
        raise Temporary("down")

    outbox._call = down
    assert await outbox.reconcile(Instant(T0 + 60 * SECOND)) == 0
    assert outbox.unsettled("meta", "c-1")


async def test_a_known_key_is_never_sent_again(agent: Agent, outbox: Outbox, vendor: Vendor) -> None:
    first = await outbox.send(T0, "meta", KIND, [intent()])
    again = await outbox.send(Instant(T0 + SECOND), "meta", KIND, [intent(), intent("c-2")])
    assert again[0] == first[0]
    assert len(vendor.effects) == 2
    vendor.weather = UnknownOutcome("lost")
    await outbox.send(T0, "meta", KIND, [intent("c-3")])
    (receipt,) = await outbox.send(T0, "meta", KIND, [intent("c-3")])
    assert receipt.outcome is Outcome.UNKNOWN
    assert len(vendor.effects) == len(set(vendor.effects)) == 3
    assert outbox.unsettled("meta", "c-3")


async def test_two_sends_of_one_intent_at_once_make_one_effect(outbox: Outbox, vendor: Vendor) -> None:
    vendor.gate = asyncio.Event()
    first = asyncio.create_task(outbox.send(T0, "meta", KIND, [intent()]))
    second = asyncio.create_task(outbox.send(T0, "meta", KIND, [intent()]))
    (receipt,) = await second
    assert receipt.outcome is Outcome.UNKNOWN
    assert outbox.unsettled("meta", "c-1")
    vendor.gate.set()
    assert (await first)[0].outcome is Outcome.ACCEPTED
    assert vendor.effects == [intent().key]
    assert not outbox.unsettled("meta", "c-1")


async def test_a_campaign_with_an_unsettled_intent_gets_no_other(agent: Agent, outbox: Outbox, vendor: Vendor) -> None:
    vendor.weather = UnknownOutcome("lost")
    await outbox.send(T0, "meta", KIND, [intent()])
    later = [intent(at=T0 + 1, after=3_000_000), intent("c-2", at=T0 + 1)]
    refused, fine = await outbox.send(Instant(T0 + 1), "meta", KIND, later)
    assert (refused.outcome, refused.reason) == (Outcome.REJECTED, "UNSETTLED")
    assert fine.outcome is Outcome.ACCEPTED
    assert later[0].key not in vendor.effects
    assert len(await states(agent[0])) == 2


async def test_placed_bids_of_one_campaign_may_be_many(outbox: Outbox, vendor: Vendor) -> None:
    bids = [intent(at=T0 + number, kind=IntentKind.PLACE_BID) for number in range(3)]
    receipts = await outbox.send(T0, "meta", IntentKind.PLACE_BID, bids)
    assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED] * 3


async def test_mixed_or_doubled_intents_are_refused(outbox: Outbox, vendor: Vendor) -> None:
    for wrong in ([intent(kind=IntentKind.ADJUST_BID)], [intent(), intent()]):
        with pytest.raises(ValueError):
            await outbox.send(T0, "meta", KIND, wrong)
    with pytest.raises(ValueError):
        await outbox.send(T0, "x", KIND, [intent()])
    assert vendor.calls == []


async def test_a_cancelled_caller_does_not_lose_the_answer(agent: Agent, outbox: Outbox, vendor: Vendor) -> None:
    for moment in range(4):
        vendor.gate = asyncio.Event()
        task = asyncio.create_task(outbox.send(T0, "meta", KIND, [intent(f"c-{moment}")]))
        for _ in range(moment):
            await asyncio.sleep(0.002)
        if moment:
            task.cancel()
        vendor.gate.set()
        await asyncio.gather(task, return_exceptions=True)
        await outbox.drain()
    assert len(vendor.effects) == len(set(vendor.effects)) == 4
    assert set(await states(agent[0])) == {"accepted"}
    assert outbox.unsettled_count == 0


async def test_nothing_is_sent_when_the_journal_cannot_be_written(agent: Agent, outbox: Outbox, vendor: Vendor) -> None:
    store, _ = agent

    def fail(connection: sqlite3.Connection) -> None:
        raise StoreError("the disk is full")

    store.before_commit.append(fail)
    with pytest.raises(StoreError, match="full"):
        await outbox.send(T0, "meta", KIND, [intent()])
    assert vendor.calls == []
    assert not outbox.unsettled("meta", "c-1")
    store.before_commit.remove(fail)
    assert (await outbox.send(T0, "meta", KIND, [intent()]))[0].outcome is Outcome.ACCEPTED


async def test_an_answer_that_cannot_be_written_down_is_unknown_until_read_back(
    agent: Agent, outbox: Outbox, vendor: Vendor
) -> None:
    store, _ = agent

    def fail(connection: sqlite3.Connection) -> None:
        if vendor.calls == ["set_budget"]:
            raise StoreError("the disk is full")

    store.before_commit.append(fail)
    (receipt,) = await outbox.send(T0, "meta", KIND, [intent()])
    assert (receipt.outcome, receipt.reason) == (Outcome.UNKNOWN, "NOT_RECORDED")
    assert outbox.unsettled("meta", "c-1")
    assert await states(store) == ["pending"]
    assert await outbox.reconcile(Instant(T0 + 60 * SECOND)) == 1
    assert await states(store) == ["accepted"]


async def test_handlers_run_in_the_confirming_transaction(agent: Agent, outbox: Outbox, vendor: Vendor) -> None:
    store, ledger = agent
    seen: list[tuple[str, Outcome]] = []

    def handler(connection: sqlite3.Connection, each: Intent, receipt: Receipt) -> None:
        seen.append((each.campaign_id, receipt.outcome))
        ledger.append(connection, T0, "permit", {"key": each.key})
        if each.campaign_id == "c-bad":
            raise KeyError

    outbox.confirm_handlers.append(handler)
    vendor.weather = UnknownOutcome("lost")
    await outbox.send(T0, "meta", KIND, [intent()])
    await outbox.reconcile(Instant(T0 + 60 * SECOND))
    assert seen == [("c-1", Outcome.UNKNOWN), ("c-1", Outcome.ACCEPTED)]
    with pytest.raises(KeyError):
        await outbox.send(T0, "meta", KIND, [intent("c-bad")])
    assert outbox.unsettled("meta", "c-bad")
    rows = await store.read(lambda c: c.execute("SELECT count(*) FROM ledger_entries WHERE kind = 'permit'").fetchone())
    assert rows == (2,)
    assert (await ledger.verify()).ok


@pytest.mark.parametrize("effect_happens", [True, False])
async def test_a_restart_reads_back_what_was_pending_and_sends_nothing_twice(
    open_agent: OpenAgent, vendor: Vendor, tmp_path: Path, effect_happens: bool
) -> None:
    store, ledger = await open_agent()
    outbox = Outbox(store, ledger, vendor)
    vendor.gate = asyncio.Event()
    vendor.weather, vendor.effect_happens = asyncio.CancelledError(), effect_happens
    task = asyncio.create_task(outbox.send(T0, "meta", KIND, [intent()]))
    await vendor.called.wait()
    vendor.gate.set()  # the process dies between the effect and the receipt
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await states(store) == ["pending"]
    await store.close()

    store, ledger = await open_agent(now=T0 + 5 * SECOND)
    outbox = Outbox(store, ledger, vendor)
    assert await outbox.load(Instant(T0 + 5 * SECOND)) == 1
    assert await states(store) == ["unknown"]
    assert outbox.unsettled("meta", "c-1")
    (receipt,) = await outbox.send(Instant(T0 + 6 * SECOND), "meta", KIND, [intent()])
    assert receipt.outcome is Outcome.UNKNOWN
    assert await outbox.reconcile(Instant(T0 + 10 * SECOND)) == 0
    assert await outbox.reconcile(Instant(T0 + 40 * SECOND)) == 1
    assert await states(store) == ["accepted" if effect_happens else "rejected"]
    assert vendor.effects == [intent().key] * effect_happens
    assert vendor.calls == ["set_budget", "reconcile"]
    await ledger.write_head()
    await store.close()
    assert verify_file(store.path, tmp_path / "ledger.head").ok


def test_every_plugin_error_has_a_meaning() -> None:
    """A new class of error must be placed on purpose."""

    def leaves(kind: type[PluginError]) -> Sequence[type[PluginError]]:
        return [kind, *[leaf for child in kind.__subclasses__() for leaf in leaves(child)]]

    ours = {kind.__name__ for kind in leaves(PluginError) if kind.__module__ == "kiki_agent.errors"}
    assert ours == {
        "PluginError",
        "Temporary",
        "RateLimited",
        "AuthExpired",
        "Outdated",
        "Rejected",
        "UnknownOutcome",
        "Unsupported",
        "Bug",
    }
