"""One Google Ads account."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kiki_agent import Capabilities, Conversion, PluginContext, hookimpl
from kiki_agent.errors import AuthExpired, PluginError, RateLimited, Rejected, Temporary, UnknownOutcome, Unsupported
from kiki_agent.model import (
    DAY,
    SECOND,
    Campaign,
    CampaignStatus,
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
from kiki_google_ads import mapping
from kiki_google_ads.client import GoogleAdsClient
from kiki_google_ads.config import SUNSETS, GoogleAdsConfig
from kiki_google_ads.errors import by_operation
from kiki_google_ads.mapping import Account, Chunk, Lever, Mutated, Page, Place, Row
from kiki_google_ads.uploads import conversion_body, settled_upload

BATCH = 500
"""Changes of one call; Google takes ten times as many, but then answers slowly."""
MOST_PAGES = 500
TOO_OLD = DAY
"""An outcome that nobody can tell any more after this time, because others changed the value since, is given up."""

Operation = Mapping[str, Any]


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
        found = await self._client.read("/googleAds:search", {"query": mapping.ACCOUNT}, Page)
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
            sunset=SUNSETS.get(version, ""),
        )
        return self._stated

    @hookimpl
    async def fetch_campaigns(self) -> Sequence[Campaign]:
        """All campaigns that are not removed, with budgets, strategies and ad group bids."""
        return (await self._read_account()).campaigns

    @hookimpl
    async def fetch_performance(self, window: DayWindow, cursor: str | None) -> PerformanceReport:
        """One stream holds all days; conversions stand at the day of their click."""
        query, _ = mapping.queries(window.first_day, window.last_day)
        rows = mapping.performance_rows(await self._stream(query))
        now = self._context.clock.now()
        zone = (await self._facts()).timezone
        final = local_day(now - self._config.restated_days * DAY, zone)
        return PerformanceReport(tuple(rows), self._as_of(now), final)

    @hookimpl
    async def fetch_spend(self, since: Instant) -> SpendReport:
        """Cost per campaign and account day."""
        zone = (await self._facts()).timezone
        now = self._context.clock.now()
        _, query = mapping.queries(local_day(since, zone), local_day(now, zone))
        return SpendReport(tuple(mapping.spend_rows(await self._stream(query))), self._as_of(now))

    @hookimpl
    async def set_budget(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """Daily amounts of budgets, also of shared ones."""
        return await self._change(intents, lambda place: ("/campaignBudgets:mutate", self._budget))

    @hookimpl
    async def adjust_bid(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """The highest price of a click, wherever the campaign's strategy keeps it."""
        return await self._change(intents, self._bidding)

    @hookimpl
    async def place_bid(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """The bid level for one customer's worth, then the signals that explain it."""
        receipts = list(await self._change(intents, self._bidding))
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
        return await self._change(intents, lambda place: ("/campaigns:mutate", self._status))

    @hookimpl
    async def reconcile(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """Google keeps no key of ours: what is in force tells whether a change was made."""
        account = await self._read_account()
        campaigns = {each.campaign_id: each for each in account.campaigns}
        now = self._context.clock.now()
        return [_settled(intent, campaigns.get(intent.campaign_id), now) for intent in intents]

    @hookimpl
    async def upload_conversions(self, conversions: Sequence[Conversion]) -> Sequence[Receipt]:
        """Values of customers for the clicks that brought them."""
        body = conversion_body(self._config, conversions, validate_only=self._context.dry_run)
        try:
            answer = await self._client.write(":uploadClickConversions", body, Mutated)
        except UnknownOutcome as error:
            raise UnknownOutcome(str(error), tuple(each.key for each in conversions)) from None
        return settled_upload(conversions, answer)

    @hookimpl
    async def close(self) -> None:
        """Nothing to let go of: connections belong to the context."""

    # -- reading --------------------------------------------------------------------------------------------------

    async def _facts(self) -> Capabilities:
        return self._stated if self._stated is not None else await self.capabilities()

    def _as_of(self, now: Instant) -> Instant:
        return Instant(now - round(self._config.data_age_s * SECOND))

    async def _read_account(self) -> Account:
        rows = await self._search(mapping.CAMPAIGNS)
        manual = any(row.campaign is not None and row.campaign.bidding_strategy_type == "MANUAL_CPC" for row in rows)
        groups = await self._search(mapping.AD_GROUPS) if manual else []
        context = self._context
        currency = (await self._facts()).currency
        self._account = mapping.account_of(rows, groups, context.instance_id, context.platform, currency)
        return self._account

    async def _search(self, query: str) -> list[Row]:
        rows: list[Row] = []
        body = {"query": query}
        for _ in range(MOST_PAGES):
            page = await self._client.read("/googleAds:search", body, Page)
            rows += page.results
            if not page.next_page_token:
                return rows
            if page.next_page_token == body.get("pageToken"):
                break
            body = {"query": query, "pageToken": page.next_page_token}
        raise Temporary("the answer of Google Ads is garbled: its pages do not end")

    async def _stream(self, query: str) -> list[Row]:
        chunks = await self._client.read("/googleAds:searchStream", {"query": query}, list[Chunk])
        return [row for chunk in chunks for row in chunk.results]

    # -- changing -------------------------------------------------------------------------------------------------

    async def _change(
        self, intents: Sequence[Intent], way: Callable[[Place], tuple[str, Callable[[Intent, Place], list[Operation]]]]
    ) -> list[Receipt]:
        """Carry out intents, one call for each service that is involved; a receipt for each, in order."""
        account = self._account or await self._read_unsent()
        receipts: dict[str, Receipt] = {}
        calls: dict[str, list[tuple[Intent, list[Operation]]]] = {}
        for intent in intents:
            place = account.places.get(intent.campaign_id)
            if place is None:
                receipts[intent.key] = Receipt(intent.key, Outcome.REJECTED, "UNKNOWN_CAMPAIGN")
                continue
            path, make = way(place)
            operations = make(intent, place) if path else []
            if operations:
                calls.setdefault(path, []).append((intent, operations))
            else:
                receipts[intent.key] = Receipt(intent.key, Outcome.REJECTED, "NO_SUCH_LEVER")
        for path, wanted in calls.items():
            try:
                receipts |= await self._mutate(path, wanted)
            except PluginError as error:
                if not receipts and len(calls) == 1:
                    raise
                self._mind(error)
                outcome, reason = _meaning(error)
                receipts |= {intent.key: Receipt(intent.key, outcome, reason) for intent, _ in wanted}
        return [receipts[intent.key] for intent in intents]

    async def _read_unsent(self) -> Account:
        """Where the levers are, for a change right after a start; a failure here means that nothing was sent."""
        try:
            return await self._read_account()
        except (RateLimited, AuthExpired):
            raise
        except PluginError as error:
            raise Rejected(str(error), "NOT_SENT") from None

    async def _mutate(self, path: str, wanted: Sequence[tuple[Intent, list[Operation]]]) -> dict[str, Receipt]:
        operations = [operation for _, made in wanted for operation in made]
        body = {"operations": operations, "partialFailure": True, "validateOnly": self._context.dry_run}
        try:
            answer = await self._client.write(path, body, Mutated)
        except UnknownOutcome as error:
            raise UnknownOutcome(str(error), tuple(intent.key for intent, _ in wanted)) from None
        failed = by_operation(answer.partial_failure_error, len(operations))
        receipts: dict[str, Receipt] = {}
        begin = 0
        for intent, made in wanted:
            span = range(begin, begin + len(made))
            begin += len(made)
            codes = [failed[index] for index in span if index in failed]
            receipts[intent.key] = self._receipt(intent, codes, len(made), answer, span)
        return receipts

    def _receipt(self, intent: Intent, codes: list[str], count: int, answer: Mutated, span: range) -> Receipt:
        if codes:
            # a part of the ad groups of one campaign: neither made nor not made, so it is read back
            outcome = Outcome.REJECTED if len(codes) == count else Outcome.UNKNOWN
            return Receipt(intent.key, outcome, codes[0])
        if not self._context.dry_run and span.stop > len(answer.results):
            return Receipt(intent.key, Outcome.UNKNOWN, "NOT_MENTIONED")
        named = answer.results[span.start].get("resourceName", "") if span.start < len(answer.results) else ""
        return Receipt(intent.key, Outcome.ACCEPTED, vendor_ref=str(named))

    async def _tell(self, intents: Sequence[Intent]) -> None:
        """Custom parameters of campaigns. They steer nothing, so a failure is told and no more."""
        places = self._account.places if self._account is not None else {}
        operations = [
            {
                "update": {
                    "resourceName": places[each.campaign_id].campaign,
                    "urlCustomParameters": mapping.signals(each),
                },
                "updateMask": "urlCustomParameters",
            }
            for each in intents
        ]
        body = {"operations": operations, "partialFailure": True, "validateOnly": self._context.dry_run}
        try:
            await self._client.write("/campaigns:mutate", body, Mutated)
        except PluginError as error:
            self._mind(error)
            self._context.log.warning("signals_not_told", f"the value signals did not reach Google Ads: {error}")

    def _mind(self, error: PluginError) -> None:
        if isinstance(error, RateLimited):
            self._context.throttle(retry_at=Instant(error.retry_at))

    # -- operations -----------------------------------------------------------------------------------------------

    @staticmethod
    def _budget(intent: Intent, place: Place) -> list[Operation]:
        update = {"resourceName": place.budget, "amountMicros": str(intent.after)}
        return [{"update": update, "updateMask": "amountMicros"}]

    @staticmethod
    def _status(intent: Intent, place: Place) -> list[Operation]:
        update = {"resourceName": place.campaign, "status": "ENABLED" if intent.after else "PAUSED"}
        return [{"update": update, "updateMask": "status"}]

    def _bidding(self, place: Place) -> tuple[str, Callable[[Intent, Place], list[Operation]]]:
        match place.lever:
            case Lever.PORTFOLIO:
                return "/biddingStrategies:mutate", self._portfolio
            case Lever.TARGET_SPEND:
                return "/campaigns:mutate", self._target_spend
            case Lever.TARGET_ROAS:
                return "/campaigns:mutate", self._target_roas
            case Lever.MANUAL:
                return "/adGroups:mutate", self._manual
            case Lever.NONE:
                return "", self._nothing

    @staticmethod
    def _portfolio(intent: Intent, place: Place) -> list[Operation]:
        target: dict[str, Any] = {"cpcBidCeilingMicros": str(intent.after)}
        mask = "targetRoas.cpcBidCeilingMicros"
        if intent.ltv_micros:
            target["targetRoas"] = mapping.target_roas(intent.ltv_micros, intent.after)
            mask += ",targetRoas.targetRoas"
        return [{"update": {"resourceName": place.strategy, "targetRoas": target}, "updateMask": mask}]

    @staticmethod
    def _target_spend(intent: Intent, place: Place) -> list[Operation]:
        update = {"resourceName": place.campaign, "targetSpend": {"cpcBidCeilingMicros": str(intent.after)}}
        return [{"update": update, "updateMask": "targetSpend.cpcBidCeilingMicros"}]

    @staticmethod
    def _target_roas(intent: Intent, place: Place) -> list[Operation]:
        if not intent.ltv_micros:
            return []
        ratio = mapping.target_roas(intent.ltv_micros, intent.after)
        update = {"resourceName": place.campaign, "targetRoas": {"targetRoas": ratio}}
        return [{"update": update, "updateMask": "targetRoas.targetRoas"}]

    @staticmethod
    def _manual(intent: Intent, place: Place) -> list[Operation]:
        return [
            {"update": {"resourceName": name, "cpcBidMicros": str(intent.after)}, "updateMask": "cpcBidMicros"}
            for name in place.ad_groups
        ]

    @staticmethod
    def _nothing(intent: Intent, place: Place) -> list[Operation]:
        return []


def _settled(intent: Intent, campaign: Campaign | None, now: Instant) -> Receipt:
    """What the value in force says about a change whose answer never came."""
    if campaign is None:
        return Receipt(intent.key, Outcome.REJECTED, "UNKNOWN_CAMPAIGN")
    match intent.kind:
        case IntentKind.SET_BUDGET:
            value = campaign.daily_budget_micros
        case IntentKind.SET_STATUS:
            value = int(campaign.status is CampaignStatus.ACTIVE)
        case IntentKind.ADJUST_BID | IntentKind.PLACE_BID:
            value = campaign.bid_micros
    if value == intent.after:
        return Receipt(intent.key, Outcome.ACCEPTED, "IN_FORCE")
    if value == intent.before or intent.kind is IntentKind.PLACE_BID:
        return Receipt(intent.key, Outcome.REJECTED, "NOT_APPLIED")
    if now - intent.at > TOO_OLD:
        return Receipt(intent.key, Outcome.REJECTED, "SUPERSEDED")
    return Receipt(intent.key, Outcome.UNKNOWN, "CHANGED_BY_OTHERS")


def _meaning(error: PluginError) -> tuple[Outcome, str]:
    match error:
        case Rejected():
            return Outcome.REJECTED, error.reason
        case RateLimited():
            return Outcome.REJECTED, "RATE_LIMITED"
        case AuthExpired():
            return Outcome.REJECTED, "AUTH_EXPIRED"
        case Unsupported():
            return Outcome.REJECTED, "UNSUPPORTED"
    return Outcome.UNKNOWN, "NO_ANSWER"
