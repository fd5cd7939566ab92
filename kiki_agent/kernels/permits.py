"""May these levels stand? One pass over all campaigns of all connectors, in integers.

A level is a bid set at a platform that spends by itself and reports later. It holds one exposure: the most it can
spend until the next report tells, its upper spend rate times (age of the data + polling interval), at least one
click, and never more than what is left of its daily budget. Exposures that together pass the room of their connector
are scaled down with their bids, in sixteenths so that a bid does not change on every tick. Before that, an exposure of
more than half the room is cut to a fair part of it, so that one campaign does not take the others' place.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kiki_agent.kernels.compile import kernel

PERMITTED = 0
INACTIVE = 1
NOT_WANTED = 2
BELOW_MINIMUM = 3
DAILY_BUDGET = 4
DAILY_CAP = 5
WINDOW_CAP = 6
OVERSHOOT = 7
NO_CAP = 8
KILL_SWITCH = 9
SAFE_HOLD = 10
NO_LEASE = 11
BAD_INPUT = 12
CHECK_FAILED = 13
ANOMALY = 14

STEP_BITS = 4
STEPS = 1 << STEP_BITS
"""Levels are lowered in steps of one sixteenth of the wanted bid."""
MOST_MICROS = 10**15
"""No amount may be larger; keeps every product below 2**63."""
MOST_RATE = 10**10
"""Micros a second: 10,000 units a second, beyond any account."""
LONGEST_MILLISECONDS = 864_000_000
"""Ten days: data older than that is as good as none, and the daily budget bounds the exposure anyway."""

Column = npt.NDArray[np.int64]
Flags = npt.NDArray[np.uint8]


def exposure_of(rate: int, microseconds: int, at_least: int, at_most: int) -> int:
    """The most a level spends in a time, rounded up, within bounds."""
    if rate > MOST_RATE:
        return at_most
    milliseconds = (microseconds + 999) // 1000
    if milliseconds > LONGEST_MILLISECONDS:
        milliseconds = LONGEST_MILLISECONDS
    amount = (rate * milliseconds + 999) // 1000
    if amount < at_least:
        amount = at_least
    if amount > at_most:
        amount = at_most
    return amount


def steps_of(room: int, wanted: int) -> int:
    """How many sixteenths of the wanted sum fit into the room."""
    if wanted <= room:
        return STEPS
    if room <= 0:
        return 0
    return STEPS * room // wanted


def fair_part(room: int, wanted: int, k: int, connector: Column, claims: Column, reason: Flags) -> int:
    """The most that one claim counts for: all of it while all fit, else an even part beside the others of its size.

    With h claims above half the room each of them counts for 1 / (h + 1) of it, so a like part is left for the rest.
    """
    if wanted <= room:
        return MOST_MICROS
    half = room // 2
    large = 0
    others = 0
    for i in range(len(connector)):
        if reason[i] == PERMITTED and connector[i] == k:
            if claims[i] > half:
                large += 1
            else:
                others = 1
    if large == 0:
        return MOST_MICROS
    return room // (large + others)


def counted(k: int, most: int, connector: Column, claims: Column, reason: Flags) -> int:
    """Sum of a connector's claims, none counted for more than `most`."""
    together = 0
    for i in range(len(connector)):
        if reason[i] == PERMITTED and connector[i] == k:
            together = min(MOST_MICROS * 64, together + min(most, int(claims[i])))
    return together


def cut_steps(claim: int, most: int, steps: int) -> int:
    """How many sixteenths of one claim stand, when claims of `most` stand with `steps`."""
    if claim <= most:
        return steps
    return most * steps // claim


def refusal_of(active: int, wanted: int, least: int, budget: int, spent: int, rate: int, block: int) -> int:
    """Why a level may not stand whatever its connector has left, or 0."""
    if active == 0:
        return INACTIVE
    if wanted < 0 or least < 0 or budget < 0 or spent < 0 or rate < 0:
        return BAD_INPUT
    if wanted > MOST_MICROS or budget > MOST_MICROS or spent > MOST_MICROS:
        return BAD_INPUT
    if block != 0:
        return block
    if wanted == 0:
        return NOT_WANTED
    if wanted < least:
        return BELOW_MINIMUM
    if spent >= budget:
        return DAILY_BUDGET
    return PERMITTED


