"""How platforms get to know: coalesced, batched, never twice, and at once when it is a cut."""

from __future__ import annotations

import pytest

from kiki_agent.errors import RateLimited, Rejected, Temporary, UnknownOutcome
from kiki_agent.flow import Patience
from kiki_agent.model import HOUR, MINUTE, SECOND, CampaignStatus, Instant, IntentKind, Outcome

from .conftest import Make, Rig
from .market import MIDNIGHT, Entity, campaign


def eager() -> list[Entity]:
    """Two campaigns that have to bid more."""
    return [
        Entity(campaign("a", bid_micros=100_000, bid_step_micros=1_000), 100),
        Entity(campaign("b", bid_micros=100_000, bid_step_micros=1_000), 100),
    ]


async def started(make_rig: Make, **fails: list[object]) -> Rig:
    rig = await make_rig(eager(), interval_s=10.0).start()
    rig.market.fails = {verb: list(faults) for verb, faults in fails.items()}  # type: ignore[arg-type]
    return rig


async def test_one_call_carries_all_changes_of_a_connector(make_rig: Make) -> None:
    rig = await started(make_rig)
    calls: list[tuple[str, int]] = []
    genuine = rig.market.to

    async def counted(instance_id: str, verb: str, *args: object, deadline_s: float | None = None) -> object:
        if verb == "adjust_bid":
            calls.append((verb, len(args[0])))  # type: ignore[arg-type]
        return await genuine(instance_id, verb, *args)

    rig.market.to = counted  # type: ignore[method-assign]
    await rig.run(MIDNIGHT + 30 * MINUTE)
    assert calls[0] == ("adjust_bid", 2)


async def test_an_unknown_outcome_blocks_its_campaign_until_it_is_read_back(make_rig: Make) -> None:
    rig = await started(make_rig, adjust_bid=[UnknownOutcome("cut off")], reconcile=[Temporary("not now")] * 200)
    await rig.run(MIDNIGHT + 30 * MINUTE)
    assert rig.outbox.unsettled("meta", "a")
    assert not rig.market.writes
    rig.market.fails["reconcile"] = []
    await rig.run(MIDNIGHT + 60 * MINUTE)
    assert not rig.outbox.unsettled("meta", "a")
    assert {intent.campaign_id for _, intent in rig.market.writes} == {"a", "b"}
    keys = [intent.key for _, intent in rig.market.writes]
    assert len(set(keys)) == len(keys)
    writer = rig.writers[0]
    assert (writer.unknown, writer.sent) == (2, 2 + len(keys))


async def test_an_unknown_that_took_effect_becomes_the_known_bid(make_rig: Make) -> None:
    rig = await started(make_rig)
    genuine = rig.market.to
    lost = 0

    async def losing(instance_id: str, verb: str, *args: object, deadline_s: float | None = None) -> object:
        nonlocal lost
        answer = await genuine(instance_id, verb, *args)
        if verb == "adjust_bid" and not lost:
            lost += 1
            raise UnknownOutcome("the answer was lost")
        return answer

    rig.market.to = losing  # type: ignore[method-assign]
    rig.market.fails["fetch_campaigns"] = []
    await rig.run(MIDNIGHT + 40 * MINUTE)
    assert lost == 1
    effects = [intent.key for _, intent in rig.market.writes]
    assert len(effects) == len(set(effects)), "nothing happened twice"
    for key, each in rig.market.entities.items():
        assert rig.accounts.table.rows[rig.accounts.table.index[key]].bid_micros == each.campaign.bid_micros


async def test_a_refused_change_waits_like_a_made_one(make_rig: Make) -> None:
    rig = await started(make_rig, adjust_bid=[Rejected("no", "BID_TOO_LOW")] * 100)
    await rig.run(MIDNIGHT + HOUR)
    assert 4 <= rig.writers[0].rejected <= 2 * 5


async def test_patience_is_given_until_the_platform_says(make_rig: Make) -> None:
    rig = await started(make_rig)
    patience = Patience(rig.market.call)
    rig.outbox._call = patience
    rig.writers[0]._patience = patience
    until = Instant(MIDNIGHT + 50 * MINUTE)
    rig.market.fails["adjust_bid"] = [RateLimited("later", until)]
    await rig.run(until)
    assert patience.retry_at["meta"] == until
    assert not rig.market.writes
    await rig.run(until + 20 * MINUTE)
    assert rig.market.writes


