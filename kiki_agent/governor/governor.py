"""The governor: the one place that says whether a sound change is made now, suggested to people, or left alone."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction
from functools import partial

from kiki_agent.accounts import LEVER_OF, Accounts, Lever, OutsideEdit, entity_of, value_of
from kiki_agent.config import Mode, Settings
from kiki_agent.errors import Denied
from kiki_agent.governor import checks, holds, outside
from kiki_agent.governor.approval import check_small_steps
from kiki_agent.governor.authors import Authors
from kiki_agent.governor.changes import entity_of_intent
from kiki_agent.governor.checks import Limits
from kiki_agent.governor.desk import Desk
from kiki_agent.governor.edits import Edits
from kiki_agent.governor.holds import Hold, Holds
from kiki_agent.governor.levels import Level, Standing, read_levels, write_level
from kiki_agent.governor.noise import check_noise
from kiki_agent.governor.reach import Reach
from kiki_agent.governor.reasons import TO_PEOPLE, Held, is_safety_cut
from kiki_agent.governor.rules import rule_of
from kiki_agent.ledger import Ledger, Outbox
from kiki_agent.model import SECOND, Campaign, Instant, Intent, IntentKind, Outcome, Platform, Receipt, micros_from_text
from kiki_agent.runtime.log import get_logger
from kiki_agent.runtime.metrics import Metrics
from kiki_agent.runtime.signals import Signals
from kiki_agent.shield import Shield
from kiki_agent.store import Store

_log = get_logger("governor")
NoiseTest = Callable[[Intent, Instant], bool]


class Governor:
    """Act, suggest, or leave alone.

    Every check is made on the event loop, over facts in memory. A check that breaks says no. Safety cuts pass all of
    them but the level `watch`; raises pass none unasked.
    """

    def __init__(
        self,
        settings: Settings,
        platforms: Mapping[str, Platform],
        *,
        store: Store,
        ledger: Ledger,
        outbox: Outbox,
        accounts: Accounts,
        shield: Shield,
        signals: Signals,
        metrics: Metrics,
    ) -> None:
        options = settings.governor
        self._platforms = dict(platforms)
        self._rules = {connector: rule_of(platform) for connector, platform in platforms.items()}
        self._store = store
        self._currency = settings.currency
        self._ledger = ledger
        self._outbox = outbox
        self._accounts = accounts
        self._shield = shield
        self._signals = signals
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._hold_span = round(options.outside_hold_s * SECOND)
        self._limits = Limits(
            max_step=Fraction(str(options.max_step)),
            rest=round(options.budget_rest_s * SECOND),
            learning_step=Fraction(str(options.learning_step)),
            fresh=round(options.fresh_s * SECOND),
            approval_above=None if options.approval_above is None else micros_from_text(options.approval_above),
        )
        self.limit_permille = max(1, round(options.limit * 1_000))
        """Limit of a connector that is set to `act_limited` without one of its own."""
        self._first = Level.WATCH if settings.mode is Mode.LIVE else Level.ACT
        self._set: dict[str, Standing] = {}
        self.holds = Holds()
        self.authors = Authors(store, ledger)
        self.edits = Edits()
        self._noise_z = options.noise_z
        self._lookback = timedelta(days=settings.optimizer.lookback_days - 1)
        self.noise_tests: list[NoiseTest] = []
        """Of those who build on the agent, beside `governor.noise_z`: each says whether the effect of a change is above
        the noise; False holds it back."""
        self.reach = Reach(self, accounts, settings.mode)
        self.desk = Desk(self, settings, store, ledger, outbox, accounts, shield, signals)
        outbox.gate = self.gate
        outbox.on_sent = self._sent
        outbox.confirm_handlers.append(self._confirmed)
        accounts.levers.unsettled = self._unsettled
        accounts.on_outside = self.take_outside

    @classmethod
    async def open(
        cls,
        settings: Settings,
        platforms: Mapping[str, Platform],
        *,
        store: Store,
        ledger: Ledger,
        outbox: Outbox,
        accounts: Accounts,
        shield: Shield,
        signals: Signals,
        metrics: Metrics,
        now: Instant,
    ) -> Governor:
        """Know again levels, holds, edits, suggestions and orders of the last agent on this database."""
        self = cls(
            settings,
            platforms,
            store=store,
            ledger=ledger,
            outbox=outbox,
            accounts=accounts,
            shield=shield,
            signals=signals,
            metrics=metrics,
        )
        self._set = await store.read(read_levels)
        for hold in await store.read(holds.read_holds):
            self.holds.put(hold)
        for at, intent, state in await store.read(partial(self.edits.restore, now=now)):
            if state != "rejected":
                self.edits.sent(intent, entity_of_intent(intent), at)
            if state == "accepted":
                self.edits.settled(intent, entity_of_intent(intent), accepted=True)
        await self.desk.load(now)
        return self

    @property
    def connectors(self) -> list[str]:
        """All connectors, in the order of the configuration."""
        return list(self._platforms)

    # -- the ladder ----------------------------------------------------------------------------------------------

    def standing(self, connector: str) -> Standing:
        """The level of a connector; as shipped where nobody set it: `watch` in live mode, `act` elsewhere."""
        found = self._set.get(connector)
        return found or Standing(self._first, self.limit_permille, "default", "as shipped", Instant(0))

    async def set_level(
        self, connector: str, level: Level, by: str, reason: str, now: Instant, *, limit_permille: int | None = None
    ) -> Standing:
        """Set how far the agent may act: less at once, more when it is durable. Raises Denied NOT_FOUND."""
        self._known(connector)
        before = self.standing(connector)
        after = Standing(level, limit_permille or self.limit_permille, by, reason, now)
        if level.rank < before.level.rank:
            self._set[connector] = after
        await self._store.write(
            lambda connection: write_level(connection, self._ledger, connector, before.level, after)
        )
        self._set[connector] = after
        _log.info("autonomy", f"{connector}: {level.value}", connector=connector, level=level.value, by=by)
        return after

    async def breach(self, connector: str, reason: str, now: Instant) -> None:
        """Something went wrong at a platform: from now on the agent only suggests there, and people are told."""
        if self.standing(connector).level.rank > Level.SUGGEST.rank:
            await self.set_level(connector, Level.SUGGEST, "agent", reason, now)
            self.tell("CRITICAL", f"{connector}: the agent only suggests from now on", reason, connector)

    def frozen(self, connector: str) -> str | None:
        """Why a connector may spend nothing until a person thaws it, or None."""
        return self._shield.frozen(connector)

    async def thaw(self, connector: str, reason: str, now: Instant) -> None:
        """Let a frozen connector spend again; its level stays where the anomaly put it. Raises Denied."""
        if self._shield.frozen(connector) is None:
            raise Denied("CONFLICT", f"{connector} is not frozen")
        await self._shield.freeze(connector, None, now, reason)
        self.tell("INFO", f"{connector} may spend again", reason or "thawed by a person", connector)

    # -- checks --------------------------------------------------------------------------------------------------

    def may_change(self, intent: Intent, now: Instant) -> None:
        """Let a change of budget, bid or status out now, or raise Denied."""
        self.may_change_all([intent], now)

    def may_change_all(self, intents: Sequence[Intent], now: Instant) -> None:
        """Let changes that belong together out now, or raise Denied for all of them."""
        try:
            for intent in intents:
                self._check(intent, now)
            if intents:
                self._check_together(intents, now)
        except Denied:
            raise
        except Exception as error:
            _log.error("check_failed", "A check of the governor broke, so the answer is no", error=error)
            raise Denied(Held.CHECK_FAILED, f"the check broke, so the answer is no: {type(error).__name__}") from error

    def _check(self, intent: Intent, now: Instant) -> None:
        self._shield.may_change(intent, now)
        level = self.standing(intent.connector).level
        if level is Level.WATCH:
            raise Denied(Held.WATCH, f"{intent.connector} is only watched: nothing is changed there")
        if is_safety_cut(intent):
            return
        asked = self.desk.asked_for(intent)
        if not asked:
            self._check_hold(intent)
        if level is Level.SUGGEST and not (asked or self._finishes(intent) or intent.kind is IntentKind.PLACE_BID):
            raise Denied(Held.SUGGEST, f"{intent.connector}: changes there are suggested to people")
        if intent.kind is IntentKind.PLACE_BID:
            return
        row = self._accounts.table.index.get((intent.connector, intent.campaign_id))
        if row is None:
            raise Denied(Held.MOVED, f"{intent.connector} does not list {intent.campaign_id} any more")
        campaign = self._accounts.table.rows[row]
        if intent.kind is not IntentKind.SET_STATUS:
            self._check_amount(intent, campaign, now, asked=asked)
        if not asked and not all(passes(intent, now) for passes in self.noise_tests):
            raise Denied(Held.NOISE, f"{intent.connector}/{intent.campaign_id}: the effect is not above the noise")

    def _check_hold(self, intent: Intent) -> None:
        hold = self.holds.find((intent.connector, entity_of_intent(intent), LEVER_OF[intent.kind]))
        if hold is None or intent.after == hold.value:  # what was cut below it is given back
            return
        code = Held.PINNED if hold.source == "pinned" else Held.OUTSIDE_EDIT
        raise Denied(code, f"{intent.connector}/{intent.campaign_id}: {hold.lever.value} was set by somebody else")

    def _check_amount(self, intent: Intent, campaign: Campaign, now: Instant, *, asked: bool) -> None:
        rule, limits = self._rules[intent.connector], self._limits
        if intent.raises_spend:
            checks.check_fresh(intent, self._accounts.standstill(intent.connector, now), limits)
        if intent.kind is IntentKind.SET_BUDGET:
            if value_of(campaign, Lever.BUDGET) != intent.before:
                raise Denied(Held.MOVED, f"{intent.connector}/{intent.campaign_id}: the budget has moved")
            edits = self.edits.of(intent.connector, entity_of_intent(intent), Lever.BUDGET, 0)
            checks.check_quota(intent, rule, edits)
            if not asked:
                checks.check_step(intent, campaign, rule, limits)
                checks.check_rest(intent, campaign, rule, limits, edits)
        if not asked:
            checks.check_learning(intent, campaign, limits)

    def _check_together(self, intents: Sequence[Intent], now: Instant) -> None:
        """What holds for changes as a whole: approval, and the net change of 24 hours."""
        if all(is_safety_cut(each) or self.desk.asked_for(each) for each in intents):
            return
        if not all(self._finishes(each) for each in intents):
            checks.check_approval(intents, self._limits)
            check_small_steps(intents, self.edits, self.desk.asked_causes, self._limits.approval_above, now)
            self._check_noise(intents)
        for connector in sorted({each.connector for each in intents}):
            standing = self.standing(connector)
            if standing.level is Level.ACT_LIMITED:
                mine = [each for each in intents if each.connector == connector and not is_safety_cut(each)]
                self._check_net(connector, mine, standing.limit_permille, now)

    def _check_noise(self, intents: Sequence[Intent]) -> None:
        if self._noise_z <= 0:
            return
        deltas: dict[str, int] = {}
        for each in intents:
            if each.kind is IntentKind.SET_BUDGET:
                deltas[each.connector] = deltas.get(each.connector, 0) + each.after - each.before
        for connector, delta in deltas.items():
            today = self._accounts.day(connector)
            conversions = 0.0
            if today:
                first = (date.fromisoformat(today) - self._lookback).isoformat()
                conversions = self._accounts.totals(connector, first, today).conversions
            check_noise(connector, delta, self._accounts.budget_micros(connector), conversions, self._noise_z)

    def _check_net(self, connector: str, intents: Sequence[Intent], permille: int, now: Instant) -> None:
        since = checks.since(now)
        delta = sum(each.after - each.before for each in intents if each.kind is IntentKind.SET_BUDGET)
        if delta:
            stands = self._accounts.budget_micros(connector)
            net = self.edits.net(connector, Lever.BUDGET, since)
            checks.check_net(stands, net, delta, permille, f"budgets of {connector}")
        for each in intents:
            if each.kind is IntentKind.ADJUST_BID:
                edits = self.edits.of(connector, each.campaign_id, Lever.BID, since)
                net = sum(edit.after - edit.before for edit in edits)
                what = f"bid of {connector}/{each.campaign_id}"
                checks.check_net(each.before, net, each.after - each.before, permille, what)

    def fitted(self, intent: Intent, now: Instant) -> Intent:
        """A bid as far as the limit of `act_limited` lets it go; everything else as it is."""
        standing = self.standing(intent.connector)
        if standing.level is not Level.ACT_LIMITED or intent.kind is not IntentKind.ADJUST_BID or is_safety_cut(intent):
            return intent
        row = self._accounts.table.index.get((intent.connector, intent.campaign_id))
        if row is None:
            return intent
        edits = self.edits.of(intent.connector, intent.campaign_id, Lever.BID, checks.since(now))
        net = sum(edit.after - edit.before for edit in edits)
        after = checks.within(intent.before - net, intent.after, standing.limit_permille)
        step = self._accounts.table.rows[row].bid_step_micros
        after = -(-after // step) * step if intent.after < intent.before else after // step * step
        return replace(intent, after=max(after, 1))

    def _finishes(self, intent: Intent) -> bool:
        """Whether a raise only gives what its own cause has taken."""
        return bool(intent.cause) and 0 < intent.after - intent.before <= self.edits.covered(intent.cause)

    def gate(self, now: Instant, intents: Sequence[Intent]) -> dict[str, str]:
        """The last word before the journal: level and sum of budgets, whoever sends (M4)."""
        refused: dict[str, str] = {}
        raised: dict[str, int] = {}
        for intent in intents:
            level = self.standing(intent.connector).level
            if level is Level.WATCH:
                refused[intent.key] = Held.WATCH.value
                continue
            if is_safety_cut(intent) or intent.kind is IntentKind.PLACE_BID:
                continue
            asked = self.desk.asked_for(intent)
            if level is Level.SUGGEST and not (asked or self._finishes(intent)):
                refused[intent.key] = Held.SUGGEST.value
            elif (
                intent.kind is IntentKind.SET_BUDGET and intent.after > intent.before and not self.desk.ordered(intent)
            ):
                wanted = raised.get(intent.cause, 0) + intent.after - intent.before
                if not intent.cause or wanted > self.edits.covered(intent.cause):
                    refused[intent.key] = Held.SUM.value
                    _log.error("uncovered_raise", "A raise of budget is not covered by what was taken", key=intent.key)
                else:
                    raised[intent.cause] = wanted
        for reason in refused.values():
            self._count(intents[0].connector, "denied", reason)
        return refused

    def denied(self, intents: Sequence[Intent], reason: str, why: str, now: Instant, *, facts: str = "{}") -> None:
        """Changes that were held back: suggested where people decide, else noted as what would have been done."""
        if not intents:
            return
        self._count(intents[0].connector, "denied", reason)
        if reason in TO_PEOPLE:
            self.desk.suggest(intents, reason, why, now, facts=facts)
        elif reason == Held.WATCH:
            self.desk.would_have(intents, reason, now)

    # -- levers of others ----------------------------------------------------------------------------------------

    def take_outside(self, edits: Sequence[OutsideEdit], now: Instant) -> None:
        """Changes others made: on record, told, and left alone for a while."""
        made = []
        for edit in edits:
            standing = self.holds.find((edit.connector, edit.entity, edit.lever))
            pinned = standing is not None and standing.source == "pinned"
            hold = Hold(
                edit.connector,
                edit.entity,
                edit.lever,
                edit.campaign_id,
                edit.after,
                "pinned" if pinned else "outside",
                now,
                None if pinned else Instant(now + self._hold_span),
            )
            self.holds.put(hold)
            made.append(hold)
            self._metrics.outside_edits(self._platforms[edit.connector].value, edit.lever.value).inc()
        self._store.submit(lambda connection: outside.write_edits(connection, self._ledger, edits, made))
        self.authors.add(edits)
        cap = self._shield.daily_cap(edits[0].connector)
        self.tell(*outside.news_of(edits, self._currency, cap, self._limits.max_step), edits[0].connector)
        self._signals.publish("external", {"at": now, "connector": edits[0].connector, "edits": len(edits)})

    def left_alone(self, campaign: Campaign, lever: Lever) -> Hold | None:
        """The hold on a campaign's lever, if somebody else set it."""
        return self.holds.find((campaign.connector, entity_of(campaign, lever), lever))

    async def pin(self, connector: str, campaign_id: str, lever: Lever, by: str, now: Instant) -> Hold:
        """Leave a lever as it stands until it is unpinned. Raises Denied NOT_FOUND."""
        campaign = self._campaign(connector, campaign_id)
        hold = Hold(
            connector, entity_of(campaign, lever), lever, campaign_id, value_of(campaign, lever), "pinned", now, None
        )
        self.holds.put(hold)
        await self._store.write(lambda connection: outside.write_pin(connection, self._ledger, hold, by, now))
        return hold

    async def unpin(self, connector: str, campaign_id: str, lever: Lever, by: str, now: Instant) -> Hold:
        """Let the agent set a lever again, whoever set it last. Raises Denied NOT_FOUND."""
        campaign = self._campaign(connector, campaign_id)
        key = (connector, entity_of(campaign, lever), lever)
        hold = self.holds.find(key)
        if hold is None:
            raise Denied("NOT_FOUND", f"{lever.value} of {connector}/{campaign_id} is not left alone")
        await self._store.write(lambda connection: outside.write_unpin(connection, self._ledger, hold, by, now))
        self.holds.drop(key)
        return hold

    def end_holds(self, now: Instant) -> int:
        """End the holds whose time is over; how many."""
        due = self.holds.due(now)
        for hold in due:
            self.holds.drop(hold.key)
            self._store.submit(partial(outside.write_unpin, ledger=self._ledger, hold=hold, by="agent", now=now))
        return len(due)

    # -- what is told --------------------------------------------------------------------------------------------

    def tell(self, severity: str, title: str, message: str, subject: str) -> None:
        """Tell people."""
        self._signals.publish("news", {"severity": severity, "title": title, "message": message, "subject": subject})

    # -- within --------------------------------------------------------------------------------------------------

    def _sent(self, now: Instant, intents: Sequence[Intent]) -> None:
        for intent in intents:
            self.edits.sent(intent, entity_of_intent(intent), now)
            self._count(intent.connector, "allowed", "PERMITTED")

    def _confirmed(self, connection: sqlite3.Connection, intent: Intent, receipt: Receipt) -> None:
        if receipt.outcome is not Outcome.UNKNOWN:
            self._loop.call_soon_threadsafe(self._settled, intent, receipt.outcome is Outcome.ACCEPTED)

    def _unsettled(self, campaign: Campaign, lever: Lever) -> bool:
        if self._outbox.unsettled(campaign.connector, campaign.campaign_id):
            return True
        shared = lever is Lever.BUDGET and campaign.budget_id
        return bool(shared) and self._outbox.unsettled_budget(campaign.connector, campaign.budget_id)

    def _settled(self, intent: Intent, accepted: bool) -> None:
        self.edits.settled(intent, entity_of_intent(intent), accepted=accepted)

    def _count(self, connector: str, outcome: str, reason: str) -> None:
        platform = self._platforms.get(connector)
        if platform is not None:
            self._metrics.changes(platform.value, outcome, str(reason)).inc()

    def _known(self, connector: str) -> None:
        if connector not in self._platforms:
            raise Denied("NOT_FOUND", f"there is no connector {connector[:60]!r}")

    def _campaign(self, connector: str, campaign_id: str) -> Campaign:
        self._known(connector)
        row = self._accounts.table.index.get((connector, campaign_id))
        if row is None:
            raise Denied("NOT_FOUND", f"{connector} has no campaign {campaign_id[:64]!r}")
        return self._accounts.table.rows[row]
