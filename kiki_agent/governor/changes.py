"""One change as it is suggested, ordered and stored: a lever, what stands, what shall stand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from kiki_agent.accounts import LEVER_OF, CampaignTable, Lever, LeverKey, value_of
from kiki_agent.model import Instant, Intent, IntentKind, intent_key


@dataclass(frozen=True, slots=True)
class Change:
    """A wanted change of one lever; amounts in micros, status 1 or 0."""

    connector: str
    campaign_id: str
    kind: str
    before: int
    after: int
    budget_id: str = ""

    @property
    def lever(self) -> Lever:
        """Which lever."""
        return LEVER_OF[IntentKind(self.kind)]

    @property
    def key(self) -> LeverKey:
        """Connector, entity, lever."""
        return self.connector, entity(self.campaign_id, self.budget_id, IntentKind(self.kind)), self.lever

    @property
    def raises(self) -> bool:
        """Whether more money can flow."""
        return self.after > self.before

    @classmethod
    def of(cls, intent: Intent) -> Change:
        """The change an intent makes."""
        return cls(
            intent.connector, intent.campaign_id, intent.kind.value, intent.before, intent.after, intent.budget_id
        )

    def intent(self, cause: str, currency: str, reason: str, at: Instant, made_at: Instant) -> Intent:
        """The intent that makes it; its key is derived from what caused it."""
        kind = IntentKind(self.kind)
        return Intent(
            key=intent_key(self.connector, self.campaign_id, kind, made_at, cause),
            kind=kind,
            connector=self.connector,
            campaign_id=self.campaign_id,
            before=self.before,
            after=self.after,
            currency=currency,
            reason=reason,
            at=at,
            cause=cause,
            budget_id=self.budget_id,
        )


def entity(campaign_id: str, budget_id: str, kind: IntentKind) -> str:
    """What the lever of an intent belongs to, as `accounts.entity_of` names it."""
    return f"budget:{budget_id}" if budget_id and kind is IntentKind.SET_BUDGET else campaign_id


def entity_of_intent(intent: Intent) -> str:
    """The entity an intent changes."""
    return entity(intent.campaign_id, intent.budget_id, intent.kind)


def standing_value(table: CampaignTable, change: Change) -> int | None:
    """What stands for a lever now; None where the campaign is gone."""
    row = table.index.get((change.connector, change.campaign_id))
    return None if row is None else value_of(table.rows[row], change.lever)


def to_json(changes: Iterable[Change]) -> str:
    """As stored."""
    return json.dumps([asdict(each) for each in changes], separators=(",", ":"), sort_keys=True)


def from_json(text: str) -> tuple[Change, ...]:
    """As read."""
    return tuple(Change(**each) for each in json.loads(text))


def net(changes: Sequence[Change]) -> int:
    """By how much the changes raise all daily budgets together."""
    return sum(each.after - each.before for each in changes if each.kind == IntentKind.SET_BUDGET)
