"""What stands at the platforms by the agent's own doing, so that what others changed can be told apart.

A lever is one thing the agent can set: the daily budget of a budget entity, the bid or the status of a campaign. What a
platform states is compared with what was last confirmed. Not every difference is somebody's edit: an unsettled change
of our own may have taken effect, a read may be older than our last change, and platforms round to their own steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from kiki_agent.model import MINUTE, Campaign, CampaignStatus, Instant, Intent, IntentKind

READ_BACK_GRACE = 15 * MINUTE
"""For so long after a change of ours a platform may still state what stood before it."""


class Lever(StrEnum):
    """What can be set."""

    BUDGET = "budget"
    BID = "bid"
    STATUS = "status"


LEVER_OF = {
    IntentKind.SET_BUDGET: Lever.BUDGET,
    IntentKind.ADJUST_BID: Lever.BID,
    IntentKind.PLACE_BID: Lever.BID,
    IntentKind.SET_STATUS: Lever.STATUS,
}
KIND_OF = {
    Lever.BUDGET: IntentKind.SET_BUDGET,
    Lever.BID: IntentKind.ADJUST_BID,
    Lever.STATUS: IntentKind.SET_STATUS,
}
LeverKey = tuple[str, str, Lever]
"""Connector, entity, lever."""


@dataclass(frozen=True, slots=True)
class OutsideEdit:
    """A change that was not the agent's."""

    connector: str
    campaign_id: str
    entity: str
    lever: Lever
    before: int
    """What the agent last knew to be in force: micros, or 1 (active) and 0 (paused)."""
    after: int
    at: Instant
    """When it was seen; it was made at some time since the last read."""
    source: str = "outside"
    """Who made it, as far as it can be said."""


def entity_of(campaign: Campaign, lever: Lever) -> str:
    """What a lever belongs to: the campaign, or the budget that several campaigns share."""
    if lever is Lever.BUDGET and campaign.budget_id:
        return f"budget:{campaign.budget_id}"
    return campaign.campaign_id


def value_of(campaign: Campaign, lever: Lever) -> int:
    """The value a campaign states for a lever."""
    match lever:
        case Lever.BUDGET:
            return campaign.daily_budget_micros
        case Lever.BID:
            return campaign.bid_micros
        case Lever.STATUS:
            return int(campaign.status is CampaignStatus.ACTIVE)


def with_value(campaign: Campaign, lever: Lever, value: int) -> Campaign:
    """The campaign with another value for a lever."""
    match lever:
        case Lever.BUDGET:
            return replace(campaign, daily_budget_micros=value)
        case Lever.BID:
            return replace(campaign, bid_micros=value)
        case Lever.STATUS:
            return replace(campaign, status=CampaignStatus.ACTIVE if value else CampaignStatus.PAUSED)


class Levers:
    """The confirmed value of every lever, and the values of ours that a late read may still show."""

    def __init__(self, grace: int = READ_BACK_GRACE) -> None:
        self.grace = grace
        self.unsettled: Callable[[Campaign, Lever], bool] = lambda campaign, lever: False
        """Whether a change of ours for a campaign, or for the budget it shares, is under way or unknown."""
        self.unjudged: set[tuple[str, str]] = set()
        """Campaigns of which a difference could not be judged yet."""
        self.doubted: set[tuple[str, str]] = set()
        """Campaigns that we stopped, and that the last read showed as running: an old statement, or somebody resumed
        them. Which of both is not known while a platform may state what stood before."""
        self._known: dict[LeverKey, int] = {}
        self._ours: dict[LeverKey, list[tuple[Instant, int]]] = {}
        self._placed: dict[LeverKey, int] = {}

    def known(self, key: LeverKey) -> int | None:
        """The value last confirmed or read."""
        return self._known.get(key)

    def baseline(self, campaigns: Sequence[Campaign]) -> None:
        """Take what stands as it is, where nothing is known yet."""
        for each in campaigns:
            for lever in Lever:
                self._known.setdefault((each.connector, entity_of(each, lever), lever), value_of(each, lever))

    def forget(self, campaign: Campaign) -> None:
        """A campaign is no longer there."""
        for lever in (Lever.BID, Lever.STATUS):
            self._known.pop((campaign.connector, campaign.campaign_id, lever), None)
        self.doubted.discard((campaign.connector, campaign.campaign_id))

    def confirmed(self, intent: Intent, campaign: Campaign, now: Instant) -> None:
        """A change of ours is in force. `now` is when it was settled."""
        lever = LEVER_OF[intent.kind]
        key = (intent.connector, entity_of(campaign, lever), lever)
        before = self._known.get(key, intent.before)
        if intent.kind is IntentKind.PLACE_BID:  # some platforms take a placed bid as the bid level, others do not
            self._placed[key] = intent.after
            return
        if before == intent.after:  # sent again; a late read still shows what stood before the first time
            before = intent.before
        self._ours.setdefault(key, []).append((now, before))
        self._known[key] = intent.after
        if lever is Lever.STATUS:
            self.doubted.discard((intent.connector, intent.campaign_id))

    def judge(self, stated: Campaign, now: Instant) -> tuple[Campaign, list[OutsideEdit]]:
        """What to believe of a statement, and the edits of others in it."""
        believed, edits = stated, []
        unclear = doubted = False
        for lever in Lever:
            key = (stated.connector, entity_of(stated, lever), lever)
            value, known = value_of(stated, lever), self._known.get(key)
            if known is None or known == value:
                self._known[key] = value
                continue
            if self.unsettled(stated, lever):
                unclear = True
            elif not _steered(stated, lever) or _rounded(stated, lever, value, known) or value == self._placed.get(key):
                self._known[key] = value
            elif value in self._recent(key, now):
                believed = with_value(believed, lever, known)
                doubted = doubted or (lever is Lever.STATUS and value > known)
            else:
                self._known[key] = value
                self._ours.pop(key, None)
                edits.append(OutsideEdit(stated.connector, stated.campaign_id, key[1], lever, known, value, now))
        (self.unjudged.add if unclear else self.unjudged.discard)((stated.connector, stated.campaign_id))
        (self.doubted.add if doubted else self.doubted.discard)((stated.connector, stated.campaign_id))
        return believed, edits

    def _recent(self, key: LeverKey, now: Instant) -> set[int]:
        """Values of ours that a read may still show."""
        kept = [(at, value) for at, value in self._ours.get(key, ()) if now - at < self.grace]
        if kept:
            self._ours[key] = kept
        else:
            self._ours.pop(key, None)
        return {value for _, value in kept}


def _steered(campaign: Campaign, lever: Lever) -> bool:
    """Whether the value is ours to set; a platform moves the others by itself."""
    if lever is Lever.BID:
        return campaign.steers_bid
    return campaign.steers_budget if lever is Lever.BUDGET else True


def _rounded(campaign: Campaign, lever: Lever, value: int, known: int) -> bool:
    """Whether a difference is smaller than the platform's own step."""
    match lever:
        case Lever.BUDGET:
            return abs(value - known) < campaign.budget_step_micros
        case Lever.BID:
            return abs(value - known) < campaign.bid_step_micros
        case Lever.STATUS:
            return False
