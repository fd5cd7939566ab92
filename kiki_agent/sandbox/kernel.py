"""The market's step as one kernel: auctions, clicks, conversions that arrive late, restatements, repeat purchases.

Arithmetic is limited to + - * / and comparisons of 64-bit numbers, so the plain Python twin and the machine code give
the same bits. All randomness comes from `noise`, keyed by entity and step: what a campaign does never changes the
noise another one sees.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kiki_agent.kernels.compile import kernel
from kiki_agent.sandbox.layout import (
    ACQUIRED,
    ACTIVE,
    APPETITE,
    AUDIENCE,
    BEGIN,
    BID,
    BUDGET,
    CLICK_ORDER,
    CLICK_STEP,
    CLICKED,
    CLICKS,
    COMPETITION,
    CONVERSIONS,
    CONVERT,
    CUSTOMER,
    DELAY_SHAPE,
    DEMAND,
    DROPPED,
    EARNED,
    FATIGUE,
    FIRST,
    FIRST_VALUE,
    GAP_SHAPE,
    GONE,
    GRID,
    HOME,
    IMPRESSIONS,
    KEY,
    LAST,
    LAST_PURCHASE,
    MAX_CLICKS,
    MEDIAN,
    METRICS,
    NEXT,
    NOTED,
    NOTES,
    PEOPLE,
    PERIOD,
    PRICE_SHAPE,
    PURCHASES,
    QUALITY,
    REFRESHED,
    REFRESHED_BEFORE,
    REPEAT,
    REVENUE,
    REVERSED,
    RING_DAYS,
    S_CLICKS,
    S_CONVERT,
    S_DELAY,
    S_DRIFT,
    S_GAP,
    S_PRICE,
    S_REPEAT,
    S_REVERSE,
    S_VALUE,
    S_WHEN,
    SERIAL,
    SIDE,
    SPEND,
    SPENT,
    STATE,
    STEP_NOW,
    STEPS_PER_DAY,
    STEPS_PER_HOUR,
    SWING_PRICE,
    UPDATED,
    VALUE,
    VALUE_SHAPE,
    VIEW_CARRY,
    VIEWS,
    WHEEL,
    WINDOW_DAYS,
)
from kiki_agent.sandbox.noise import draw, mix, unit, wave

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

FATIGUE_STEPS = 2.0 * STEPS_PER_DAY
"""Mean life of an audience's fatigue: two days."""
REVERSAL_SHARE = 0.06
"""Share of conversions that are taken back (refunds, invalid clicks) one to five days after they were reported."""
LIFE_STEPS = 90 * STEPS_PER_DAY
"""A customer buys within this time of the first purchase."""
QUALITY_SWING = 0.2
"""How far the appeal of a campaign wanders by itself."""
SLOW, FAST = 8 * STEPS_PER_DAY, 3 * STEPS_PER_DAY
"""Spacing of the two waves that move a platform's conditions."""


def share_below(shape: Floats, ratio: float) -> float:
    """Share of auctions whose highest competing price lies below `ratio` times the median: the win share of a bid."""
    if ratio <= shape[0]:
        return 0.0
    if ratio >= shape[GRID]:
        return 1.0
    low = 0
    high = GRID
    while high - low > 1:
        middle = (low + high) >> 1
        if shape[middle] <= ratio:
            low = middle
        else:
            high = middle
    left = shape[low]
    return float((low + (ratio - left) / (shape[high] - left)) / GRID)


def quantile(shape: Floats, probability: float) -> float:
    """Value of a quantile function at a probability in [0, 1]."""
    place = probability * GRID
    low = int(place)
    if low >= GRID:
        low = GRID - 1
    left = shape[low]
    return float(left + (shape[low + 1] - left) * (place - low))


def count(expected: float, chance: float) -> int:
    """Poisson count by inversion; grows with `expected` for the same `chance`. exp(-x) by series and squaring."""
    if expected > MAX_CLICKS:
        expected = MAX_CLICKS
    small = expected / 32.0
    term = 1.0 - small * (1.0 - small / 2.0 * (1.0 - small / 3.0 * (1.0 - small / 4.0 * (1.0 - small / 5.0))))
    for _ in range(5):
        term = term * term
    total = term
    number = 0
    while chance >= total and number < 63:
        number += 1
        term = term * expected / number
        total += term
    return number


def schedule(people: Ints, wheel: Ints, slot: int, step: int) -> None:
    """Put a person's next event into the wheel."""
    spoke = step & (WHEEL - 1)
    people[NEXT, slot] = wheel[spoke]
    wheel[spoke] = slot


def note(people: Ints, notes: Ints, counters: Ints, slot: int, step: int) -> None:
    """Write into the journal that a customer changed; a reader follows it with a cursor."""
    position = counters[NOTES]
    notes[position % notes.shape[0]] = people[SERIAL, slot]
    people[NOTED, slot] = position
    people[UPDATED, slot] = step
    counters[NOTES] = position + 1


