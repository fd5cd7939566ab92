"""What the two-second loop decides, records and tells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kiki_agent.config import BiddingSettings
from kiki_agent.flow.rule import LASTING, Standing, due_writes, settle
from kiki_agent.kernels import bids
from kiki_agent.model import (
    HOUR,
    MINUTE,
    SECOND,
    CampaignStatus,
    DecisionOutcome,
    DecisionSource,
    Instant,
    IntentKind,
)
from kiki_agent.shield import Caps, LevelAnswer, LevelReason, LevelRequest

from .conftest import Make, Rig
from .market import MIDNIGHT, Entity, Market, campaign


def three() -> list[Entity]:
    return [
        Entity(campaign("a"), 300),
        Entity(campaign("b", status=CampaignStatus.PAUSED), 300),
        Entity(campaign("c", "google", daily_budget_micros=50_000_000), 300),
    ]


async def test_every_campaign_gets_a_decision_and_equal_ones_are_only_counted(make_rig: Make) -> None:
    rig = await make_rig(three()).start()
    await rig.run(MIDNIGHT + 20 * SECOND)
    assert {(d.connector, d.campaign_id, d.outcome, d.reason) for _, d in rig.changes()} == {
        ("google", "c", DecisionOutcome.ACCEPTED, "ON_PLAN"),
        ("meta", "a", DecisionOutcome.ACCEPTED, "ON_PLAN"),
        ("meta", "b", DecisionOutcome.REJECTED, "PAUSED"),
    }
    await rig.book.flush(rig.now)
    runs, total = await rig.book.decisions()
    assert total == 3
    assert {run.ticks for run in runs} == {10}
    assert rig.bidder.last_reason == "all 3 decisions stand"


async def test_nothing_is_decided_before_a_platform_has_spoken(make_rig: Make) -> None:
    rig = await make_rig(three()).start()
    assert await rig.bidder.tick(MIDNIGHT) == "no campaign is known yet"
    await rig.pollers[0].tick(MIDNIGHT)
    await rig.bidder.tick(MIDNIGHT)
    first = rig.accounts.connectors[0]
    assert {d.connector for _, d in rig.changes()} == {first}


async def test_the_source_and_the_model_of_the_value_stand_in_the_decision(make_rig: Make) -> None:
    rig = await make_rig(three()).start()
    await rig.run(MIDNIGHT + 10 * SECOND)
    rig.changes()
    rig.value.source, rig.value.version = DecisionSource.FALLBACK, "prior"
    await rig.run(MIDNIGHT + 12 * SECOND)
    changed = [d for _, d in rig.changes()]
    assert len(changed) == 3
    assert {(d.source, d.model_version, d.ltv_micros) for d in changed} == {
        (DecisionSource.FALLBACK, "prior", 300_000_000)
    }
    rig.value.ltv = 301_000_000
    await rig.run(MIDNIGHT + 14 * SECOND)
    assert not rig.changes(), "a value that moves no bid makes no decision new"


async def test_the_kill_switch_stops_every_bid_within_a_tick_and_the_platform_is_told(make_rig: Make) -> None:
    rig = await make_rig(three()).start()
    await rig.run(MIDNIGHT + MINUTE)
    rig.changes()
    await rig.shield.kill(True, "a test", rig.now)
    await rig.run(MIDNIGHT + MINUTE + 2 * SECOND)
    assert {(d.campaign_id, d.bid_micros, d.reason) for _, d in rig.changes()} == {
        ("a", 0, "KILL_SWITCH"),
        ("c", 0, "KILL_SWITCH"),
    }
    await rig.run(MIDNIGHT + MINUTE + 22 * SECOND)
    status = {name: each.campaign.status for (_, name), each in rig.market.entities.items()}
    assert set(status.values()) == {CampaignStatus.PAUSED}
    await rig.shield.kill(False, "", rig.now)
    await rig.run(rig.now + 2 * SECOND + 1)
    assert {(d.campaign_id, d.outcome) for _, d in rig.changes()} == {
        ("a", DecisionOutcome.ACCEPTED),
        ("c", DecisionOutcome.ACCEPTED),
    }
    await rig.run(rig.now + 70 * SECOND)
    status = {name: each.campaign.status for (_, name), each in rig.market.entities.items()}
    assert status == {"a": CampaignStatus.ACTIVE, "b": CampaignStatus.PAUSED, "c": CampaignStatus.ACTIVE}


async def test_a_shield_that_breaks_permits_nothing(make_rig: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = await make_rig(three()).start()
    await rig.run(MIDNIGHT + MINUTE)
    rig.changes()

    async def broken(now: Instant, request: LevelRequest) -> LevelAnswer:
        raise RuntimeError("no shield")

    monkeypatch.setattr(rig.shield, "permit_levels", broken)
    with pytest.raises(RuntimeError, match="no shield"):
        await rig.bidder.tick(rig.now)
    assert {(d.bid_micros, d.reason) for _, d in rig.changes()} == {(0, "CHECK_FAILED")}


async def test_without_a_cap_nothing_bids(make_rig: Make) -> None:
    rig = await make_rig(three(), daily_cap=None).start()
    await rig.run(MIDNIGHT + MINUTE)
    reasons = {d.campaign_id: (d.bid_micros, d.reason) for _, d in rig.changes()}
    assert reasons == {"a": (0, "NO_CAP"), "b": (0, "PAUSED"), "c": (0, "NO_CAP")}


async def test_a_day_cap_lowers_or_stops_bids_before_it_is_passed(make_rig: Make) -> None:
    rig = make_rig([Entity(campaign("a"), 2_000), Entity(campaign("b"), 2_000)], daily_cap=10_000_000, interval_s=10.0)
    await rig.start()
    await rig.run(MIDNIGHT + 6 * HOUR)
    stats = rig.shield.status("meta", rig.now)
    assert stats.spent_today_micros <= 10_500_000, "one polling interval of spend at most"
    assert all(each.campaign.status is CampaignStatus.PAUSED for each in rig.market.entities.values())
    changes = rig.changes()
    assert {d.reason for _, d in changes} & {"DAILY_CAP", "OVERSHOOT"}
    assert len(changes) < 150, "a cap does not make decisions flap"


async def test_a_campaign_whose_bids_its_platform_sets_is_stopped_but_never_bid_for(make_rig: Make) -> None:
    rig = await make_rig([Entity(campaign("a", steers_bid=False), 300), Entity(campaign("b"), 300)]).start()
    await rig.run(MIDNIGHT + HOUR)
    assert {(d.bid_micros, d.reason) for _, d in rig.changes() if d.campaign_id == "a"} == {(300_000, "PLATFORM_BIDS")}
    assert rig.market.entities["meta", "a"].campaign.bid_micros == 300_000
    await rig.shield.kill(True, "a test", rig.now)
    await rig.run(rig.now + MINUTE)
    assert rig.market.entities["meta", "a"].campaign.status is CampaignStatus.PAUSED


async def test_a_cap_that_leaves_too_little_stops_a_campaign_that_cannot_be_lowered(make_rig: Make) -> None:
    entities = [Entity(campaign("a", steers_bid=False), 2_000), Entity(campaign("b"), 2_000)]
    rig = make_rig(entities, daily_cap=10_000_000, interval_s=10.0)
    await rig.start()
    await rig.run(MIDNIGHT + 6 * HOUR)
    assert {d.bid_micros for _, d in rig.changes() if d.campaign_id == "a"} <= {0, 300_000}
    assert rig.market.entities["meta", "a"].campaign.status is CampaignStatus.PAUSED
    assert rig.shield.status("meta", rig.now).spent_today_micros <= 10_500_000


async def test_campaigns_that_share_a_budget_plan_with_a_part_of_it_each(make_rig: Make) -> None:
    shared = [Entity(campaign(name, budget_id="b1"), 3_000) for name in ("a", "b", "c", "d")]
    rig = await make_rig(shared).start()
    await rig.run(MIDNIGHT + 12 * HOUR)
    spent = rig.shield.status("meta", rig.now).spent_today_micros
    assert 40_000_000 < spent < 60_000_000, "half of the one budget of 100 in half a day, not of four"


async def test_a_restart_goes_on_with_the_decisions_in_force(make_rig: Make) -> None:
    rig = await make_rig(three(), interval_s=10.0).start()
    await rig.run(MIDNIGHT + HOUR)
    in_force = {(each.connector, each.campaign_id): each.bid_micros for each in rig.accounts.campaigns()}
    decided = rig.bidder.standing.bids.tolist()
    await rig.book.flush(rig.now)
    await rig.store.close()
    again = await Rig(rig.path, rig.market, rig.caps, rig.settings.bidding).start(rig.now)
    rig.store, rig.book = again.store, again.book
    assert {(each.connector, each.campaign_id): each.bid_micros for each in again.accounts.campaigns()} == in_force
    await again.run(again.now + MINUTE)
    near = zip(decided, again.bidder.standing.bids.tolist(), strict=True)
    assert all(abs(after - before) <= 0.16 * before for before, after in near)
    assert not rig.market.writes or max(at for at, _ in rig.market.writes) <= rig.now, "gaps outlive the restart"


async def test_status_says_how_the_loop_fares(make_rig: Make) -> None:
    rig = await make_rig(three()).start()
    await rig.run(MIDNIGHT + MINUTE)
    status = rig.flow.status(rig.now)
    assert (status.interval_s, status.ticks, status.campaigns, status.bidding) == (2.0, 30, 3, 2)
    assert status.decisions_changed == status.decisions_changed_today == len(rig.changes())
    assert [(each.connector, each.campaigns, each.bidding) for each in status.connectors] == [
        ("google", 1, 1),
        ("meta", 2, 1),
    ]
    assert status.connectors[0].spend_age_s == 60.0


async def test_campaigns_that_come_and_go_keep_what_stands_for_the_others(make_rig: Make) -> None:
    rig = await make_rig(three()).start()
    await rig.run(MIDNIGHT + 4 * MINUTE)
    rig.changes()
    del rig.market.entities["meta", "b"]
    rig.market.entities["meta", "0"] = Entity(campaign("0"), 100)
    await rig.run(MIDNIGHT + 5 * MINUTE + 4 * SECOND)
    assert {d.campaign_id for _, d in rig.changes()} >= {"0"}
    assert [each.campaign_id for each in rig.accounts.campaigns("meta")] == ["0", "a"]
    assert rig.bidder.standing.bids.min() > 0


# -- the property: nothing accepted exceeds a cap -------------------------------------------------------------------

micros = st.integers(0, 200_000_000)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(["meta", "google"]), micros, micros, micros, st.integers(0, 4_000)),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, 400_000_000),
    st.one_of(st.none(), st.integers(0, 100_000_000)),
)
async def test_no_accepted_bid_exceeds_budget_caps_or_the_largest_bid(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: list[tuple[str, int, int, int, int]],
    daily_cap: int,
    window_cap: int | None,
) -> None:
    entities = [
        Entity(campaign(f"c{number}", connector, daily_budget_micros=budget, bid_micros=bid), appetite)
        for number, (connector, budget, bid, _, appetite) in enumerate(drawn)
    ]
    market = Market(entities)
    for number, (connector, _, _, spent, _) in enumerate(drawn):
        market.spend[connector, f"c{number}", "2026-03-10"] = spent
    caps = {name: Caps(daily_cap, window_cap) for name in ("google", "meta")}
    rig = await Rig(tmp_path_factory.mktemp("p"), market, caps, BiddingSettings()).start(Instant(MIDNIGHT + 6 * HOUR))
    market.now = Instant(MIDNIGHT + 6 * HOUR)
    await rig.run(rig.now + 2 * MINUTE)
    table, standing = rig.accounts.table, rig.bidder.standing
    for _, decision in rig.changes():
        assert (decision.bid_micros > 0) == (decision.outcome is not DecisionOutcome.REJECTED)
        assert decision.bid_micros <= 50_000_000
    for connector in caps:
        stats = rig.shield.status(connector, rig.now)
        low, high = table.bounds[connector]
        bidding = standing.bids[low:high] > 0
        if stats.spent_today_micros >= daily_cap:
            assert not bidding.any()
        assert not (bidding & (table.spend_today_micros[low:high] >= table.daily_budget_micros[low:high])).any()
        if bidding.any():
            exposed = stats.reserved_micros + stats.exposure_micros
            assert stats.spent_today_micros + exposed <= daily_cap
            if window_cap is not None:
                assert stats.current_spend_micros <= window_cap
    await rig.stop()


async def test_what_the_shield_lowered_stays_on_the_platforms_step_and_is_patient(make_rig: Make) -> None:
    rig = await make_rig([Entity(campaign("a", bid_step_micros=50_000), 300)]).start()
    await rig.run(MIDNIGHT + 2 * SECOND)
    table, standing = rig.accounts.table, Standing(1)
    wanted, own = np.array([1_000_000]), np.array([bids.ON_PLAN], dtype=np.uint8)

    def after(now: int, permitted: int, why: LevelReason) -> tuple[int, int]:
        got = settle(
            now,
            120,
            np.zeros(1, dtype=np.int64),
            table,
            wanted,
            own,
            np.array([permitted]),
            np.array([why], dtype=np.uint8),
            standing,
        )
        if len(rows := standing.changed(*got)):
            standing.take(rows, *got, now)
        return int(got[0][0]), int(got[1][0])

    assert after(1_000, 1_000_000, LevelReason.PERMITTED) == (1_000_000, bids.ON_PLAN)
    assert after(1_001, 687_500, LevelReason.DAILY_CAP) == (650_000, 64 + LevelReason.DAILY_CAP)
    assert after(1_002, 750_000, LevelReason.DAILY_CAP) == (650_000, 64 + LevelReason.DAILY_CAP)
    assert after(1_003, 1_000_000, LevelReason.PERMITTED) == (650_000, 64 + LevelReason.DAILY_CAP)
    assert after(1_004, 500_000, LevelReason.WINDOW_CAP) == (500_000, 64 + LevelReason.WINDOW_CAP)
    assert after(1_005, 0, LevelReason.WINDOW_CAP) == (0, 64 + LevelReason.WINDOW_CAP)
    stopped = (0, 64 + LevelReason.WINDOW_CAP)
    assert after(LASTING, 1_000_000, LevelReason.PERMITTED) == stopped
    assert after(LASTING + 900, 0, LevelReason.WINDOW_CAP) == stopped, "the room did not last"
    assert after(LASTING + 1_005, 1_000_000, LevelReason.PERMITTED) == stopped
    assert after(2 * LASTING + 899, 1_000_000, LevelReason.PERMITTED) == stopped
    again = 2 * LASTING + 900
    assert after(again, 1_000_000, LevelReason.PERMITTED) == (1_000_000, bids.ON_PLAN)
    assert after(again + 100, 0, LevelReason.DAILY_CAP) == (0, 64 + LevelReason.DAILY_CAP)
    assert after(again + 2_000, 1_000_000, LevelReason.PERMITTED) == (0, 64 + LevelReason.DAILY_CAP)
    assert after(again + 100 + 900_000_000, 1_000_000, LevelReason.PERMITTED) == (1_000_000, bids.ON_PLAN)


async def test_a_halt_is_the_reason_also_where_nothing_was_wished(make_rig: Make) -> None:
    """A pause for a spent budget may wait for a person; one for the kill switch may not."""
    rig = await make_rig([Entity(campaign("a"), 300)]).start()
    await rig.run(MIDNIGHT + 2 * SECOND)
    rig.accounts.table.spend_today_micros[:] = rig.accounts.table.daily_budget_micros
    await rig.bidder.tick(rig.now)
    assert rig.bidder.standing.bids.tolist() == [0]
    assert rig.bidder.standing.reasons.tolist() == [bids.BUDGET_SPENT]
    await rig.shield.kill(True, "a test", rig.now)
    await rig.bidder.tick(rig.now)
    assert rig.bidder.standing.reasons.tolist() == [64 + LevelReason.KILL_SWITCH]
    await rig.shield.kill(False, "a test", rig.now)
    rig.shield.hold("a test")
    await rig.bidder.tick(rig.now)
    assert rig.bidder.standing.reasons.tolist() == [64 + LevelReason.SAFE_HOLD]


@pytest.mark.parametrize(
    ("why", "stopped"), [(bids.NO_BUDGET, False), (bids.BUDGET_SPENT, True), (64 + LevelReason.OVERSHOOT, True)]
)
async def test_a_campaign_without_a_budget_of_the_day_is_ended_by_the_shield_alone(
    make_rig: Make, why: int, stopped: bool
) -> None:
    rig = await make_rig([Entity(campaign("a"), 300)]).start()
    await rig.run(MIDNIGHT + 2 * SECOND)
    standing = Standing(1)
    standing.take(np.array([0]), np.array([0]), np.array([why], dtype=np.uint8), MIDNIGHT)
    now = MIDNIGHT + 12 * HOUR
    writes = due_writes(now, 0, 1, rig.accounts.table, standing, gap=0, least_change=0.0, tried_at=lambda row: 0)
    assert [each.kind for each in writes] == ([IntentKind.SET_STATUS] if stopped else [])
