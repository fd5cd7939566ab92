"""One Google Ads account."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from kiki_agent import AccountEdit, Capabilities, Conversion, PluginContext, hookimpl
from kiki_agent.errors import (
    AuthExpired,
    Outdated,
    PluginError,
    RateLimited,
    Rejected,
    StoreError,
    Temporary,
)
from kiki_agent.model import (
    DAY,
    SECOND,
    Campaign,
    DayWindow,
    Instant,
    Intent,
    IntentKind,
    Outcome,
    PerformanceReport,
    Receipt,
    SpendReport,
    local_day,
)
from kiki_google_ads import history, levers, uploads, wire
from kiki_google_ads.client import GoogleAdsClient
from kiki_google_ads.config import SUNSETS, GoogleAdsConfig
from kiki_google_ads.errors import CostMissing, by_operation, is_unclear
from kiki_google_ads.failures import about, all_failed
from kiki_google_ads.levers import Operation
from kiki_google_ads.mapping import Account, Place, account_of, performance_rows, spend_rows
from kiki_google_ads.wire import Mutated, Row

BATCH = 500
"""Intents of one call."""
MOST_OPERATIONS = 5_000
"""Operations of one request; Google takes 10,000."""
MOST_PAGES = 500
REMEMBERED = 64
"""Placed bids whose former level is kept, to be told from one that was made."""
_PLACED = "placed"

Way = Callable[[Intent, Place], tuple[str, list[Operation]]]


class GoogleAdsConnector:
    """Reads and changes through GAQL and mutates; absolute values only, so asking twice would change nothing twice."""

    def __init__(self, context: PluginContext[GoogleAdsConfig]) -> None:
        self._context = context
        self._config = context.config
        self._client = GoogleAdsClient(context)
        self._stated: Capabilities | None = None
        self._account: Account | None = None

    @hookimpl
    async def check(self) -> None:
        """Credentials, version and account in one read."""
        await self.capabilities()

    @hookimpl
    async def capabilities(self) -> Capabilities:
        """Currency and time zone as the account has them."""
        found = await self._client.search(wire.ACCOUNT)
        customer = found.results[0].customer if found.results else None
        if customer is None or not customer.currency_code or not customer.time_zone:
            raise Temporary("the answer of Google Ads is garbled: no account in it")
        version = self._config.api_version
        self._stated = Capabilities(
            currency=customer.currency_code,
            timezone=customer.time_zone,
            batch_size=BATCH,
            keeps_keys=False,
            validates=True,
            api_version=version,
            sunset=self._config.api_sunset or SUNSETS.get(version, ""),
        )
        return self._stated

    # -- reading --------------------------------------------------------------------------------------------------

    @hookimpl
    async def fetch_campaigns(self) -> Sequence[Campaign]:
        """All campaigns that are not removed, with budgets, strategies and ad group bids."""
        return (await self._read_account()).campaigns

    @hookimpl
    async def fetch_performance(self, window: DayWindow, cursor: str | None) -> PerformanceReport:
        """A page of up to 10,000 rows; conversions stand at the day of their click."""
        page = await self._client.search(wire.performance_query(window.first_day, window.last_day), cursor or "")
        rows, skipped = performance_rows(page, window.first_day, window.last_day)
        self._count_skipped(skipped, "performance")
        now = self._context.clock.now()
        final = local_day(now - self._config.restated_days * DAY, (await self._facts()).timezone)
        following = page.next_page_token or None
        if following is not None and following == cursor:
            raise Temporary("the answer of Google Ads is garbled: its pages do not end")
        return PerformanceReport(tuple(rows), self._as_of(now), final, following)

    @hookimpl
    async def fetch_spend(self, since: Instant) -> SpendReport:
        """Cost per campaign and account day. Raises CostMissing for a day that has clicks and no cost anywhere."""
        zone = (await self._facts()).timezone
        now = self._context.clock.now()
        first, last = local_day(min(since, now), zone), local_day(now, zone)
        pages = await self._client.stream(wire.spend_query(first, last))
        try:
            rows = spend_rows(pages, first, last)
        except CostMissing:
            self._context.metrics.count("cost_missing")
            raise
        return SpendReport(rows, self._as_of(now))

    @hookimpl
    async def fetch_edits(self, since: Instant) -> Sequence[AccountEdit]:
        """Who moved which lever in up to 29 days, oldest first; three minutes late, portfolio strategies left out."""
        account = self._account or await self._read_account()
        return history.told(await self.changes(since), account.places)

    async def changes(self, since: Instant) -> Sequence[history.Edit]:
        """The same in Google's words, with who it was."""
        return (await self._history(since)).edits

    async def _facts(self) -> Capabilities:
        return self._stated if self._stated is not None else await self.capabilities()

    def _as_of(self, now: Instant) -> Instant:
        return Instant(now - round(self._config.data_age_s * SECOND))

    def _count_skipped(self, count: int, what: str) -> None:
        if count:
            self._context.metrics.count("rows_skipped", count)
            text = f"{count} rows of the {what} report of Google Ads make no sense and were left out"
            self._context.log.warning("rows_skipped", text, rows=count)

    async def _read_account(self) -> Account:
        rows = await self._all(wire.CAMPAIGNS)
        manual = any(row.campaign is not None and row.campaign.bidding_strategy_type == "MANUAL_CPC" for row in rows)
        groups = await self._all(wire.AD_GROUPS) if manual else []
        context = self._context
        currency = (await self._facts()).currency
        self._account = account_of(rows, groups, context.instance_id, context.platform, currency)
        return self._account

    async def _all(self, query: str) -> list[Row]:
        rows: list[Row] = []
        token = ""
        for _ in range(MOST_PAGES):
            page = await self._client.search(query, token)
            rows += page.results
            if not page.next_page_token:
                return rows
            if page.next_page_token == token:
                break
            token = page.next_page_token
        raise Temporary("the answer of Google Ads is garbled: its pages do not end")

    async def _history(self, since: Instant) -> history.Past:
        zone = (await self._facts()).timezone
        now = self._context.clock.now()
        begin = Instant(max(min(since, now), now - history.REACH))
        query = wire.history_query(history.local_time(begin, zone), history.local_time(Instant(now + DAY), zone))
        rows = await self._all(query)
        edits, skipped = history.edits_of(rows, zone)
        self._count_skipped(skipped, "change")
        return history.Past(edits, complete=not skipped and len(rows) < history.MOST_ROWS, since=begin)

    # -- changing -------------------------------------------------------------------------------------------------

    @hookimpl
    async def set_budget(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """Daily amounts of budgets, also of shared ones."""
        return await self._change(intents, levers.budget)

    @hookimpl
    async def adjust_bid(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """The highest price of a click, wherever the campaign's strategy keeps it."""
        return await self._bid(intents)

    @hookimpl
    async def place_bid(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """The bid level for one customer's worth, then the signals that explain it."""
        await self._remember(intents)
        receipts = await self._bid(intents)
        told = [
            intent
            for intent, receipt in zip(intents, receipts, strict=True)
            if receipt.outcome is Outcome.ACCEPTED and intent.ltv_micros
        ]
        if told:
            await self._tell(told)
        return receipts

    @hookimpl
    async def set_status(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """Pause or enable campaigns."""
        return await self._change(intents, levers.status)

    @hookimpl
    async def reconcile(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """Google keeps no key of ours: what is in force tells whether a change was made, else its change history."""
        account = await self._read_account()
        campaigns = {each.campaign_id: each for each in account.campaigns}
        placed = await self._placed() if any(each.kind is IntentKind.PLACE_BID for each in intents) else {}
        settled: dict[str, Receipt] = {}
        open_intents: list[Intent] = []
        for intent in intents:
            campaign = campaigns.get(intent.campaign_id)
            if campaign is None:
                settled[intent.key] = Receipt(intent.key, Outcome.REJECTED, "UNKNOWN_CAMPAIGN")
                continue
            place = account.places[intent.campaign_id]
            receipt = history.in_force(intent, campaign, place, placed.get(intent.key))
            if receipt is None:
                open_intents.append(intent)
            else:
                settled[intent.key] = receipt
        if open_intents:
            past = await self._past(Instant(min(each.at for each in open_intents) - history.LATE))
            now = self._context.clock.now()
            for intent in open_intents:
                place = account.places[intent.campaign_id]
                settled[intent.key] = history.by_history(intent, place, past, now)
        return [settled[intent.key] for intent in intents]

    @hookimpl
    async def upload_conversions(self, conversions: Sequence[Conversion]) -> Sequence[Receipt]:
        """Values of customers for the clicks that brought them; known ones are restated."""
        receipts: dict[str, Receipt] = {}
        for begin in range(0, len(conversions), uploads.MOST_CONVERSIONS):
            part = conversions[begin : begin + uploads.MOST_CONVERSIONS]
            body = uploads.conversion_body(self._config, part, validate_only=self._context.dry_run)
            try:
                answer = await self._client.write(uploads.CONVERSIONS, body)
            except PluginError as error:
                if not receipts:
                    raise about(error, [each.key for each in conversions]) from None
                receipts |= all_failed(error, [each.key for each in conversions[begin:]])
                break
            made, known = uploads.settled_upload(part, answer)
            receipts |= {each.key: each for each in made}
            if known:
                receipts |= await self._restate(known)
        return [receipts[each.key] for each in conversions]

    @hookimpl
    async def close(self) -> None:
        """Nothing to let go of: connections belong to the context."""

    async def _bid(self, intents: Sequence[Intent]) -> list[Receipt]:
        receipts = await self._change(intents, levers.bid)
        places = self._account.places if self._account is not None and not self._context.dry_run else {}
        for intent, receipt in zip(intents, receipts, strict=True):
            if receipt.outcome is Outcome.ACCEPTED and intent.campaign_id in places:
                places[intent.campaign_id] = levers.moved(intent, places[intent.campaign_id])
        return receipts

    async def _change(self, intents: Sequence[Intent], way: Way) -> list[Receipt]:
        """Carry out intents, one call for each service that is involved; a receipt for each, in order."""
        account = self._account or await self._read_unsent()
        receipts: dict[str, Receipt] = {}
        calls: list[tuple[str, list[tuple[Intent, list[Operation]]]]] = []
        for intent in intents:
            place = account.places.get(intent.campaign_id)
            path, operations = way(intent, place) if place is not None else ("", [])
            if not operations:
                reason = "NO_SUCH_LEVER" if place is not None else "UNKNOWN_CAMPAIGN"
                receipts[intent.key] = Receipt(intent.key, Outcome.REJECTED, reason)
                continue
            _queue(calls, path, intent, operations)
        for number, (path, wanted) in enumerate(calls):
            try:
                receipts |= await self._mutate(path, wanted)
            except PluginError as error:
                if number == 0 and len(calls) == 1 and not receipts:
                    raise
                receipts |= all_failed(error, [intent.key for intent, _ in wanted])
        return [receipts[intent.key] for intent in intents]

    async def _read_unsent(self) -> Account:
        """Where the levers are, for a change right after a start; a failure here means that nothing was sent."""
        try:
            return await self._read_account()
        except (RateLimited, AuthExpired, Outdated):
            raise
        except PluginError as error:
            raise Rejected(str(error), "NOT_SENT") from None

    async def _mutate(self, path: str, wanted: Sequence[tuple[Intent, list[Operation]]]) -> dict[str, Receipt]:
        operations = [operation for _, made in wanted for operation in made]
        try:
            answer = await self._write(path, operations)
        except PluginError as error:
            raise about(error, [intent.key for intent, _ in wanted]) from None
        failed = by_operation(answer.partial_failure_error, len(operations))
        receipts: dict[str, Receipt] = {}
        begin = 0
        for intent, made in wanted:
            span = range(begin, begin + len(made))
            begin = span.stop
            codes = [failed[index] for index in span if index in failed]
            receipts[intent.key] = self._receipt(intent, codes, answer, span)
        return receipts

    async def _write(self, path: str, operations: Sequence[Operation]) -> Mutated:
        body = {"operations": operations, "partialFailure": True, "validateOnly": self._context.dry_run}
        return await self._client.write(path, body)

    def _receipt(self, intent: Intent, codes: list[str], answer: Mutated, span: range) -> Receipt:
        if codes:
            # a part of the ad groups of one campaign: neither made nor not made, so it is read back
            made_none = len(codes) == len(span) and not any(map(is_unclear, codes))
            return Receipt(intent.key, Outcome.REJECTED if made_none else Outcome.UNKNOWN, codes[0])
        if self._context.dry_run:
            return Receipt(intent.key, Outcome.ACCEPTED)
        named = [answer.results[index].get("resourceName") for index in span if index < len(answer.results)]
        if len(named) < len(span) or not all(named):
            return Receipt(intent.key, Outcome.UNKNOWN, "NOT_MENTIONED")
        return Receipt(intent.key, Outcome.ACCEPTED, vendor_ref=str(named[0]))

    # -- what goes along --------------------------------------------------------------------------------------------

    async def _past(self, since: Instant) -> history.Past:
        """The history, as far as it can be read: without it some outcomes stay unknown, and no others suffer."""
        try:
            return await self._history(since)
        except PluginError as error:
            self._context.log.warning("history_not_read", f"the change history was not read: {error}")
            return history.Past((), complete=False, since=since)

    async def _placed(self) -> dict[str, str]:
        """Levels that placed bids were to replace, by key of the intent."""
        kept = await self._context.state.get(_PLACED)
        return msgspec.json.decode(kept, type=dict[str, str]) if kept else {}

    async def _remember(self, intents: Sequence[Intent]) -> None:
        """Keep the levels in force: an intent for a placed bid does not carry them, and only they tell `not made`."""
        account = self._account or await self._read_unsent()
        places = {each.key: account.places.get(each.campaign_id) for each in intents}
        fresh = {key: history.level_text(place)[:200] for key, place in places.items() if place is not None}
        try:
            kept = list(((await self._placed()) | fresh).items())[-REMEMBERED:]
            await self._context.state.set(_PLACED, msgspec.json.encode(dict(kept)).decode())
        except StoreError as error:
            raise Rejected(f"the level before a bid could not be kept: {error}", "NOT_SENT") from None

    async def _tell(self, intents: Sequence[Intent]) -> None:
        """Custom parameters of campaigns. They steer nothing, so a failure is told and no more."""
        places = self._account.places if self._account is not None else {}
        latest = {each.campaign_id: each for each in intents if each.campaign_id in places}
        try:
            present = {
                row.campaign.resource_name: row.campaign.url_custom_parameters
                for row in await self._all(wire.parameters_query(list(latest)))
                if row.campaign is not None
            }
            made = [
                levers.parameters(each, places[name], present[places[name].campaign])
                for name, each in latest.items()
                if places[name].campaign in present
            ]
            operations = [each for each in made if each is not None]
            answer = await self._write(levers.CAMPAIGNS, operations) if operations else Mutated()
        except PluginError as error:
            self._context.log.warning("signals_not_told", f"the value signals did not reach Google Ads: {error}")
            return
        failed = by_operation(answer.partial_failure_error, len(operations))
        left = len(latest) - len(operations) + len(failed)
        if left:
            reason = next(iter(failed.values()), "no room beside the parameters that are there")
            self._context.log.warning("signals_not_told", f"{left} value signals did not reach Google Ads: {reason}")

    async def _restate(self, conversions: Sequence[Conversion]) -> dict[str, Receipt]:
        now = self._context.clock.now()
        body = uploads.adjustment_body(self._config, conversions, now, validate_only=self._context.dry_run)
        try:
            answer = await self._client.write(uploads.ADJUSTMENTS, body)
        except PluginError as error:
            return all_failed(error, [each.key for each in conversions])
        return {each.key: each for each in uploads.settled_adjustments(conversions, answer)}


def _queue(
    calls: list[tuple[str, list[tuple[Intent, list[Operation]]]]], path: str, intent: Intent, made: list[Operation]
) -> None:
    """Add operations to the last call of their service, or begin another where that one is full."""
    for known, wanted in reversed(calls):
        if known == path:
            if sum(len(each) for _, each in wanted) + len(made) <= MOST_OPERATIONS:
                wanted.append((intent, made))
                return
            break
    calls.append((path, [(intent, made)]))
