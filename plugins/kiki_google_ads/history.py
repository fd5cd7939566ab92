"""What became of changes whose answer never came: the value in force tells, else the account's change history.

Google keeps no key of ours. Its history (`change_event`) covers campaigns, budgets and ad groups for 30 days, up to
three minutes late; portfolio strategies are not in it, so a ceiling that others changed meanwhile stays unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from kiki_agent import AccountEdit
from kiki_agent.errors import Temporary
from kiki_agent.model import DAY, MINUTE, Campaign, CampaignStatus, Instant, Intent, IntentKind, Outcome, Receipt
from kiki_google_ads.levers import target_roas
from kiki_google_ads.mapping import Lever, Place, micros_of, money
from kiki_google_ads.wire import ChangeRow, Row

LATE = 10 * MINUTE
"""A change that is not in the history after this time was not made: Google says three minutes, clocks may differ."""
REACH = 30 * DAY - DAY
"""How far back the history is asked for: Google answers for 30 days, counted in days of the account."""
TOO_OLD = DAY
"""An outcome that nobody can tell any more after this time, because others changed the value since, is given up."""
MOST_ROWS = 10_000
"""Most lines of history one query may ask for; as many may not be all."""
API = "GOOGLE_ADS_API"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of one lever by anyone, as the account's history has it."""

    at: Instant
    kind: IntentKind
    resource: str
    """Google's name of what was changed: a campaign, a budget or an ad group."""
    before: int | Decimal | None
    """Micros, 1 or 0 for a status, or a target ROAS; None where it is not said."""
    after: int | Decimal | None
    client: str
    """Where the change was made: `GOOGLE_ADS_WEB_CLIENT`, `GOOGLE_ADS_API` ..."""
    by: str
    """E-mail address of who made it; empty where Google does not say. Personal: not for logs."""


# -- reading the history ----------------------------------------------------------------------------------------------


def local_time(at: Instant, zone: str) -> str:
    """`YYYY-MM-DD hh:mm:ss` on the account's clock, the form in which Google's history is asked."""
    moment = _EPOCH + timedelta(microseconds=at)
    return moment.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S")


