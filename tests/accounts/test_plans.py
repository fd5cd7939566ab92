"""What campaigns plan their day with: within the cap of the connector, and none with what is another's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kiki_agent.accounts.table import CampaignTable, even_level
from kiki_agent.model import CampaignStatus

from .platform import campaign

UNIT = 1_000_000


@given(st.lists(st.integers(0, 10**15), min_size=1, max_size=30), st.integers(0, 10**15))
def test_parts_are_cut_to_one_level_and_no_further_than_they_must(parts: list[int], most: int) -> None:
    level = even_level(np.array(parts, dtype=np.int64), most)
    cut = [min(each, level) for each in parts]
    assert sum(cut) <= most or cut == parts
    if cut != parts:
        assert sum(min(each, level + 1) for each in parts) > most


def test_one_huge_budget_does_not_take_the_plans_of_the_others() -> None:
    table = CampaignTable(["meta"])
    rows = [campaign(name, daily_budget_micros=100 * UNIT) for name in "abc"]
    table.plan_within("meta", 1_000 * UNIT)
    table.replace_rows(rows, frozenset())
    assert table.pace_budget_micros.tolist() == [100 * UNIT] * 3
    table.set_row(0, replace(rows[0], daily_budget_micros=900_000 * UNIT))
    assert table.pace_budget_micros.tolist() == [800 * UNIT, 100 * UNIT, 100 * UNIT]
    assert table.most_a_day("meta").tolist() == [1_000 * UNIT, 100 * UNIT, 100 * UNIT]
    table.plan_within("meta", 250 * UNIT)
    assert table.pace_budget_micros.tolist() == [83_333_333] * 3
    table.set_row(1, replace(rows[1], status=CampaignStatus.PAUSED))  # what cannot run takes no part
    assert table.pace_budget_micros.tolist() == [150 * UNIT, 100 * UNIT, 100 * UNIT]
    table.plan_within("meta", None)
    assert table.pace_budget_micros.tolist() == [900_000 * UNIT, 100 * UNIT, 100 * UNIT]


def test_a_shared_budget_is_planned_in_parts_within_the_cap() -> None:
    table = CampaignTable(["meta"])
    shared = [campaign(name, daily_budget_micros=90_000 * UNIT, budget_id="s") for name in "ab"]
    table.plan_within("meta", 1_000 * UNIT)
    table.replace_rows([*shared, campaign("c", daily_budget_micros=100 * UNIT)], frozenset())
    assert table.pace_budget_micros.tolist() == [450 * UNIT, 450 * UNIT, 100 * UNIT]
