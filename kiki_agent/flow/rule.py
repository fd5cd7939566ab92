"""From wishes and permits to decisions, and from decisions to writes. Pure: arrays and values in, values out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kiki_agent.accounts import CampaignTable
from kiki_agent.flow.reasons import CAPPED, NO_BUDGET, SHIELD
from kiki_agent.model import IntentKind
from kiki_agent.shield import LevelReason

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.uint8]

STOPPED = 900_000_000
"""A campaign stopped because its day is used up is looked at again after this many microseconds, or on the next day."""
LASTING = 300_000_000
"""What a cap lowered or stopped is raised again when more was permitted for so many microseconds without a break: room
that comes and goes with the age of the figures is no room."""
STEEP = 0.75
"""A bid that is to fall below this part of the one in force waits a third of the usual time only."""
RETRY_CUT = 60_000_000
"""A cut the platform refused is tried again after this many microseconds."""


def settle(
    now: int,
    hold: int,
    day_start: Ints,
    table: CampaignTable,
    wanted: Ints,
    own: Flags,
    permitted: Ints,
    refused: Flags,
    standing: Standing,
) -> tuple[Ints, Flags]:
    """The bids and reasons that hold after this tick, given wishes, permits and what stood before.

    A permit below the wish is cut to the platform's step. What a cap lowered stays lowered for `hold` microseconds, and
    until more was permitted for as long as `LASTING`: a cap that leaves a little more or less on every tick does not
    move bids, nor stop and resume campaigns, on every tick. `standing` keeps since when.
    What halts a whole connector is the reason also where nothing was wished: then the pause is a safety cut.
    `day_start` is the first instant of the running account day of each connector.
    """
    lowered = (refused != 0) & ((wanted > 0) | _HALTS[refused])
    if not lowered.any():
        if not standing.capped:
            return permitted, own
        return _patience(now, hold, day_start[table.connector_index], permitted, own, standing)
    bids, reasons = permitted.copy(), own.copy()
    reasons[lowered] = refused[lowered] + SHIELD
    steps = table.bid_step_micros[lowered]
    cut = bids[lowered] // steps * steps
    bids[lowered] = np.where((cut < table.min_bid_micros[lowered]) | (table.steers_bid[lowered] == 0), 0, cut)
    if not standing.capped:
        return bids, reasons
    return _patience(now, hold, day_start[table.connector_index], bids, reasons, standing)


def _patience(
    now: int, hold: int, day_start: Ints, bids: Ints, reasons: Flags, standing: Standing
) -> tuple[Ints, Flags]:
    """Keep what a cap or the day's budget lowered a moment ago, where more would now be permitted.

    A day is spent by an estimate, which the next report corrects: pausing and resuming with each of them would make a
    platform learn anew every minute.
    """
    capped = _CAPPED[standing.reasons]
    standing.tight_at[capped & (bids <= standing.bids)] = now
    stopped = (standing.bids == 0) & (standing.reasons != _WINDOW) & (standing.at >= day_start)
    enough = now - standing.at >= np.where(stopped, max(STOPPED, hold), hold)
    bound = (standing.reasons == _WINDOW) | ((standing.reasons >= SHIELD) & (standing.at >= day_start))
    enough &= ~bound | (now - standing.tight_at >= LASTING)
    no_less = (bids > standing.bids) | ((bids == standing.bids) & (standing.reasons >= SHIELD))
    waits = capped & ~enough & no_less
    if not waits.any():
        return bids, reasons
    return np.where(waits, standing.bids, bids), np.where(waits, standing.reasons, reasons)


_WINDOW = SHIELD + LevelReason.WINDOW_CAP
_CAPPED = np.zeros(256, dtype=np.bool_)
_CAPPED[sorted(CAPPED)] = True
_HALTS = np.zeros(256, dtype=np.bool_)
_HALTS[
    [
        LevelReason.KILL_SWITCH,
        LevelReason.SAFE_HOLD,
        LevelReason.ANOMALY,
        LevelReason.OVERSHOOT,
        LevelReason.NO_CAP,
        LevelReason.CHECK_FAILED,
    ]
] = True


class Standing:
    """The decisions that stand, one per campaign, in columns of n rows."""

    __slots__ = ("at", "bids", "capped", "reasons", "tight_at")

    def __init__(self, n: int) -> None:
        self.bids: Ints = np.full(n, -1, dtype=np.int64)
        """-1 = nothing decided yet."""
        self.reasons: Flags = np.zeros(n, dtype=np.uint8)
        self.at: Ints = np.zeros(n, dtype=np.int64)
        """Nominal time of the tick that decided; 0 = never."""
        self.tight_at: Ints = np.zeros(n, dtype=np.int64)
        """Nominal time of the last tick in which a cap let no more stand than this."""
        self.capped = False
        """Whether any reason is a cap."""

    def changed(self, bids: Ints, reasons: Flags) -> Ints:
        """Rows whose decision would be another one."""
        return np.flatnonzero((bids != self.bids) | (reasons != self.reasons))

    def take(self, rows: Ints, bids: Ints, reasons: Flags, now: int) -> None:
        """Let the new decisions of these rows stand."""
        self.bids[rows] = bids[rows]
        self.reasons[rows] = reasons[rows]
        self.at[rows] = now
        self.tight_at[rows] = now
        self.capped = bool(_CAPPED[self.reasons].any())

    def rearranged(self, old_rows: Ints) -> Standing:
        """For a table whose row i was row `old_rows[i]`, or -1."""
        other = Standing(len(old_rows))
        known = old_rows >= 0
        for name in ("bids", "reasons", "at", "tight_at"):
            getattr(other, name)[known] = getattr(self, name)[old_rows[known]]
        other.capped = self.capped
        return other


@dataclass(frozen=True, slots=True)
class Write:
    """One change a platform should get."""

    row: int
    kind: IntentKind
    before: int
    after: int
    reason: int
    cut: bool
    """A safety cut: bypasses gaps and least changes."""


def due_writes(
    now: int,
    low: int,
    high: int,
    table: CampaignTable,
    standing: Standing,
    *,
    gap: int,
    least_change: float,
    tried_at: Callable[[int], int],
    doubted: Sequence[int] = (),
) -> list[Write]:
    """What rows low..high of a connector should be told now: the last decision counts, those between are forgotten.

    `gap` microseconds lie between two bid changes of a campaign and `least_change` is the smallest relative change
    worth a call; a stop, and a bid lowered by the shield, wait for neither. A campaign without a daily budget (one for
    its lifetime, say) is stopped by nothing but the shield: it is not ours to end. `tried_at(row)` is when the platform
    last refused a change of the row, 0 = never. `doubted` rows are ones we stopped that their platform states as
    running: a stop that the shield still wants is sent again.
    """
    running = table.active[low:high] != 0
    in_force = np.where(running, table.bid_micros[low:high], 0)
    targets = standing.bids[low:high]
    rows = np.flatnonzero((targets != in_force) & (targets >= 0) & (running | (table.held[low:high] != 0)))
    if len(rows):
        rows = rows[
            _may_be_due(now, rows, targets, in_force, table.bid_set_at[low:high], standing.reasons[low:high], gap)
        ]
    writes: list[Write] = []
    for row in doubted:
        code = int(standing.reasons[row])
        if standing.bids[row] == 0 and code >= SHIELD and not table.active[row] and now - tried_at(row) >= RETRY_CUT:
            writes.append(Write(row, IntentKind.SET_STATUS, 1, 0, code, cut=True))
    for row in (rows + low).tolist():
        bid, target, code = int(table.bid_micros[row]), int(standing.bids[row]), int(standing.reasons[row])
        tried, runs = tried_at(row), bool(table.active[row])
        if target == 0:
            if code != NO_BUDGET and now - tried >= RETRY_CUT:
                writes.append(Write(row, IntentKind.SET_STATUS, 1, 0, code, cut=True))
            continue
        cut = code >= SHIELD and target < bid
        pause = gap // 3 if target < STEEP * bid else gap
        waited = now - tried >= (RETRY_CUT if cut else pause) and (cut or now - int(table.bid_set_at[row]) >= pause)
        if target != bid and waited and table.steers_bid[row] and (cut or abs(target - bid) >= least_change * bid):
            writes.append(Write(row, IntentKind.ADJUST_BID, bid, target, code, cut))
        if not runs and now - tried >= RETRY_CUT:
            writes.append(Write(row, IntentKind.SET_STATUS, 0, 1, code, cut=False))
    return writes


def _may_be_due(
    now: int, rows: Ints, targets: Ints, in_force: Ints, set_at: Ints, reasons: Flags, gap: int
) -> npt.NDArray[np.bool_]:
    """Leave out, all at once, what cannot be due: running campaigns whose plain change is inside even a third gap."""
    plain = (targets[rows] > 0) & (in_force[rows] > 0) & (reasons[rows] < SHIELD)
    return ~plain | (now - set_at[rows] >= gap // 3)


def in_order(writes: list[Write]) -> list[tuple[IntentKind, list[Write]]]:
    """Batches of one verb: stops first, then lower bids, then higher ones, and resumed campaigns last."""
    stops = [each for each in writes if each.kind is IntentKind.SET_STATUS and each.after == 0]
    bids = sorted(
        (each for each in writes if each.kind is IntentKind.ADJUST_BID), key=lambda each: each.after > each.before
    )
    resumed = [each for each in writes if each.kind is IntentKind.SET_STATUS and each.after == 1]
    batches = ((IntentKind.SET_STATUS, stops), (IntentKind.ADJUST_BID, bids), (IntentKind.SET_STATUS, resumed))
    return [(kind, batch) for kind, batch in batches if batch]