def instant(text: str, zone: str) -> Instant:
    """The instant of an account time, with or without fractions. Raises Temporary for what is none."""
    try:
        moment = datetime.fromisoformat(text) if 19 <= len(text) <= 32 and text[10] == " " else None
    except ValueError:
        moment = None
    if moment is None:
        raise Temporary(f"the answer of Google Ads is garbled: {text[:32]!r} is no time")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(zone))
    return Instant((moment - _EPOCH) // timedelta(microseconds=1))


def edits_of(rows: Sequence[Row], zone: str) -> tuple[list[Edit], int]:
    """Changes of levers the agent knows, oldest first, and how many rows were left out because they make no sense."""
    found: list[Edit] = []
    skipped = 0
    for row in rows:
        event = row.change_event
        if event is None:
            skipped += 1
            continue
        try:
            at = instant(event.change_date_time, zone)
            fields = {each.strip() for each in event.changed_fields.split(",")}
            for kind, before, after in _levers(event, fields):
                found.append(Edit(at, kind, event.change_resource_name, before, after, event.client_type,
                                  event.user_email))  # fmt: skip
        except Temporary:
            skipped += 1
    return sorted(found, key=lambda edit: edit.at), skipped


def _levers(event: ChangeRow, fields: set[str]) -> list[tuple[IntentKind, int | Decimal | None, int | Decimal | None]]:
    sides = (event.old_resource, event.new_resource)
    made: list[tuple[IntentKind, int | Decimal | None, int | Decimal | None]] = []
    if event.change_resource_type == "CAMPAIGN_BUDGET" and "amountMicros" in fields:
        budgets = [side.campaign_budget if side is not None else None for side in sides]
        old, new = (money(each.amount_micros, "a budget") if each is not None else None for each in budgets)
        made.append((IntentKind.SET_BUDGET, old, new))
    if event.change_resource_type == "AD_GROUP" and "cpcBidMicros" in fields:
        groups = [side.ad_group if side is not None else None for side in sides]
        old, new = (money(each.cpc_bid_micros, "a bid") if each is not None else None for each in groups)
        made.append((IntentKind.ADJUST_BID, old, new))
    if event.change_resource_type == "CAMPAIGN":
        campaigns = [side.campaign if side is not None else None for side in sides]
        if "status" in fields:
            old, new = (int(each.status == "ENABLED") if each is not None else None for each in campaigns)
            made.append((IntentKind.SET_STATUS, old, new))
        if "targetSpend.cpcBidCeilingMicros" in fields:
            spends = [each.target_spend if each is not None else None for each in campaigns]
            old, new = (money(each.cpc_bid_ceiling_micros, "a bid") if each is not None else None for each in spends)
            made.append((IntentKind.ADJUST_BID, old, new))
        for scheme in ("targetRoas", "maximizeConversionValue"):
            if f"{scheme}.targetRoas" in fields:
                targets = [
                    (each.target_roas if scheme == "targetRoas" else each.maximize_conversion_value) if each else None
                    for each in campaigns
                ]
                first, last = (
                    Decimal(micros_of(each.target_roas, "a target ROAS")).scaleb(-6) if each else None
                    for each in targets
                )
                made.append((IntentKind.ADJUST_BID, first, last))
    return made


AUTHORS: Mapping[str, str] = {
    "GOOGLE_ADS_WEB_CLIENT": "person",
    "GOOGLE_ADS_EDITOR": "person",
    "GOOGLE_ADS_MOBILE_APP": "person",
    "GOOGLE_ADS_BULK_UPLOAD": "person",
    "GOOGLE_ADS_RECOMMENDATIONS": "person",
    "GOOGLE_ADS_RECOMMENDATIONS_SUBSCRIPTION": "vendor",
    "GOOGLE_ADS_AUTOMATED_RULE": "vendor",
    "INTERNAL_TOOL": "vendor",
    "GOOGLE_ADS_API": "tool",
    "GOOGLE_ADS_SCRIPTS": "tool",
    "SEARCH_ADS_360_SYNC": "tool",
    "SEARCH_ADS_360_POST": "tool",
}
"""Who is behind a client type. A recommendation is applied by a person, by the subscription to them Google does it."""


def told(edits: Sequence[Edit], places: Mapping[str, Place]) -> list[AccountEdit]:
    """The history in the agent's words, without who the persons are; what touches no known campaign is left out."""
    levers = {IntentKind.SET_BUDGET: "budget", IntentKind.ADJUST_BID: "bid", IntentKind.SET_STATUS: "status"}
    owners: dict[str, list[str]] = {}
    for name, place in places.items():
        for resource in {place.campaign, place.budget, *place.ad_groups}:
            owners.setdefault(resource, []).append(name)
    return [
        AccountEdit(
            tuple(sorted(owners[each.resource])),
            levers[each.kind],
            each.after if isinstance(each.after, int) else None,
            each.at,
            AUTHORS.get(each.client, "unknown"),
            each.client,
        )
        for each in edits
        if each.resource in owners
    ]


# -- settling ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Past:
    """The history as far as it was read."""

    edits: Sequence[Edit]
    complete: bool
    """False where it could not be read, or not all of it."""
    since: Instant


def in_force(intent: Intent, campaign: Campaign, place: Place, stood: str | None) -> Receipt | None:
    """What the value in force says about a change; None when it says nothing, for others may have changed it since.

    `stood` is the level a placed bid was to replace, as text; None when nobody remembers.
    """
    wanted, values = _wanted(intent, place), _values(intent, campaign, place)
    if wanted is None or not values:
        return Receipt(intent.key, Outcome.REJECTED, "NO_SUCH_LEVER")
    if all(value == wanted for value in values):
        return Receipt(intent.key, Outcome.ACCEPTED, "IN_FORCE")
    if intent.kind is IntentKind.PLACE_BID or (place.lever is Lever.RATIO and intent.kind is IntentKind.ADJUST_BID):
        unchanged = stood is not None and stood == level_text(place)
    else:
        unchanged = all(value == intent.before for value in values)
    return Receipt(intent.key, Outcome.REJECTED, "NOT_APPLIED") if unchanged else None


def level_text(place: Place) -> str:
    """The bid level of a campaign as text that can be kept and compared."""
    return str(place.ratio.normalize()) if place.ratio is not None else ",".join(map(str, place.levels))


def by_history(intent: Intent, place: Place, past: Past, now: Instant) -> Receipt:
    """What the history says about a change that the value in force does not settle."""
    resources = _resources(intent, place)
    wanted = _wanted(intent, place)
    kind = IntentKind.ADJUST_BID if intent.kind is IntentKind.PLACE_BID else intent.kind
    made = {
        edit.resource
        for edit in past.edits
        if edit.kind is kind and edit.client == API and edit.after == wanted and edit.at >= intent.at - LATE
    }
    if resources and made >= resources:
        return Receipt(intent.key, Outcome.ACCEPTED, "IN_HISTORY")
    if resources and not made & resources and past.complete and past.since <= intent.at - LATE:
        if now - intent.at > LATE:
            return Receipt(intent.key, Outcome.REJECTED, "NOT_APPLIED")
        return Receipt(intent.key, Outcome.UNKNOWN, "HISTORY_IS_LATE")
    if now - intent.at > TOO_OLD:
        return Receipt(intent.key, Outcome.REJECTED, "SUPERSEDED")
    return Receipt(intent.key, Outcome.UNKNOWN, "CHANGED_BY_OTHERS")


def _wanted(intent: Intent, place: Place) -> int | Decimal | None:
    if intent.kind in (IntentKind.ADJUST_BID, IntentKind.PLACE_BID) and place.lever is Lever.RATIO:
        return Decimal(str(target_roas(intent.ltv_micros, intent.after))) if intent.ltv_micros else None
    return intent.after


def _values(intent: Intent, campaign: Campaign, place: Place) -> Sequence[int | Decimal]:
    match intent.kind:
        case IntentKind.SET_BUDGET:
            return (campaign.daily_budget_micros,)
        case IntentKind.SET_STATUS:
            return (int(campaign.status is CampaignStatus.ACTIVE),)
        case IntentKind.ADJUST_BID | IntentKind.PLACE_BID:
            return place.levels if place.ratio is None else (place.ratio,)


def _resources(intent: Intent, place: Place) -> set[str]:
    """What the history would name; empty where it is silent."""
    match intent.kind:
        case IntentKind.SET_BUDGET:
            return {place.budget}
        case IntentKind.SET_STATUS:
            return {place.campaign}
        case IntentKind.ADJUST_BID | IntentKind.PLACE_BID:
            silent: Mapping[Lever, set[str]] = {Lever.PORTFOLIO: set(), Lever.NONE: set()}
            return silent.get(place.lever, set(place.ad_groups) or {place.campaign})
