"""What `/status` and the page say about the two-second loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kiki_agent.flow.bidder import Bidder
from kiki_agent.flow.writer import BidWriter
from kiki_agent.model import Instant


@dataclass(frozen=True, slots=True)
class ConnectorFlow:
    """One connector in the two-second loop."""

    connector: str
    campaigns: int
    bidding: int
    """Campaigns with a bid above zero."""
    spend_age_s: float | None
    """Age of the reported spend; None when the platform never reported."""
    changes_sent: int
    changes_refused: int
    changes_unknown: int
    changes_denied: int
    """Held back by the shield."""


@dataclass(frozen=True, slots=True)
class FlowStatus:
    """The two-second loop at one moment."""

    interval_s: float
    ticks: int
    campaigns: int
    bidding: int
    decisions_changed: int
    """Since the start of the process."""
    decisions_changed_today: int
    last_reason: str | None
    """Why no decision changed in the last tick; None when one did."""
    connectors: tuple[ConnectorFlow, ...]


class Flow:
    """Bidder and writers together, for whoever shows them."""

    def __init__(self, bidder: Bidder, writers: Sequence[BidWriter]) -> None:
        self.bidder = bidder
        self.writers = tuple(writers)

    def status(self, now: Instant) -> FlowStatus:
        """How the loop stands now."""
        bidder, accounts = self.bidder, self.bidder.accounts
        table, standing = accounts.table, bidder.standing
        current = bidder.version == table.version
        parts = []
        for writer in self.writers:
            low, high = table.bounds[writer.connector]
            age = accounts.spend_age(writer.connector, now)
            parts.append(
                ConnectorFlow(
                    connector=writer.connector,
                    campaigns=high - low,
                    bidding=int((standing.bids[low:high] > 0).sum()) if current else 0,
                    spend_age_s=None if age is None else age / 1e6,
                    changes_sent=writer.sent,
                    changes_refused=writer.rejected,
                    changes_unknown=writer.unknown,
                    changes_denied=writer.denied,
                )
            )
        return FlowStatus(
            interval_s=bidder.period / 1e6,
            ticks=bidder.ticks,
            campaigns=len(table),
            bidding=int((standing.bids > 0).sum()),
            decisions_changed=bidder.changed_total,
            decisions_changed_today=bidder.changed_today,
            last_reason=bidder.last_reason,
            connectors=tuple(parts),
        )