async def test_our_own_limits_hold_changes_back_before_they_are_written_down(make_rig: Make) -> None:
    rig = await started(make_rig)
    until = Instant(MIDNIGHT + 50 * MINUTE)
    rig.writers[0]._patience = Patience(rig.market.call, lambda connector, now: until)
    await rig.run(until)
    assert not rig.market.writes
    assert rig.writers[0].sent == 0, "nothing was journaled either"
    await rig.run(until + 20 * MINUTE)
    assert rig.market.writes


async def test_stops_of_campaigns_go_out_though_the_platform_asks_for_patience_but_not_again_and_again(
    make_rig: Make,
) -> None:
    rig = await started(make_rig)
    await rig.run(MIDNIGHT + MINUTE)
    patience = Patience(rig.market.call, lambda connector, now: Instant(now + HOUR))
    rig.writers[0]._patience = patience
    rig.market.fails["set_status"] = [RateLimited("later", Instant(MIDNIGHT + 5 * HOUR))] * 100
    await rig.shield.kill(True, "a test", rig.now)
    before = rig.writers[0].sent
    await rig.run(MIDNIGHT + 31 * MINUTE)
    tried = rig.writers[0].sent - before
    assert 2 * 5 <= tried <= 2 * 7, "both campaigns, every five minutes"
    rig.market.fails["set_status"] = []
    await rig.run(MIDNIGHT + 37 * MINUTE)
    assert {intent.campaign_id for _, intent in rig.market.writes if intent.kind is IntentKind.SET_STATUS} == {"a", "b"}


async def test_a_partly_refused_batch_counts_each_change_for_itself(make_rig: Make) -> None:
    rig = await started(make_rig, adjust_bid=[(Outcome.REJECTED, "NO")])
    await rig.run(MIDNIGHT + 30 * MINUTE)
    assert rig.writers[0].rejected >= 2
    assert all(each.campaign.bid_micros >= 100_000 for each in rig.market.entities.values())


async def test_a_cut_does_not_wait_for_gaps_and_a_person_s_pause_is_respected(make_rig: Make) -> None:
    rig = await started(make_rig)
    await rig.run(MIDNIGHT + 20 * MINUTE)
    entity = rig.market.entities["meta", "b"]
    entity.campaign = campaign("b", status=CampaignStatus.PAUSED, bid_micros=entity.campaign.bid_micros)
    await rig.run(MIDNIGHT + 26 * MINUTE)
    writes = len(rig.market.writes)
    await rig.shield.kill(True, "a test", rig.now)
    at = rig.now
    await rig.run(at + 21 * SECOND)
    stopped = [(intent.campaign_id, intent.kind, intent.after) for _, intent in rig.market.writes[writes:]]
    assert stopped == [("a", IntentKind.SET_STATUS, 0)]
    await rig.shield.kill(False, "", rig.now)
    await rig.run(rig.now + 5 * MINUTE)
    assert rig.market.entities["meta", "a"].campaign.status is CampaignStatus.ACTIVE
    assert rig.market.entities["meta", "b"].campaign.status is CampaignStatus.PAUSED, "a person paused it"


async def test_raises_are_held_back_while_the_shield_holds(make_rig: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = await started(make_rig)
    await rig.run(MIDNIGHT + 10 * MINUTE)
    monkeypatch.setattr(rig.shield, "permit_levels", _permit_everything)
    await rig.shield.kill(True, "a test", rig.now)
    before = len(rig.market.writes)
    await rig.run(rig.now + 30 * MINUTE)
    assert all(not intent.raises_spend for _, intent in rig.market.writes[before:])
    assert rig.writers[0].denied > 0
    assert rig.writers[0].last_denial == "KILL_SWITCH"


async def _permit_everything(now: Instant, request: object) -> object:
    from kiki_agent.shield import LevelAnswer, LevelReason, LevelRequest

    assert isinstance(request, LevelRequest)
    answer = LevelAnswer.refuse(request.size, LevelReason.PERMITTED)
    answer.bid_micros[:] = request.wanted_bid
    return answer
