"""Names of the rows and columns the market keeps its state in, shared by the kernel and everything that reads it."""

from __future__ import annotations

STEP = 60_000_000
"""Microseconds of one market step."""
STEPS_PER_HOUR = 60
STEPS_PER_DAY = 1_440
RING_DAYS = 128
"""Account days kept; must exceed the longest look-back a report may ask for."""
WINDOW_DAYS = 20
"""Account days that may still restate, and are copied at each refresh of a report."""
WHEEL = 65_536
"""Steps ahead an event can be scheduled: 45.5 days. A power of two."""
MAX_CLICKS = 30.0
"""Most clicks one campaign can expect in one step."""

# rows of `control`: what a platform's customer can set, and today's spend
BID, BUDGET, ACTIVE, SPENT = range(4)
# rows of `traits`: what a campaign is, drawn once
MEDIAN, DEMAND, CONVERT, AUDIENCE, VIEWS, VALUE = range(6)
# rows of `moods`: what moves by itself
FATIGUE, VIEW_CARRY, QUALITY = range(3)
# rows of `places`: per platform; the first two move with time
COMPETITION, APPETITE, REPEAT, SWING_PRICE, SWING_APPETITE = range(5)
# metrics of a campaign-day
IMPRESSIONS, CLICKS, CONVERSIONS, SPEND, REVENUE = range(5)
METRICS = 5
# rows of `reports`: per platform
FIRST, LAST, PERIOD, LAG, REFRESHED, REFRESHED_BEFORE, SIDE = range(7)
# rows of `people`
(
    SERIAL,
    STATE,
    HOME,
    CLICK_STEP,
    CLICK_ORDER,
    KEY,
    ACQUIRED,
    PURCHASES,
    EARNED,
    FIRST_VALUE,
    LAST_PURCHASE,
    UPDATED,
    NOTED,
    NEXT,
) = range(14)
PEOPLE_ROWS = 14
# states of a person
FREE, CLICKED, CUSTOMER, REVERSED, GONE = range(5)
# cells of `counters`
STEP_NOW, BEGIN, PEOPLE, NOTES, DROPPED = range(5)
COUNTERS = 8
# rows of `shapes`: quantile functions on an even grid of probabilities; prices have a row for each platform
DELAY_SHAPE, GAP_SHAPE, VALUE_SHAPE, PRICE_SHAPE = range(4)
GRID = 512
"""Intervals of each quantile function; rows of `shapes` have GRID + 1 points."""
# streams of noise: one draw each per entity and tick
S_CLICKS, S_PRICE, S_CONVERT, S_DELAY, S_VALUE, S_REVERSE, S_WHEN, S_REPEAT, S_GAP, S_DRIFT = range(10)
