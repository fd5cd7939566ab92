"""The compiled replay of auctions equals its twin, and both equal the rule written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiki_agent.kernels.auctions import ANSWER_CELLS, replay_auctions

AUCTIONS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 10), st.booleans()), max_size=60)


@pytest.fixture(scope="module")
def compiled():
    pytest.importorskip("numba", reason="numba is not installed")
    replay_auctions.compile()
    return replay_auctions.calls


def play(function, auctions, budget) -> list[int]:
    bids = np.array([bid for bid, _, _ in auctions], np.int64)
    prices = np.array([price for _, price, _ in auctions], np.int64)
    clicks = np.array([click for _, _, click in auctions], np.uint8)
    answer = np.full(ANSWER_CELLS, -1, np.int64)
    function(bids, prices, clicks, budget, answer)
    return [int(cell) for cell in answer]


def oracle(auctions, budget) -> list[int]:
    won: list[tuple[int, bool]] = []
    taken = 0
    for bid, price, click in auctions:
        if sum(paid for paid, _ in won) >= budget:
            break
        taken += 1
        if bid > price:
            won.append((price, click))
    return [taken, len(won), sum(click for _, click in won), sum(paid for paid, _ in won)]


@settings(deadline=None)
@given(auctions=AUCTIONS, budget=st.integers(0, 200))
def test_kernel_twin_and_rule_agree(compiled, auctions, budget):
    expected = oracle(auctions, budget)
    assert play(replay_auctions.twin, auctions, budget) == expected
    assert play(compiled, auctions, budget) == expected


def test_counts_and_costs_are_wider_than_their_columns(compiled):
    auctions = [(2**62, 10**9, True)] * 300
    expected = [300, 300, 300, 300 * 10**9]
    assert play(replay_auctions.twin, auctions, 2**62) == expected
    assert play(compiled, auctions, 2**62) == expected
