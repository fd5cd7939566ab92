"""Any order of bids, reports, ticks, changed caps, clock jumps and crashes against a model of plain lists (M1, M2)."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from kiki_agent.errors import Denied
from kiki_agent.ledger import Ledger
from kiki_agent.model import DAY, HOUR, MINUTE, SECOND, Instant, SpendReport, SpendRow, local_day
from kiki_agent.shield import Caps, LevelRequest, Permit, Shield
from kiki_agent.shield.window import LONG_STEP
from kiki_agent.store import Store
from tests.shield.conftest import NOON
from tests.shield.conftest import settings as agent_settings

T = TypeVar("T")
SPAN = 600 * SECOND
ZONE = "America/New_York"
moves = st.one_of(
    st.integers(0, 10), st.integers(0, 2 * SPAN), st.just(SPAN), st.integers(0, 30 * HOUR), st.integers(-HOUR, 0)
)


@dataclass(frozen=True)
class Counted:
    """A spend that the window counts."""

    since: int
    """From here it counts; where the clock jumped back over it, the instant it came back to."""
    made: int
    amount: int
    jumped: bool = False
    revived: bool = False


class Money(RuleBasedStateMachine):
    """The model keeps every spend in a list and adds everything up each time it is asked."""

    permits = Bundle("permits")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.now = NOON
        self.daily, self.window = 2_000, 600
        self.day = local_day(NOON, ZONE)
        self.placed: list[tuple[str, int]] = []
        self.in_window: list[Counted] = []
        self.left: list[Counted] = []
        """What a step forward freed that may have been a jump."""
        self.reserved: dict[str, int] = {}
        self.went_back = False
        self.open()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def open(self) -> None:
        async def begin() -> None:
            path = Path(self.folder.name)
            self.store = await Store.open(path / "agent.db", synchronous="OFF", readers=1, now=self.now)
            self.ledger = await Ledger.open(self.store, path / "head", client_id="demo", now=self.now)
            caps = {"meta": Caps(self.daily, self.window, ZONE)}
            self.shield = await Shield.open(self.store, self.ledger, agent_settings(), caps, self.now)

        self.run(begin())

    def teardown(self) -> None:
        verification = self.run(self.ledger.verify())
        self.run(self.store.close())
        self.loop.close()
        self.folder.cleanup()
        assert verification.ok

    # -- the model -----------------------------------------------------------------------------------------------

    def spent(self) -> int:
        return sum(amount for day, amount in self.placed if day == self.day)

    def windowed(self) -> int:
        return sum(each.amount for each in self.in_window)

    def held(self) -> int:
        return sum(self.reserved.values())

    def fits(self, amount: int) -> bool:
        over = self.spent() > self.daily or self.windowed() > self.window
        by_day = self.spent() + self.held() + amount <= self.daily
        by_window = self.windowed() + self.held() + amount <= self.window
        return not over and by_day and by_window

    # -- what happens --------------------------------------------------------------------------------------------

    @rule(by=moves)
    def time_passes(self, by: int) -> None:
        before, self.now = self.now, Instant(self.now + by)
        if self.now < before:
            self.went_back = True
            back, self.left = self.left, []
            for each in back:
                stays = self.now < each.made + SPAN
                (self.in_window if stays else self.left).append(
                    replace(each, since=each.made, jumped=True, revived=True) if stays else each
                )
            self.in_window = [
                replace(each, since=min(each.since, self.now), jumped=each.jumped or each.since > self.now)
                for each in self.in_window
            ]
        long_step = by > SPAN // LONG_STEP
        for each in list(self.in_window):
            if self.now < each.since + SPAN:
                continue
            self.in_window.remove(each)
            if each.jumped and each.made <= self.now < each.made + SPAN:
                self.in_window.append(replace(each, since=each.made))
            elif each.jumped or long_step:
                self.left.append(each)
        self.day = max(self.day, local_day(self.now, ZONE))
        self.shield.status("meta", self.now)

    @rule(target=permits, amounts=st.lists(st.one_of(st.integers(1, 700), st.integers(1, 60)), min_size=1, max_size=12))
    def bids_at_once(self, amounts: list[int]) -> Any:
        async def bid(amount: int) -> Permit | str:
            try:
                return await self.shield.place("meta", "c1", amount, self.now)
            except Denied as denied:
                return denied.reason

        async def together() -> list[Permit | str]:
            return list(await asyncio.gather(*(bid(amount) for amount in amounts)))

        permitted = []
        for amount, answer in zip(amounts, self.run(together()), strict=True):
            assert isinstance(answer, Permit) == self.fits(amount), (amount, answer)
            if isinstance(answer, Permit):
                self.reserved[answer.reservation_id] = amount
                permitted.append(answer)
        return permitted

    @rule(permitted=consumes(permits), share=st.sampled_from([None, 0, 50, 100, 100, 100, 130]))
    def bids_end(self, permitted: list[Permit], share: int | None) -> None:
        for permit in permitted:
            del self.reserved[permit.reservation_id]
            if share is None:
                self.run(self.shield.release(permit, self.now))
                continue
            cost = permit.amount_micros * share // 100
            self.run(self.shield.commit(permit, self.now, spent_micros=cost))
            if cost:
                self.placed.append((self.day, cost))
                self.in_window.append(Counted(self.now, self.now, cost))

    @rule(daily=st.integers(0, 3_000), window=st.integers(0, 1_000))
    def caps_change(self, daily: int, window: int) -> None:
        self.daily, self.window = daily, window
        self.run(self.shield.set_caps("meta", Caps(daily, window), self.now))

    @rule()
    def crash(self) -> None:
        self.run(self.store.close())
        self.open()
        if self.went_back:  # written times are those of the clock before the jump, so records may count for longer
            window = self.shield._books["meta"].window
            # what a step forward freed may have left the database with it
            assert window.total >= self.windowed() - sum(each.amount for each in self.in_window if each.revived)
            jumped = {(since, amount) for since, _, amount in window._stranded}
            self.in_window = [Counted(at, at, amount) for at, amount in window.records() if (at, amount) not in jumped]
            self.in_window += [Counted(since, made, amount, True) for since, made, amount in window._stranded]
        self.left = []

    @invariant()
    def shield_and_model_agree(self) -> None:
        stats = self.shield.status("meta", self.now)
        assert stats.day == self.day
        assert stats.spent_today_micros == self.spent()
        assert stats.current_spend_micros == self.windowed()
        assert stats.reserved_micros == self.held()
        assert stats.overshoot_micros == max(0, self.spent() - self.daily, self.windowed() - self.window)


class Levels(RuleBasedStateMachine):
    """A platform that spends what it may, or more, and reports late; crashes in between. What is permitted stays below
    the cap of every day, by the truth of the platform and not by the books of the shield."""

    CAP = 50_000_000

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.now = NOON
        self.truth = 0
        self.reported = 0
        self.excess = 0
        self.exposed = 0
        self.told = False
        self.open()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    open = Money.open
    teardown = Money.teardown
    daily = CAP
    window = CAP

    @rule(campaigns=st.integers(0, 30), rate=st.integers(0, 200_000), seconds=st.integers(1, 60))
    def tick(self, campaigns: int, rate: int, seconds: int) -> None:
        self.now = Instant(min(self.now + seconds * SECOND, NOON + 8 * HOUR))

        def column(value: int) -> Any:
            return np.full(campaigns, value, dtype=np.int64)

        request = LevelRequest(
            connector=column(0),
            wanted_bid=column(1_000_000),
            min_bid=column(10_000),
            daily_budget=column(10 * self.CAP),
            spend_today=column(0),
            spend_rate=column(rate),
            data_age=column(MINUTE),
            active=np.ones(campaigns, dtype=np.uint8),
        )
        answer = self.run(self.shield.permit_levels(self.now, request))
        self.exposed = int(answer.exposure_micros.sum())
        assert self.exposed == self.shield.status("meta", self.now).exposure_micros
        assert self.truth - self.excess + self.exposed <= self.CAP or self.exposed == 0

    @precondition(lambda self: self.exposed > 0)
    @rule(share=st.integers(0, 100))
    def platform_spends_and_reports(self, share: int) -> None:
        self.truth += self.exposed * share // 100
        self.report()

    @precondition(lambda self: self.exposed > 0)
    @rule(share=st.integers(0, 100))
    def platform_spends_and_the_agent_dies(self, share: int) -> None:
        self.truth += self.exposed * share // 100
        self.exposed = 0
        self.run(self.store.close())
        self.open()

    @rule(more=st.integers(1, 30_000_000))
    def platform_overspends_and_reports(self, more: int) -> None:
        self.truth += more
        self.excess += more
        self.report()
        if self.truth > self.CAP:
            assert self.shield.status("meta", self.now).overshoot_micros >= self.truth - self.CAP

    @rule()
    def report(self) -> None:
        row = SpendRow("c1", "2026-03-10", self.truth)
        self.run(self.shield.book("meta", SpendReport((row,), self.now), self.now))
        self.reported, self.exposed = self.truth, 0
        assert self.shield.status("meta", self.now).spent_today_micros == self.truth

    @invariant()
    def only_what_the_platform_took_unasked_is_above_the_cap(self) -> None:
        assert self.truth - self.excess <= self.CAP
        assert self.now < NOON + DAY // 2


Money.TestCase.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
Levels.TestCase.settings = Money.TestCase.settings
TestMoney = Money.TestCase
TestLevels = Levels.TestCase
