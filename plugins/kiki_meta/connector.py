"""One Meta ad account."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
from kiki_meta import mapping
from kiki_meta.client import MetaClient
from kiki_meta.config import SUNSETS, MetaConfig
from kiki_meta.mapping import (
    Account,
    AccountNode,
    AdSetNode,
    AdSets,
    CampaignNode,
    Campaigns,
    Insight,
    Insights,
    Lever,
    Place,
)
from kiki_meta.uploads import Received, events_body

BATCH = 25
"""Changes of one call of ours; each is a request of its own to Meta."""
MOST_PAGES = 500
TOO_OLD = DAY
"""An outcome that nobody can tell any more after this time, because others changed the value since, is given up."""

Fields = dict[str, object]


class MetaConnector:
    """Reads with cursors, changes one node at a time with absolute values."""

    def __init__(self, context: PluginContext[MetaConfig]) -> None:
        self._context = context
        self._config = context.config
        self._client = MetaClient(context)
        self._act = f"act_{self._config.account}"
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
        if not node.currency or not node.timezone_name:
            raise Temporary("the answer of Meta is garbled: no account in it")
        self._least_budget = mapping.micros_of_minor(node.min_daily_budget, node.currency, "a minimum budget")
        version = self._config.api_version
        self._stated = Capabilities(
            currency=node.currency,
            timezone=node.timezone_name,
            batch_size=BATCH,
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
        page = await self._insights(mapping.INSIGHT_FIELDS, window.first_day, window.last_day, cursor or "")
        now = self._context.clock.now()
        zone = (await self._facts()).timezone
        return PerformanceReport(
            tuple(mapping.performance_rows(page.data, self._config.purchase_action)),
            self._as_of(now),
            local_day(now - self._config.restated_days * DAY, zone),
            page.paging.cursor or None,
        )

    @hookimpl
    async def fetch_spend(self, since: Instant) -> SpendReport:
        """Spend per ad set and account day."""
        zone = (await self._facts()).timezone
        now = self._context.clock.now()
        rows: list[Insight] = []
        after = ""
        for _ in range(MOST_PAGES):
            page = await self._insights(mapping.SPEND_FIELDS, local_day(since, zone), local_day(now, zone), after)
            rows += page.data
            if not page.paging.cursor or page.paging.cursor == after:
                return SpendReport(tuple(mapping.spend_rows(rows)), self._as_of(now))
            after = page.paging.cursor
        raise Temporary("the answer of Meta is garbled: its pages do not end")

    @hookimpl
    async def set_budget(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """Daily budgets, at the ad set or at the campaign that holds it."""
        return await self._change(intents, self._budget)

    @hookimpl
    async def adjust_bid(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """The bid cap of ad sets."""
        return await self._change(intents, self._bid)

    @hookimpl
    async def place_bid(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """The bid level for one customer's worth, with value as the goal."""
        return await self._change(intents, self._value_bid)

    @hookimpl
    async def set_status(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """Pause or activate ad sets."""
        return await self._change(intents, self._status)

    @hookimpl
    async def reconcile(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """Meta keeps no key of ours: what is in force tells whether a change was made."""
        account = await self._read_account()
        campaigns = {each.campaign_id: each for each in account.campaigns}
        now = self._context.clock.now()
        return [_settled(intent, campaigns.get(intent.campaign_id), now) for intent in intents]

    @hookimpl
    async def upload_conversions(self, conversions: Sequence[Conversion]) -> Sequence[Receipt]:
        """Values of customers for the clicks that brought them; Meta drops a second event with the same id."""
        body = events_body(self._config, conversions, self._context.clock.now())
        try:
            answer = await self._client.post_json(f"{self._config.pixel_id}/events", body, Received)
        except UnknownOutcome as error:
            raise UnknownOutcome(str(error), tuple(each.key for each in conversions)) from None
        if answer.events_received != len(conversions):
            return [Receipt(each.key, Outcome.UNKNOWN, "PARTLY_RECEIVED") for each in conversions]
        return [Receipt(each.key, Outcome.ACCEPTED, vendor_ref=answer.fbtrace_id) for each in conversions]

    @hookimpl
    async def close(self) -> None:
        """Nothing to let go of: connections belong to the context."""

    # -- reading --------------------------------------------------------------------------------------------------

    async def _facts(self) -> Capabilities:
        return self._stated if self._stated is not None else await self.capabilities()

    def _as_of(self, now: Instant) -> Instant:
        return Instant(now - round(self._config.data_age_s * SECOND))

    async def _read_account(self) -> Account:
        currency = (await self._facts()).currency
        campaigns: list[CampaignNode] = []
        ad_sets: list[AdSetNode] = []
        size = str(self._config.page_size)
        after = ""
        for _ in range(MOST_PAGES):
            more = {"after": after} if after else {}
            page = await self._client.read(
                f"{self._act}/campaigns", Campaigns, fields=mapping.CAMPAIGN_FIELDS, limit=size, **more
            )
            campaigns += page.data
            if not page.paging.cursor or page.paging.cursor == after:
                break
            after = page.paging.cursor
        after = ""
        for _ in range(MOST_PAGES):
            more = {"after": after} if after else {}
            sets = await self._client.read(
                f"{self._act}/adsets", AdSets, fields=mapping.AD_SET_FIELDS, limit=size, **more
            )
            ad_sets += sets.data
            if not sets.paging.cursor or sets.paging.cursor == after:
                break
            after = sets.paging.cursor
        context = self._context
        self._account = mapping.account_of(
            campaigns, ad_sets, self._least_budget, context.instance_id, context.platform, currency
        )
        return self._account

    async def _insights(self, fields: str, first_day: str, last_day: str, after: str) -> Insights:
        more = {"after": after} if after else {}
        return await self._client.read(
            f"{self._act}/insights",
            Insights,
            level="adset",
            time_increment="1",
            time_range=mapping.time_range(first_day, last_day),
            fields=fields,
            limit=str(self._config.page_size),
            **more,
        )

    # -- changing -------------------------------------------------------------------------------------------------

    async def _change(
        self, intents: Sequence[Intent], make: Callable[[Intent, Place, str], tuple[str, Fields]]
    ) -> list[Receipt]:
        """One request for each intent; when Meta asks for patience the rest is not sent."""
        account = self._account or await self._read_unsent()
        currency = (await self._facts()).currency
        receipts: list[Receipt] = []
        stopped = ""
        for intent in intents:
            place = account.places.get(intent.campaign_id)
            if stopped or place is None:
                receipts.append(Receipt(intent.key, Outcome.REJECTED, stopped or "UNKNOWN_CAMPAIGN"))
                continue
            try:
                node, fields = make(intent, place, currency)
                if not fields:
                    raise Rejected("the ad set has no such lever", "NO_SUCH_LEVER")
                await self._client.write(node, mapping.form(fields))
            except PluginError as error:
                if len(intents) == 1:
                    raise
                if isinstance(error, RateLimited):
                    self._context.throttle(retry_at=Instant(error.retry_at))
                outcome, reason = _meaning(error)
                stopped = reason if isinstance(error, RateLimited | AuthExpired) else ""
                receipts.append(Receipt(intent.key, outcome, reason))
                continue
            receipts.append(Receipt(intent.key, Outcome.ACCEPTED))
        return receipts

    async def _read_unsent(self) -> Account:
        """Where the levers are, for a change right after a start; a failure here means that nothing was sent."""
        try:
            return await self._read_account()
        except (RateLimited, AuthExpired):
            raise
        except PluginError as error:
            raise Rejected(str(error), "NOT_SENT") from None

    # -- requests -------------------------------------------------------------------------------------------------

    @staticmethod
    def _budget(intent: Intent, place: Place, currency: str) -> tuple[str, Fields]:
        return place.budget, {"daily_budget": _minor(intent.after, currency)}

    @staticmethod
    def _bid(intent: Intent, place: Place, currency: str) -> tuple[str, Fields]:
        if place.lever is not Lever.BID_AMOUNT:
            return place.ad_set, {}
        return place.ad_set, {"bid_amount": _minor(intent.after, currency)}

    @staticmethod
    def _value_bid(intent: Intent, place: Place, currency: str) -> tuple[str, Fields]:
        """Value as the goal, and the strategy with it where the ad set has one of its own (CON-12)."""
        fields: Fields = {"optimization_goal": "VALUE"}
        if place.lever is Lever.MIN_ROAS and intent.ltv_micros:
            floor = mapping.roas_floor(intent.ltv_micros, intent.after)
            return place.ad_set, fields | {"bid_constraints": {"roas_average_floor": floor}}
        if place.lever is not Lever.BID_AMOUNT:
            return place.ad_set, {}
        fields["bid_amount"] = _minor(intent.after, currency)
        if place.own_strategy:
            fields["bid_strategy"] = mapping.BID_CAP
        return place.ad_set, fields

    @staticmethod
    def _status(intent: Intent, place: Place, currency: str) -> tuple[str, Fields]:
        return place.ad_set, {"status": "ACTIVE" if intent.after else "PAUSED"}


def _minor(micros: int, currency: str) -> int:
    try:
        return mapping.minor_of_micros(micros, currency)
    except ValueError as error:
        raise Rejected(str(error), "NOT_A_MINOR_UNIT") from None


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
