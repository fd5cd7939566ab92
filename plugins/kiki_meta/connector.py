"""One Meta ad account."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from kiki_agent import AccountEdit, Capabilities, Conversion, PluginContext, hookimpl
from kiki_agent.errors import (
    AuthExpired,
    Outdated,
    PluginError,
    RateLimited,
    Rejected,
    Temporary,
    UnknownOutcome,
    Unsupported,
)
from kiki_agent.model import (
    DAY,
    SECOND,
    Campaign,
    DayWindow,
    Instant,
    Intent,
    Outcome,
    PerformanceReport,
    Receipt,
    SpendReport,
    local_day,
)
from kiki_meta import mapping
from kiki_meta.client import MAX_BATCH, Change, MetaClient
from kiki_meta.config import SUNSETS, MetaConfig
from kiki_meta.history import ACTIVITY_FIELDS, SKEW, Activities, Edit, edits_of, settled, told
from kiki_meta.levers import change_of, in_force
from kiki_meta.mapping import Account, AccountNode, AdSets, Campaigns, Insight
from kiki_meta.reports import Reports
from kiki_meta.uploads import Received, events_body, judged

MOST_PAGES = 500

PageT = TypeVar("PageT", Campaigns, AdSets, Activities)


class MetaConnector:
    """Reads with cursors, changes one node at a time with absolute values."""

    def __init__(self, context: PluginContext[MetaConfig]) -> None:
        self._context = context
        self._config = context.config
        self._client = MetaClient(context)
        self._act = f"act_{self._config.account}"
        self._reports = Reports(context, self._client, self._act)
        self._stated: Capabilities | None = None
        self._least_budget = 0
        self._account: Account | None = None

    @hookimpl
    async def check(self) -> None:
        """Token, version and account in one read."""
        await self.capabilities()

    @hookimpl
    async def capabilities(self) -> Capabilities:
        """Currency and time zone as the account has them."""
        node = await self._client.read(self._act, AccountNode, fields=mapping.ACCOUNT_FIELDS)
        if not re.fullmatch("[A-Z]{3}", node.currency) or not _is_zone(node.timezone_name):
            raise Temporary("the answer of Meta is garbled: no currency or time zone in it")
        self._least_budget = mapping.micros_of_minor(node.min_daily_budget, node.currency, "a minimum budget")
        version = self._config.api_version
        self._stated = Capabilities(
            currency=node.currency,
            timezone=node.timezone_name,
            batch_size=MAX_BATCH,
            keeps_keys=False,
            validates=True,
            api_version=version,
            sunset=SUNSETS.get(version, ""),
        )
        return self._stated

    @hookimpl
    async def fetch_campaigns(self) -> Sequence[Campaign]:
        """All ad sets that are not archived, with the budget they spend from."""
        return (await self._read_account()).campaigns

    @hookimpl
    async def fetch_performance(self, window: DayWindow, cursor: str | None) -> PerformanceReport:
        """One page of days; conversions stand at the day of the click or view they are attributed to."""
        page, following = await self._reports.performance(window, cursor or "")
        rows = mapping.performance_rows(page.data, self._config.purchase_action, window.first_day, window.last_day)
        self._skipped(len(page.data) - len(rows))
        now = self._context.clock.now()
        zone = (await self._facts()).timezone
        final_before = local_day(now - self._config.restated_days * DAY, zone)
        return PerformanceReport(tuple(rows), self._as_of(now), final_before, following or None)

    @hookimpl
    async def fetch_spend(self, since: Instant) -> SpendReport:
        """Spend per ad set and account day."""
        zone = (await self._facts()).timezone
        now = self._context.clock.now()
        first_day, last_day = local_day(since, zone), local_day(now, zone)
        rows: list[Insight] = []
        after = ""
        for _ in range(MOST_PAGES):
            page = await self._reports.page(mapping.SPEND_FIELDS, first_day, last_day, after)
            rows += page.data
            following = page.paging.cursor
            if not following:
                return SpendReport(tuple(mapping.spend_rows(rows, first_day, last_day)), self._as_of(now))
            if following == after:
                break
            after = following
        raise Temporary("the answer of Meta is garbled: its pages do not end")

    @hookimpl
    async def set_budget(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """Daily budgets, at the ad set or at the campaign that holds it."""
        return await self._change(intents)

    @hookimpl
    async def adjust_bid(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """The bid cap of ad sets."""
        return await self._change(intents)

    @hookimpl
    async def place_bid(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """The bid level for one customer's worth, with value as the goal."""
        return await self._change(intents)

    @hookimpl
    async def set_status(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """Pause or activate ad sets."""
        return await self._change(intents)

    @hookimpl
    async def reconcile(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """Meta keeps no key of ours: what is in force tells whether a change was made, else the account's history."""
        account = await self._read_account()
        campaigns = {each.campaign_id: each for each in account.campaigns}
        now = self._context.clock.now()
        receipts: list[Receipt | None] = []
        for intent in intents:
            campaign = campaigns.get(intent.campaign_id)
            if campaign is None:
                receipts.append(Receipt(intent.key, Outcome.REJECTED, "UNKNOWN_CAMPAIGN"))
                continue
            value, wanted = in_force(intent, campaign, account.places[intent.campaign_id])
            if value == wanted:
                receipts.append(Receipt(intent.key, Outcome.ACCEPTED, "IN_FORCE"))
            elif value == intent.before:
                receipts.append(Receipt(intent.key, Outcome.REJECTED, "NOT_APPLIED"))
            else:
                receipts.append(None)
        if None not in receipts:
            return [each for each in receipts if each is not None]
        open_since = min(intent.at for intent, each in zip(intents, receipts, strict=True) if each is None)
        edits = await self._edits_if_told(Instant(open_since - SKEW))
        return [
            each if each is not None else self._from_history(intent, campaigns[intent.campaign_id], edits, now)
            for intent, each in zip(intents, receipts, strict=True)
        ]

    @hookimpl
    async def upload_conversions(self, conversions: Sequence[Conversion]) -> Sequence[Receipt]:
        """Values of customers for the clicks that brought them; Meta drops a second event with the same id."""
        now = self._context.clock.now()
        refused, sendable = judged(conversions, now)
        answers: dict[str, Receipt] = {each.key: each for each in refused}
        if sendable:
            body = events_body(self._config, sendable, now)
            keys = tuple(each.key for each in sendable)
            try:
                answer = await self._client.post_json(f"{self._config.pixel_id}/events", body, Received)
            except UnknownOutcome as error:
                raise UnknownOutcome(str(error), keys) from None
            whole = answer.events_received == len(sendable)
            for key in keys:
                answers[key] = (
                    Receipt(key, Outcome.ACCEPTED, vendor_ref=answer.fbtrace_id)
                    if whole
                    else Receipt(key, Outcome.UNKNOWN, "PARTLY_RECEIVED")
                )
        return [answers[each.key] for each in conversions]

    @hookimpl
    async def close(self) -> None:
        """Nothing to let go of: connections belong to the context."""

    @hookimpl
    async def fetch_edits(self, since: Instant) -> Sequence[AccountEdit]:
        """Edits of budgets, bids and states since an instant, whoever made them, newest first."""
        account = self._account or await self._read_account()
        return told(await self.changes(since), account.places)

    # -- reading --------------------------------------------------------------------------------------------------

    async def changes(self, since: Instant) -> Sequence[Edit]:
        """The same in Meta's words, with ids of who it was."""
        currency = (await self._facts()).currency
        pages = await self._pages("activities", Activities, ACTIVITY_FIELDS, since=str(since // SECOND))
        return edits_of([each for page in pages for each in page.data], currency)

    async def _facts(self) -> Capabilities:
        return self._stated if self._stated is not None else await self.capabilities()

    def _as_of(self, now: Instant) -> Instant:
        return Instant(now - round(self._config.data_age_s * SECOND))

    def _skipped(self, rows: int) -> None:
        if rows:
            self._context.metrics.count("rows_skipped", rows)
            self._context.log.warning("rows_skipped", f"{rows} rows of a report of Meta make no sense", rows=rows)

    async def _read_account(self) -> Account:
        currency = (await self._facts()).currency
        campaigns = [
            node for page in await self._pages("campaigns", Campaigns, mapping.CAMPAIGN_FIELDS) for node in page.data
        ]
        ad_sets = [node for page in await self._pages("adsets", AdSets, mapping.AD_SET_FIELDS) for node in page.data]
        context = self._context
        self._account = mapping.account_of(
            campaigns, ad_sets, self._least_budget, context.instance_id, context.platform, currency
        )
        return self._account

    async def _pages(self, edge: str, shape: type[PageT], fields: str, **params: str) -> list[PageT]:
        """All pages of an edge of the account. Raises Temporary when they do not end."""
        pages: list[PageT] = []
        params |= {"fields": fields, "limit": str(self._config.page_size)}
        for _ in range(MOST_PAGES):
            page = await self._client.read(f"{self._act}/{edge}", shape, **params)
            pages.append(page)
            following = page.paging.cursor
            if not following:
                return pages
            if following == params.get("after"):
                break
            params["after"] = following
        raise Temporary("the answer of Meta is garbled: its pages do not end")

    async def _edits_if_told(self, since: Instant) -> Sequence[Edit] | None:
        """The history, or None where it cannot be read: the question stays open then."""
        try:
            return await self.changes(since)
        except PluginError as error:
            self._context.log.warning("history_unread", f"the account's history could not be read: {error}")
            return None

    def _from_history(self, intent: Intent, campaign: Campaign, edits: Sequence[Edit] | None, now: Instant) -> Receipt:
        assert self._account is not None
        place = self._account.places[intent.campaign_id]
        return settled(intent, in_force(intent, campaign, place)[1], (place.ad_set, place.budget), edits, now)

    # -- changing -------------------------------------------------------------------------------------------------

    async def _change(self, intents: Sequence[Intent]) -> list[Receipt]:
        """One request for one intent, batches for more; when Meta asks for patience the rest is not sent."""
        account = self._account or await self._read_unsent()
        currency = (await self._facts()).currency
        answers: dict[str, Receipt] = {}
        waiting: list[tuple[Intent, Change]] = []
        for intent in intents:
            place = account.places.get(intent.campaign_id)
            try:
                if place is None:
                    raise Rejected(f"there is no ad set {intent.campaign_id[:40]}", "UNKNOWN_CAMPAIGN")
                waiting.append((intent, change_of(intent, place, currency)))
            except Rejected as error:
                if len(intents) == 1:
                    raise
                answers[intent.key] = Receipt(intent.key, Outcome.REJECTED, error.reason)
        if len(intents) == 1:
            await self._client.write(*waiting[0][1])
            return [Receipt(intents[0].key, Outcome.ACCEPTED)]
        stopped, first = "", True
        while waiting:
            batch, waiting = _batch(waiting)
            problems: Sequence[PluginError | None]
            if stopped:
                problems = [Rejected("not sent", stopped)] * len(batch)
            else:
                try:
                    problems = await self._client.write_many([change for _, change in batch])
                except PluginError as error:
                    if first and isinstance(error, RateLimited | AuthExpired | Outdated):
                        raise  # nothing was done at all
                    problems = [error] * len(batch)
            first = False
            for (intent, _), problem in zip(batch, problems, strict=True):
                outcome, reason = _meaning(problem)
                answers[intent.key] = Receipt(intent.key, outcome, reason)
                if isinstance(problem, RateLimited | AuthExpired):
                    stopped = reason
        return [answers[each.key] for each in intents]

    async def _read_unsent(self) -> Account:
        """Where the levers are, for a change right after a start; a failure here means that nothing was sent."""
        try:
            return await self._read_account()
        except (RateLimited, AuthExpired):
            raise
        except PluginError as error:
            raise Rejected(str(error), "NOT_SENT") from None


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return bool(name)


def _batch(waiting: list[tuple[Intent, Change]]) -> tuple[list[tuple[Intent, Change]], list[tuple[Intent, Change]]]:
    """The next batch and the rest: at most fifty, and no node twice, for Meta does not promise an order."""
    nodes: set[str] = set()
    for number, (_, (node, _)) in enumerate(waiting):
        if number == MAX_BATCH or node in nodes:
            return waiting[:number], waiting[number:]
        nodes.add(node)
    return waiting, []


def _meaning(problem: PluginError | None) -> tuple[Outcome, str]:
    match problem:
        case None:
            return Outcome.ACCEPTED, ""
        case Rejected():
            return Outcome.REJECTED, problem.reason
        case RateLimited():
            return Outcome.REJECTED, "RATE_LIMITED"
        case AuthExpired():
            return Outcome.REJECTED, "AUTH_EXPIRED"
        case Outdated():
            return Outcome.REJECTED, "OUTDATED"
        case Unsupported():
            return Outcome.REJECTED, "UNSUPPORTED"
    return Outcome.UNKNOWN, "NO_ANSWER"