def follow_up(people: Ints, wheel: Ints, shapes: Floats, repeat: float, slot: int, step: int) -> None:
    """Decide whether a customer buys again, and when."""
    key = people[KEY, slot]
    bought = people[PURCHASES, slot]
    if unit(key, bought * 32 + S_REPEAT) < repeat:
        gap = int(quantile(shapes[GAP_SHAPE], unit(key, bought * 32 + S_GAP)))
        if step + gap < people[ACQUIRED, slot] + LIFE_STEPS:
            schedule(people, wheel, slot, step + gap)
            return
    people[STATE, slot] = GONE


def happen(
    people: Ints,
    wheel: Ints,
    notes: Ints,
    counters: Ints,
    days: Ints,
    traits: Floats,
    places: Floats,
    homes: Ints,
    shapes: Floats,
    slot: int,
    step: int,
) -> None:
    """One event of one person: a conversion is reported, taken back, or a customer buys again."""
    campaign = people[HOME, slot]
    day = (people[CLICK_STEP, slot] // STEPS_PER_DAY) % RING_DAYS
    key = people[KEY, slot]
    state = people[STATE, slot]
    bought = people[PURCHASES, slot]
    repeat = places[REPEAT, homes[campaign]]
    if state == CLICKED:
        value = people[FIRST_VALUE, slot]
        days[CONVERSIONS, day, campaign] += 1
        days[REVENUE, day, campaign] += value
        people[ACQUIRED, slot] = step
        people[LAST_PURCHASE, slot] = step
        people[PURCHASES, slot] = 1
        people[EARNED, slot] = value
        if unit(key, bought * 32 + S_REVERSE) < REVERSAL_SHARE:
            people[STATE, slot] = REVERSED
            wait = STEPS_PER_DAY + int(unit(key, bought * 32 + S_WHEN) * 4 * STEPS_PER_DAY)
            schedule(people, wheel, slot, step + wait)
        else:
            people[STATE, slot] = CUSTOMER
            follow_up(people, wheel, shapes, repeat, slot, step)
    elif state == REVERSED:
        days[CONVERSIONS, day, campaign] -= 1
        days[REVENUE, day, campaign] -= people[FIRST_VALUE, slot]
        people[PURCHASES, slot] = 0
        people[EARNED, slot] = 0
        people[STATE, slot] = GONE
    else:
        share = quantile(shapes[VALUE_SHAPE], unit(key, bought * 32 + S_VALUE))
        people[EARNED, slot] += int(traits[VALUE, campaign] * share) // 10000 * 10000
        people[PURCHASES, slot] += 1
        people[LAST_PURCHASE, slot] = step
        follow_up(people, wheel, shapes, repeat, slot, step)
    note(people, notes, counters, slot, step)


def convert(
    people: Ints,
    wheel: Ints,
    counters: Ints,
    traits: Floats,
    shapes: Floats,
    campaign: int,
    key: int,
    step: int,
    order: int,
) -> None:
    """A click will become a customer: fix the first purchase and when it is reported."""
    serial = counters[PEOPLE]
    slot = serial % people.shape[1]
    if people[STATE, slot] != 0 and people[STATE, slot] != GONE:
        counters[DROPPED] += 1
        return
    counters[PEOPLE] = serial + 1
    bought = order * 0
    own = draw(key, (step * 64 + order) * 32 + S_VALUE)
    people[SERIAL, slot] = serial
    people[STATE, slot] = CLICKED
    people[HOME, slot] = campaign
    people[CLICK_STEP, slot] = step
    people[CLICK_ORDER, slot] = order
    people[KEY, slot] = own
    share = quantile(shapes[VALUE_SHAPE], unit(own, bought * 32 + S_VALUE))
    people[FIRST_VALUE, slot] = int(traits[VALUE, campaign] * share) // 10000 * 10000
    people[PURCHASES, slot] = bought
    people[EARNED, slot] = 0
    people[NOTED, slot] = -1
    delay = 1 + int(quantile(shapes[DELAY_SHAPE], unit(own, bought * 32 + S_DELAY)))
    schedule(people, wheel, slot, step + delay)


def auction(
    control: Ints,
    keys: Ints,
    homes: Ints,
    traits: Floats,
    moods: Floats,
    places: Floats,
    days: Ints,
    people: Ints,
    wheel: Ints,
    counters: Ints,
    shapes: Floats,
    campaign: int,
    step: int,
    traffic: float,
) -> None:
    """One campaign's step: the auctions it wins, the clicks it pays, the people who will buy."""
    fatigue = moods[FATIGUE, campaign]
    fatigue -= fatigue / FATIGUE_STEPS
    moods[FATIGUE, campaign] = fatigue
    left = control[BUDGET, campaign] - control[SPENT, campaign]
    if control[ACTIVE, campaign] == 0 or left <= 0:
        return
    place = homes[campaign]
    key = keys[campaign]
    median = traits[MEDIAN, campaign] * places[COMPETITION, place]
    won = share_below(shapes[PRICE_SHAPE + place], control[BID, campaign] / median)
    expected = traits[DEMAND, campaign] * traffic * won
    if expected <= 0.0:
        return
    day = (step // STEPS_PER_DAY) % RING_DAYS
    views = moods[VIEW_CARRY, campaign] + expected * traits[VIEWS, campaign]
    clicks = count(expected, unit(key, step * 32 + S_CLICKS))
    chance = traits[CONVERT, campaign] * places[APPETITE, place] * moods[QUALITY, campaign]
    chance = chance / (1.0 + fatigue / traits[AUDIENCE, campaign])
    for order in range(clicks):
        level = unit(key, (step * 64 + order) * 32 + S_PRICE) * won
        price = int(quantile(shapes[PRICE_SHAPE + place], level) * median)
        if price > control[BID, campaign]:
            price = control[BID, campaign]
        if price < 1:
            price = 1
        if price > left:
            break
        left -= price
        control[SPENT, campaign] += price
        days[SPEND, day, campaign] += price
        days[CLICKS, day, campaign] += 1
        if views < 1.0:
            views = 1.0
        moods[FATIGUE, campaign] += 1.0
        if unit(key, (step * 64 + order) * 32 + S_CONVERT) < chance:
            convert(people, wheel, counters, traits, shapes, campaign, key, step, order)
    shown = int(views)
    days[IMPRESSIONS, day, campaign] += shown
    moods[VIEW_CARRY, campaign] = views - shown


def drift(places: Floats, moods: Floats, keys: Ints, place_keys: Ints, step: int) -> None:
    """Move what changes slowly: price level and appetite of each platform, quality of each campaign."""
    for place in range(place_keys.shape[0]):
        for what in range(2):
            level = 0.0
            for number in range(2):
                span = FAST if number == 1 else SLOW
                share = 0.3 if number == 1 else 0.7
                level += share * wave(place_keys[place], step, span, S_DRIFT + what * 2 + number)
            places[COMPETITION + what, place] = 1.0 + places[SWING_PRICE + what, place] * level
    for campaign in range(keys.shape[0]):
        moods[QUALITY, campaign] = 1.0 + QUALITY_SWING * wave(keys[campaign], step, SLOW, S_DRIFT)


def publish(days: Ints, published: Ints, reports: Ints, place: int, step: int) -> None:
    """Refresh one platform's report: copy the account days that may have changed; the copy before stays readable."""
    side = 1 - reports[SIDE, place]
    today = step // STEPS_PER_DAY
    for metric in range(METRICS):
        for back in range(WINDOW_DAYS + 1):
            day = (today - back) % RING_DAYS
            for campaign in range(reports[FIRST, place], reports[LAST, place]):
                published[side, metric, day, campaign] = days[metric, day, campaign]
    reports[SIDE, place] = side
    reports[REFRESHED_BEFORE, place] = reports[REFRESHED, place]
    reports[REFRESHED, place] = step


@kernel(
    "void(int64, int64[:, ::1], int64[::1], int64[::1], int64[::1], float64[:, ::1], float64[:, ::1], "
    "float64[:, ::1], int64[:, :, ::1], int64[:, :, :, ::1], int64[:, ::1], int64[:, ::1], int64[::1], int64[::1], "
    "int64[::1], float64[:, ::1], float64[:, ::1])",
    inline=(
        mix,
        draw,
        unit,
        wave,
        share_below,
        quantile,
        count,
        schedule,
        note,
        follow_up,
        happen,
        convert,
        auction,
        drift,
        publish,
    ),
)
def advance(
    last: int,
    control: Ints,
    keys: Ints,
    homes: Ints,
    place_keys: Ints,
    traits: Floats,
    moods: Floats,
    places: Floats,
    days: Ints,
    published: Ints,
    reports: Ints,
    people: Ints,
    wheel: Ints,
    notes: Ints,
    counters: Ints,
    traffic: Floats,
    shapes: Floats,
) -> None:
    """Run all steps from the market's present step up to, not including, `last`."""
    for step in range(counters[STEP_NOW], last):
        today = step // STEPS_PER_DAY
        if step % STEPS_PER_DAY == 0:
            column = today % RING_DAYS
            for campaign in range(keys.shape[0]):
                control[SPENT, campaign] = 0
                for metric in range(METRICS):
                    days[metric, column, campaign] = 0
        if step % STEPS_PER_HOUR == 0 or step == counters[BEGIN]:
            drift(places, moods, keys, place_keys, step)
        for place in range(place_keys.shape[0]):
            if step % reports[PERIOD, place] == 0:
                publish(days, published, reports, place, step)
        spoke = step & (WHEEL - 1)
        slot = wheel[spoke]
        wheel[spoke] = -1
        while slot >= 0:
            following = people[NEXT, slot]
            happen(people, wheel, notes, counters, days, traits, places, homes, shapes, slot, step)
            slot = following
        hour = ((today + 3) % 7) * 24 + (step % STEPS_PER_DAY) // STEPS_PER_HOUR
        for campaign in range(keys.shape[0]):
            auction(
                control,
                keys,
                homes,
                traits,
                moods,
                places,
                days,
                people,
                wheel,
                counters,
                shapes,
                campaign,
                step,
                traffic[homes[campaign], hour],
            )
    counters[STEP_NOW] = last