def grant(
    connector: Column,
    wanted_bid: Column,
    min_bid: Column,
    room: npt.NDArray[np.int64],
    bid: Column,
    exposure: Column,
    window_exposure: Column,
    reason: Flags,
    held: npt.NDArray[np.int64],
) -> int:
    """Scale wished exposures, whose sums stand in `held`, into the room; returns how many levels stand."""
    standing = 0
    fair = np.empty((len(room), 2), dtype=np.int64)
    for k in range(len(room)):
        fair[k, 0] = fair_part(int(room[k, 0]), int(held[k, 0]), k, connector, exposure, reason)
        fair[k, 1] = fair_part(int(room[k, 1]), int(held[k, 1]), k, connector, window_exposure, reason)
        if fair[k, 0] < MOST_MICROS:
            held[k, 0] = counted(k, int(fair[k, 0]), connector, exposure, reason)
        if fair[k, 1] < MOST_MICROS:
            held[k, 1] = counted(k, int(fair[k, 1]), connector, window_exposure, reason)
        held[k, 0] = steps_of(int(room[k, 0]), int(held[k, 0]))
        held[k, 1] = steps_of(int(room[k, 1]), int(held[k, 1]))
    for i in range(len(connector)):
        if reason[i] != PERMITTED:
            continue
        k = int(connector[i])
        by_day = cut_steps(int(exposure[i]), int(fair[k, 0]), int(held[k, 0]))
        by_window = cut_steps(int(window_exposure[i]), int(fair[k, 1]), int(held[k, 1]))
        wanted = int(wanted_bid[i])
        if by_day >= STEPS and by_window >= STEPS:
            bid[i] = wanted
            standing += 1
            continue
        reason[i] = DAILY_CAP if by_day <= by_window else WINDOW_CAP
        steps = min(by_day, by_window)
        lowered = wanted * steps >> STEP_BITS
        shrunk = int(exposure[i]) * steps >> STEP_BITS
        if lowered <= 0 or lowered < min_bid[i] or shrunk <= 0:
            exposure[i] = 0
            window_exposure[i] = 0
            continue
        bid[i] = lowered
        exposure[i] = shrunk
        window_exposure[i] = int(window_exposure[i]) * steps >> STEP_BITS
        standing += 1
    for k in range(len(room)):
        held[k, 0] = 0
        held[k, 1] = 0
    for i in range(len(connector)):
        if bid[i] > 0:
            held[connector[i], 0] += exposure[i]
            held[connector[i], 1] += window_exposure[i]
    return standing


@kernel(
    "int64(int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], uint8[::1],"
    " int64[:,::1], int64, int64, int64[::1], int64[::1], int64[::1], uint8[::1], int64[:,::1])",
    inline=(exposure_of, steps_of, fair_part, counted, cut_steps, refusal_of, grant),
)
def permit(
    connector: Column,
    wanted_bid: Column,
    min_bid: Column,
    daily_budget: Column,
    spend_today: Column,
    spend_rate: Column,
    data_age: Column,
    active: Flags,
    room: npt.NDArray[np.int64],
    poll: int,
    window: int,
    bid: Column,
    exposure: Column,
    window_exposure: Column,
    reason: Flags,
    held: npt.NDArray[np.int64],
) -> int:
    """Decide n levels of k connectors; returns how many stand as wanted or lowered.

    In: n rows as in `LevelRequest`; `room[k] = (day micros, window micros, blocking reason or 0)`; `poll` and `window`
    in microseconds. Out: `bid`, `exposure`, `window_exposure` and `reason` of n rows, and `held[k] = (day, window)`
    sums of the granted exposures, never above the room.
    """
    rows = len(connector)
    connectors = len(room)
    for k in range(connectors):
        held[k, 0] = 0
        held[k, 1] = 0
    for i in range(rows):
        bid[i] = 0
        exposure[i] = 0
        window_exposure[i] = 0
        k = int(connector[i])
        if k < 0 or k >= connectors:
            reason[i] = BAD_INPUT
            continue
        wanted = int(wanted_bid[i])
        budget = int(daily_budget[i])
        spent = int(spend_today[i])
        rate = int(spend_rate[i])
        why = refusal_of(int(active[i]), wanted, int(min_bid[i]), budget, spent, rate, int(room[k, 2]))
        reason[i] = why
        if why != PERMITTED:
            continue
        horizon = max(0, int(data_age[i])) + poll
        whole = exposure_of(rate, horizon, wanted, budget - spent)
        inside = exposure_of(rate, min(horizon, window), wanted, whole)
        exposure[i] = whole
        window_exposure[i] = inside
        held[k, 0] = min(MOST_MICROS * 64, int(held[k, 0]) + whole)
        held[k, 1] = min(MOST_MICROS * 64, int(held[k, 1]) + inside)
    return grant(connector, wanted_bid, min_bid, room, bid, exposure, window_exposure, reason, held)
