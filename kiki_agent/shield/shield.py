"""The shield: the one door through which money may be permitted, and the one book in which it is counted."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from kiki_agent.config import Settings
from kiki_agent.errors import Denied, StoreError
from kiki_agent.ledger import Ledger
from kiki_agent.model import SECOND, Instant, Intent, Platform, SpendReport, decimal_text, micros_from_text
from kiki_agent.model.money import MAX_MICROS
from kiki_agent.runtime.log import get_logger
from kiki_agent.shield import journal
from kiki_agent.shield.allocations import Allocation, AllocationView, CheckAnswer, check_change, check_wish
from kiki_agent.shield.allocations import check_raise as check_allocation_raise
from kiki_agent.shield.book import Book, Caps, WindowStats
from kiki_agent.shield.bounds import Bound, Exceeded
from kiki_agent.shield.governor import ChangeLimits, check_raise
from kiki_agent.shield.governor import check_change as check_intent
from kiki_agent.shield.journal import DayState
from kiki_agent.shield.levels import LevelAnswer, LevelRequest, Levels
from kiki_agent.shield.pen import Pen
from kiki_agent.shield.permit import Permit
from kiki_agent.shield.placed import Placed
from kiki_agent.shield.reasons import LevelReason, Refusal
from kiki_agent.shield.recovery import Recovered, recover
from kiki_agent.shield.total import Total
from kiki_agent.shield.watch import OnEvent, Watch
from kiki_agent.store import Store

_log = get_logger("syncshield")


class Shield:
    """May this money move?

    Everything is decided in memory, on the event loop, and written in the order it was decided. Whatever cannot be
    checked is refused.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        settings: Settings,
        connectors: tuple[str, ...],
        recovered: Recovered,
        on_event: OnEvent | None,
    ) -> None:
        self.connectors = connectors
        """Ids in the order that `LevelRequest.connector` indexes."""
        self._store = store
        self._ledger = ledger
        self._books = recovered.books
        self._allocations = recovered.allocations
        self._levelled = [recovered.books[connector] for connector in connectors]
        self._platforms = {name: settings.connector[name].platform for name in connectors if name in settings.connector}
        self._limits = ChangeLimits(
            max_budget_micros=micros_from_text(settings.shield.max_budget),
            max_bid_micros=micros_from_text(settings.bidding.max_bid),
            max_budget_ratio=settings.shield.max_budget_ratio,
        )
        self._currency = settings.currency
        self._worth = _worth(settings)
        self._killed = recovered.killed
        self.kill_reason = recovered.kill_reason
        """What was said when the kill switch was last thrown."""
        self.kill_at, self.kill_by = recovered.kill_at, recovered.kill_by
        """When that was, None if never; and who did: http, file, signal, or nothing where it is not known."""
        self._holds: dict[str, str] = {}
        self.on_check: Callable[[str, str], None] | None = None
        """Hears of every permit asked for one by one: `allowed` or `denied`, and the reason."""
        self._pen = Pen(store, ledger)
        self._total = Total(
            self._books.values(),
            _optional_micros(settings.shield.client_daily_cap),
            _optional_micros(settings.shield.client_window_cap),
        )
        self._watch = Watch(on_event, self._pen, self._total)
        self._reservation_span = round(settings.shield.reservation_s * SECOND)
        self._placed = Placed(recovered, self._platforms, self._pen, self._watch, self._stopped, self._total)
        self._levels = Levels(
            self._levelled,
            self._total,
            poll=round(settings.bidding.poll_interval_s * SECOND),
            window=round(settings.shield.window_s * SECOND),
        )

    @classmethod
    async def open(
        cls,
        store: Store,
        ledger: Ledger,
        settings: Settings,
        connectors: Mapping[str, Caps],
        now: Instant,
        *,
        on_event: OnEvent | None = None,
    ) -> Shield:
        """Rebuild windows, days, reservations, allocations and the kill switch from the journal.

        What a lease allowed and no report has confirmed counts as spent until the first report of its connector.
        `on_event(topic, data)` hears of thresholds (`budget`) and of switches (`shield`).
        """
        span = round(settings.shield.window_s * SECOND)
        recovered = await store.read(lambda connection: recover(connection, connectors, span, now))
        return cls(store, ledger, settings, tuple(connectors), recovered, on_event)

    # -- levels: bids and budgets that platforms spend by themselves ---------------------------------------------

    async def permit_levels(self, now: Instant, request: LevelRequest) -> LevelAnswer:
        """Decide all campaigns at once and renew their exposures; never raises for what a column holds.

        Waits for the disk only when a lease has to be raised, some seventeen times a day and connector.
        """
        try:
            for book in self._levelled:
                self._pen.roll(book, now)
            self._placed.expire(now)
            block = LevelReason.PERMITTED
            if self._killed:
                block = LevelReason.KILL_SWITCH
            elif self.hold_reason is not None:
                block = LevelReason.SAFE_HOLD
                if self._store.failure or self._pen.failure:
                    self._pen.retry(self._levelled, now)
            answer = self._levels.decide(request, now, block)
            short = [(book, lease) for book in self._levelled if (lease := book.wanted_lease()) is not None]
            if short:
                await self._renew(short, request, answer, now)
        except Exception as error:
            for book in self._levelled:
                book.expose(0, 0)
            _log.error("levels_failed", "The check of all levels broke, so none is permitted", error=error)
            return LevelAnswer.refuse(request.size, LevelReason.CHECK_FAILED)
        return answer

    async def _renew(
        self, short: list[tuple[Book, int]], request: LevelRequest, answer: LevelAnswer, now: Instant
    ) -> None:
        days = [book.day for book, _ in short]
        try:
            await self._pen.lease(short, now)
            durable = True
        except StoreError as error:
            durable = False
            _log.error("lease_failed", "The right to spend could not be written, so it is not used", error=error)
        for (book, lease), day in zip(short, days, strict=True):
            if durable and book.day == day:
                book.lease_micros = max(book.lease_micros, lease)
                continue
            book.expose(0, 0)
            answer.withdraw(request.connector == self._levelled.index(book), LevelReason.NO_LEASE)

    async def book(self, connector: str, report: SpendReport, now: Instant) -> None:
        """Book what a platform reports as spent, also above every cap; then nothing is permitted.

        Spend per campaign and account day is cumulative; what the report leaves out stays as it was. Raises Denied for
        an unknown connector only.
        """
        book = self._known(connector)
        self._pen.roll(book, now)
        presumed = book.presumed_micros
        booked = book.book(report, now)
        self._pen.note(book, booked)
        if booked.bad_rows:
            _log.warning("bad_spend", "Rows of a spend report make no sense", connector=connector, rows=booked.bad_rows)
        if presumed > 0 or self._pen.due(book, now):
            self._pen.flush(book, now)
        self._watch.spent(book, now)

    # -- placed bids ---------------------------------------------------------------------------------------------

    async def place(
        self,
        connector: str,
        campaign_id: str,
        amount_micros: int,
        now: Instant,
        *,
        basis: str = "not_personal",
        expires_at: Instant | None = None,
    ) -> Permit:
        """Reserve an amount for one bid, over client, day, window and allocation at once. Raises Denied, Exceeded with
        the bound that has not enough left.

        `basis` is `not_personal` or `consent:<id>`; anything else is refused. With `expires_at` the amount is given
        back by itself at that instant; without, only by commit or release.
        """
        try:
            permit = await self._placed.place(connector, campaign_id, amount_micros, now, basis, expires_at)
        except Denied as denied:
            self._checked("denied", denied.reason)
            raise
        except Exception as error:
            raise _broken("place", error) from error
        self._checked("allowed", "PERMITTED")
        return permit

    async def commit(self, permit: Permit, now: Instant, *, spent_micros: int | None = None) -> None:
        """Book a placed bid as spent, with its whole amount or with what it cost. Raises Denied when it has ended."""
        await self._placed.commit(permit, now, permit.amount_micros if spent_micros is None else spent_micros)

    async def release(self, permit: Permit, now: Instant) -> None:
        """Give back the amount of a bid that was not spent. Raises Denied when it has ended."""
        await self._placed.release(permit, now)

    def tightest(self, connector: str, campaign_id: str, now: Instant) -> Bound:
        """What binds one more bid of a campaign first: day, window, the client's caps, or its allocation. Raises Denied
        if the connector is unknown."""
        self._pen.roll(self._known(connector), now)
        return self._placed.tightest(connector, campaign_id, now)

    def open_permits(self) -> list[Permit]:
        """Permits that were neither committed nor released yet, oldest first; also those of an earlier process."""
        return self._placed.open_permits()

    # -- changes at platforms ------------------------------------------------------------------------------------

    def may_change(self, intent: Intent, now: Instant) -> None:
        """Let a change of budget, bid or status out, or raise Denied. Cuts pass kill switch, hold and missing caps."""
        try:
            check_intent(intent, self._limits)
            if not intent.raises_spend:
                return
            stop = self._stopped()
            if stop is not None:
                raise stop
            book = self._known(intent.connector)
            self._pen.roll(book, now)
            check_raise(intent, book, now)
        except Denied:
            raise
        except Exception as error:
            raise _broken("may_change", error) from error

    def may_change_all(self, intents: Sequence[Intent], now: Instant) -> None:
        """Let several changes out, or raise Denied for all of them."""
        for intent in intents:
            self.may_change(intent, now)

    # -- switches ------------------------------------------------------------------------------------------------

    @property
    def killed(self) -> bool:
        """Whether the kill switch is on."""
        return self._killed

    @property
    def hold_reason(self) -> str | None:
        """Why the shield is in safe hold, or None."""
        own = next(iter(self._holds.values()), None)
        return own or self._ledger.hold_reason or self._store.failure or self._pen.failure

    def hold(self, reason: str | None, cause: str = "loops") -> None:
        """Enter safe hold with a reason, or leave it with None. Each cause holds by itself; the first one is told."""
        if reason is None:
            self._holds.pop(cause, None)
        else:
            self._holds[cause] = reason

    async def kill(self, on: bool, reason: str, now: Instant, by: str = "") -> None:
        """Throw the kill switch: on takes effect at once, off only when it is durable. It survives a restart."""
        if on == self._killed:
            return
        if on:
            self._killed, self.kill_reason, self.kill_at, self.kill_by = True, reason, now, by
        await self._pen.submit(
            lambda connection: journal.write_control(connection, self._ledger, "kill_switch", on, reason, now, by)
        )
        self._killed, self.kill_reason, self.kill_at, self.kill_by = on, reason, now, by
        self._watch.tell("shield", {"kill_switch": on, "reason": reason, "at": now})

    async def freeze(self, connector: str, reason: str | None, now: Instant, thawed: str = "") -> None:
        """Let a connector spend nothing until it is thawed (reason None, and what a person said in `thawed`).

        It survives a restart. Raises Denied.
        """
        book = self._known(connector)
        if (reason is None) == (book.frozen is None):
            return
        if reason is not None:
            book.frozen = reason
        on, said = reason is not None, reason or thawed or "thawed by a person"
        await self._pen.submit(
            lambda connection: journal.write_control(connection, self._ledger, f"freeze:{connector}", on, said, now)
        )
        book.frozen = reason

    def frozen(self, connector: str) -> str | None:
        """Why a connector may spend nothing until a person looked, or None."""
        return self._known(connector).frozen

    async def set_caps(self, connector: str, caps: Caps, now: Instant) -> None:
        """Put other caps in force; lower ones at once, however much is spent or reserved. Raises Denied if unknown."""
        book = self._known(connector)
        self._pen.roll(book, now)
        book.change_caps(caps)
        state = DayState.of(book, now)
        window = book.caps.window_micros
        await self._pen.submit(lambda connection: journal.write_caps(connection, self._ledger, state, window))
        self._watch.spent(book, now)

    def daily_cap(self, connector: str) -> int | None:
        """What a connector may spend a day, in micros; None without a cap. Raises Denied if unknown."""
        return self._known(connector).caps.daily_micros

    def status(self, connector: str, now: Instant) -> WindowStats:
        """Window and day of a connector. Raises Denied if unknown."""
        book = self._known(connector)
        self._pen.roll(book, now)
        return book.stats(now)

    # -- allocations by hand (SHD-08 to SHD-10) ------------------------------------------------------------------

    def check_allocation(
        self,
        campaign_id: str,
        budget_micros: int,
        currency: str,
        *,
        pacing: str = "even",
        start_at: Instant | None = None,
        end_at: Instant | None = None,
    ) -> None:
        """May a campaign be given this budget? Raises Denied.

        BAD_INPUT, CURRENCY; CONFLICT below what is spent or in another currency; ABOVE_MAXIMUM; SLIPPED_DIGIT.
        """
        check_wish(budget_micros, currency, pacing, start_at, end_at)
        known = self._allocations.get(campaign_id)
        if known is not None:
            check_change(known, budget_micros, currency)
        check_allocation_raise(budget_micros, 0 if known is None else known.budget_micros, currency, self._limits)

    async def allocate(
        self,
        campaign_id: str,
        budget_micros: int,
        currency: str,
        now: Instant,
        *,
        pacing: str = "even",
        start_at: Instant | None = None,
        end_at: Instant | None = None,
    ) -> AllocationView:
        """Give a campaign a budget, or change it. Raises Denied as `check_allocation` does."""
        self.check_allocation(campaign_id, budget_micros, currency, pacing=pacing, start_at=start_at, end_at=end_at)
        known = self._allocations.get(campaign_id)
        allocation = known or Allocation(campaign_id, budget_micros, currency, created_at=now, updated_at=now)
        before = (allocation.budget_micros, allocation.pacing, allocation.start_at, allocation.end_at)
        allocation.set(budget_micros, pacing, start_at, end_at)
        self._allocations[campaign_id] = allocation
        try:
            await self._pen.submit(partial(_write_allocation, self._ledger, replace(allocation), now))
        except Exception:
            if known is None:
                self._allocations.pop(campaign_id, None)
            allocation.set(*before)
            raise
        allocation.updated_at = now
        self._watch.allocated(allocation, now)
        return allocation.view(now)

    async def budget(self, campaign_id: str, now: Instant | None = None) -> AllocationView | None:
        """A campaign's allocation; None when it has none. `now` adds what even pacing would have spent."""
        found = self._allocations.get(campaign_id)
        return None if found is None else found.view(now)

    async def check(
        self,
        campaign_id: str,
        amount_micros: int,
        platform: str,
        reserve: bool,
        now: Instant,
        *,
        basis: str = "not_personal",
        ltv_micros: int | None = None,
    ) -> CheckAnswer:
        """May a bid be placed on an allocated campaign? Reserves nothing unless asked to. Raises Denied NOT_FOUND."""
        self._allocated(campaign_id)
        reservation: str | None = None
        refusal: Denied | None = None
        connector = ""
        try:
            connector = self._connector_of(platform)
            self.check_worth(ltv_micros)
            if reserve:
                expires_at = Instant(now + self._reservation_span)
                permit = await self.place(
                    connector, campaign_id, amount_micros, now, basis=basis, expires_at=expires_at
                )
                reservation = permit.reservation_id
            else:
                self._peek(connector, campaign_id, amount_micros, now, basis)
        except Denied as denied:
            refusal = denied
        except Exception as error:
            refusal = _broken("check", error)
        binding = self.tightest(connector, campaign_id, now) if connector else None
        left = 0 if binding is None else max(0, binding.remaining_micros)
        if refusal is None:
            return CheckAnswer(True, None, left, reservation, bound=binding)
        bound = refusal.bound if isinstance(refusal, Exceeded) else binding
        return CheckAnswer(False, refusal.reason, left, detail=str(refusal), bound=bound)

    def check_worth(self, ltv_micros: int | None) -> None:
        """May a bid rest on this predicted value of a customer (None: on none)? Raises Denied COMPLIANCE."""
        least, most = self._worth
        if ltv_micros is None or least <= ltv_micros <= most:
            return
        self._checked("denied", Refusal.COMPLIANCE)
        low, high, found = (decimal_text(each, self._currency) for each in (least, most, ltv_micros))
        bounds = f"{low} to {high} {self._currency} (shield.min_ltv, shield.max_ltv)"
        raise Denied(Refusal.COMPLIANCE, f"a predicted value of {found} is outside {bounds}")

    async def spend(
        self, campaign_id: str, amount_micros: int | None, reservation_id: str | None, platform: str, now: Instant
    ) -> AllocationView:
        """Spend a reservation, or an amount at once if it is permitted. Raises Denied."""
        allocation = self._allocated(campaign_id)
        if (amount_micros is None) == (reservation_id is None):
            raise Denied(Refusal.BAD_INPUT, "either an amount or a reservation is spent")
        if reservation_id is not None:
            permit = self._placed.find(reservation_id)
            if permit.campaign_id != campaign_id:
                raise Denied(Refusal.CONFLICT, f"reservation {reservation_id} belongs to another campaign")
            if not self._drives(permit.connector, platform):
                held = f"reservation {reservation_id} is money of {permit.connector}, not of {platform[:60]}"
                raise Denied(Refusal.CONFLICT, held)
        else:
            permit = await self.place(self._connector_of(platform), campaign_id, amount_micros or 0, now)
        await self.commit(permit, now)
        return allocation.view(now)

    async def release_reservation(self, reservation_id: str, now: Instant) -> AllocationView | None:
        """Free a reservation. Raises Denied NOT_FOUND. The allocation afterwards, if the campaign has one."""
        permit = self._placed.find(reservation_id)
        await self.release(permit, now)
        return await self.budget(permit.campaign_id, now)

    # -- end -----------------------------------------------------------------------------------------------------

    async def close(self, now: Instant) -> None:
        """Write what is owed, and give back the part of each lease that no exposure needs."""
        written: list[asyncio.Future[None]] = []
        for book in self._levelled:
            needed = book.reported_micros + book.presumed_micros + book.exposure_micros
            written.append(self._pen.flush(book, now))
            written.append(self._pen.submit(partial(_write_last_lease, book.connector, book.day, needed)))
        await asyncio.gather(*written, return_exceptions=True)

    # -- within --------------------------------------------------------------------------------------------------

    def _peek(self, connector: str, campaign_id: str, amount_micros: int, now: Instant, basis: str) -> None:
        try:
            self._placed.peek(connector, campaign_id, amount_micros, now, basis)
        except Denied as denied:
            self._checked("denied", denied.reason)
            raise
        self._checked("allowed", "PERMITTED")

    def _drives(self, connector: str, platform: str) -> bool:
        """Whether a platform, or a connector by its id, names the one that an amount belongs to."""
        if platform == connector:
            return True
        try:
            return Platform.parse(platform).value == self._platforms.get(connector, connector)
        except ValueError as error:
            raise Denied(Refusal.UNKNOWN_CONNECTOR, str(error)) from error

    def _checked(self, outcome: str, reason: str) -> None:
        if self.on_check is not None:
            self.on_check(outcome, str(reason))

    def _stopped(self) -> Denied | None:
        if self._killed:
            return Denied(Refusal.KILL_SWITCH, f"the kill switch is on: {self.kill_reason}")
        held = self.hold_reason
        return None if held is None else Denied(Refusal.SAFE_HOLD, f"safe hold: {held}")

    def _known(self, connector: str) -> Book:
        book = self._books.get(connector)
        if book is None:
            raise Denied(Refusal.UNKNOWN_CONNECTOR, f"there is no connector {connector[:60]!r}")
        return book

    def _allocated(self, campaign_id: str) -> Allocation:
        allocation = self._allocations.get(campaign_id)
        if allocation is None:
            raise Denied(Refusal.NOT_FOUND, f"campaign {campaign_id[:64]!r} has no allocation")
        return allocation

    def _connector_of(self, platform: str) -> str:
        """A connector by its id, or the first one of a platform in any accepted spelling."""
        if platform in self.connectors:
            return platform
        try:
            wanted = Platform.parse(platform).value
        except ValueError as error:
            raise Denied(Refusal.UNKNOWN_CONNECTOR, str(error)) from error
        for connector in self.connectors:
            if self._platforms.get(connector) == wanted:
                return connector
        if wanted in self.connectors:
            return wanted
        raise Denied(Refusal.UNKNOWN_CONNECTOR, f"no connector drives {wanted}")


def _write_allocation(ledger: Ledger, allocation: Allocation, now: Instant, connection: sqlite3.Connection) -> None:
    journal.write_allocation(connection, ledger, allocation, now)


def _write_last_lease(connector: str, day: str, needed: int, connection: sqlite3.Connection) -> None:
    journal.write_last_lease(connection, connector, day, needed)


def _worth(settings: Settings) -> tuple[int, int]:
    """Least and most predicted value of a customer, in micros, that a bid by hand may rest on."""
    usual = ("10", "10000") if settings.currency == "USD" else (None, None)
    least = _optional_micros(settings.shield.min_ltv or usual[0])
    most = _optional_micros(settings.shield.max_ltv or usual[1])
    return least or 0, MAX_MICROS if most is None else most


def _optional_micros(cap: str | None) -> int | None:
    return None if cap is None else micros_from_text(cap)


def _broken(check: str, error: Exception) -> Denied:
    """A check that breaks says no."""
    _log.error("check_failed", f"The check {check} broke, so the answer is no", error=error)
    return Denied(Refusal.CHECK_FAILED, f"the check broke, so the answer is no: {type(error).__name__}")
