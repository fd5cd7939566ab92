"""Second-price auctions in the order they happened: who wins, what it costs, and where the budget ends.

The bids stand beforehand, in one column, so this pass needs integers alone: a bid wins if it is above the market
price, pays the market price, and bidding stops before the first auction at which the cost has reached the budget.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kiki_agent.kernels.compile import kernel

# cells of the answer
BIDS, IMPRESSIONS, CLICKS, COST = range(4)
ANSWER_CELLS = 4

Column = npt.NDArray[np.int64]
Flags = npt.NDArray[np.uint8]


@kernel("void(int64[::1], int64[::1], uint8[::1], int64, int64[::1])")
def replay_auctions(bids: Column, prices: Column, clicked: Flags, budget: int, answer: Column) -> None:
    """Play n auctions with bids and market prices in one unit, and fill `answer` (bids, impressions, clicks, cost).

    `bids` counts the auctions taken part in, also those with a bid of 0; `budget` is the cost at which to stop.
    """
    taken = 0
    impressions = 0
    clicks = 0
    cost = 0
    for index in range(len(bids)):
        if cost >= budget:
            break
        taken += 1
        price = int(prices[index])
        if bids[index] > price:
            impressions += 1
            clicks += int(clicked[index])
            cost += price
    answer[BIDS] = taken
    answer[IMPRESSIONS] = impressions
    answer[CLICKS] = clicks
    answer[COST] = cost
