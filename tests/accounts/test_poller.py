"""Reading a platform that is slow, moody or wrong."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from kiki_agent.accounts import Poller
from kiki_agent.accounts.facts import same_days
from kiki_agent.errors import AuthExpired, Bug, Outdated, RateLimited, Rejected, Temporary, Unsupported
from kiki_agent.hooks.capabilities import Capabilities
from kiki_agent.model import HOUR, MINUTE, Instant, SpendRow, parse_iso

from .conftest import Desk
from .platform import NOON, TODAY, campaign, days_before, row


async def test_spend_every_minute_and_reports_every_five(desk: Desk) -> None:
    for minute in range(11):
        assert await desk.poll(NOON + minute * MINUTE) is None
    verbs = [verb for verb, _ in desk.platform.asked]
    assert verbs.count("fetch_spend") == 11
    assert verbs.count("fetch_campaigns") == 3
    assert verbs.count("fetch_performance") == 3
    assert verbs[:2] == ["capabilities", "fetch_campaigns"], "spend of campaigns nobody knows would be skipped"


async def test_everything_at_first_then_yesterday_the_lookback_hourly_and_what_restates_daily(desk: Desk) -> None:
    desk.platform.final_before = days_before(20)
    for minute in (*range(0, 66, 5), 24 * 60, 24 * 60 + 5):
        await desk.poll(NOON + minute * MINUTE)
    windows = [(window.first_day, window.last_day) for window in desk.platform.windows()]
    assert windows[0] == (days_before(16), TODAY)
    assert windows[1] == (days_before(1), TODAY)
    assert windows[12] == (days_before(6), TODAY)
    assert windows[13] == (days_before(1), TODAY)
    assert windows[14] == (days_before(20), "2026-03-11")
    assert windows[15] == (TODAY, "2026-03-11")


async def test_all_pages_are_read(desk: Desk) -> None:
    desk.platform.pages = [[row("a")], [row("b")], [row("a", days_before(1))]]
    await desk.poll(NOON)
    assert desk.accounts.totals("meta", days_before(1), TODAY).clicks == 30


async def test_a_silent_platform_leaves_its_facts_to_age(desk: Desk) -> None:
    desk.platform.spend = {("a", TODAY): 5_000_000}
    await desk.poll(NOON)
    desk.platform.fails = {"fetch_spend": [Temporary("500"), Temporary("500")]}
    for minute in (1, 2):
        reason = await desk.poll(NOON + minute * MINUTE)
        assert reason is not None
        assert "500" in reason
    assert desk.accounts.spend_age("meta", Instant(NOON + 2 * MINUTE)) == 2 * MINUTE
    assert desk.accounts.table.spend_today_micros[0] == 5_000_000
    assert await desk.poll(NOON + 3 * MINUTE) is None
    assert desk.accounts.spend_age("meta", Instant(NOON + 3 * MINUTE)) == 0


async def test_lasting_silence_is_a_failed_tick(desk: Desk) -> None:
    desk.platform.fails = {"fetch_spend": [Temporary("gone")] * 3}
    await desk.poll(NOON)
    await desk.poll(NOON + MINUTE)
    with pytest.raises(Temporary, match="gone"):
        await desk.poll(NOON + 2 * MINUTE)


@pytest.mark.parametrize("error", [AuthExpired("who are you"), Bug("broken")])
async def test_what_time_does_not_heal_fails_at_once(desk: Desk, error: AuthExpired | Bug) -> None:
    desk.platform.fails = {"fetch_spend": [error]}
    with pytest.raises(type(error)):
        await desk.poll(NOON)


async def test_a_platform_is_lost_after_three_failed_reads_or_one_that_only_people_cure(desk: Desk) -> None:
    lost = desk.accounts.lost
    desk.platform.fails = {"fetch_spend": [Temporary("gone")] * 3}
    for minute in (0, 1):
        await desk.poll(NOON + minute * MINUTE)
        assert lost == {}
    with pytest.raises(Temporary):
        await desk.poll(NOON + 2 * MINUTE)
    assert lost == {"meta": "gone"}
    await desk.poll(NOON + 3 * MINUTE)
    assert lost == {}
    desk.platform.fails = {"fetch_spend": [Outdated("v17 has ended")]}
    with pytest.raises(Outdated):
        await desk.poll(NOON + 4 * MINUTE)
    assert lost == {"meta": "v17 has ended"}
    desk.platform.fails = {"fetch_spend": [RateLimited("slow down", NOON + 6 * MINUTE)]}
    await desk.poll(NOON + 5 * MINUTE)
    assert lost == {"meta": "v17 has ended"}, "asking for patience proves nothing"
    await desk.poll(NOON + 7 * MINUTE)
    assert lost == {}


async def test_silence_counts_from_the_last_answer_however_old_its_figures_are(desk: Desk) -> None:
    assert desk.accounts.silence("meta", Instant(NOON + MINUTE)) == MINUTE, "from the start on, before any answer"
    desk.platform.as_of = Instant(NOON - 3 * HOUR)
    for minute in (10, 20):
        await desk.poller.tick(Instant(NOON + minute * MINUTE))
    desk.platform.fails = {"fetch_spend": [Temporary("500")]}
    await desk.poller.tick(Instant(NOON + 25 * MINUTE))
    now = Instant(NOON + 26 * MINUTE)
    assert desk.accounts.silence("meta", now) == 6 * MINUTE
    assert desk.accounts.spend_age("meta", now) == 3 * HOUR + 26 * MINUTE


async def test_a_failed_report_does_not_keep_spend_from_being_read(desk: Desk) -> None:
    await desk.poll(NOON)
    desk.platform.spend = {("a", TODAY): 1_000_000}
    desk.platform.fails = {"fetch_campaigns": [Temporary("x")], "fetch_performance": [Temporary("y")]}
    await desk.poll(NOON + 5 * MINUTE)
    assert desk.accounts.table.spend_today_micros[0] == 1_000_000
    await desk.poll(NOON + 6 * MINUTE)
    assert [verb for verb, _ in desk.platform.asked][-3:] == ["fetch_campaigns", "fetch_spend", "fetch_performance"]


async def test_patience_is_given_when_asked_for(desk: Desk) -> None:
    await desk.poll(NOON)
    calls = len(desk.platform.asked)
    desk.platform.fails = {"fetch_spend": [RateLimited("slow down", NOON + 4 * MINUTE)]}
    assert "patience" in str(await desk.poll(NOON + MINUTE))
    assert "patience" in str(await desk.poll(NOON + 2 * MINUTE))
    assert "patience" in str(await desk.poll(NOON + 3 * MINUTE))
    assert len(desk.platform.asked) == calls + 1
    assert await desk.poll(NOON + 4 * MINUTE) is None


async def test_yesterday_is_asked_for_while_it_may_get_late_bookings(desk: Desk) -> None:
    midnight = parse_iso("2026-03-10T00:00:00Z")
    await desk.poll(midnight + HOUR)
    await desk.poll(midnight + 2 * HOUR + MINUTE)
    await desk.poll(midnight + 2 * HOUR + 2 * MINUTE)
    since = [args[0] for verb, args in desk.platform.asked if verb == "fetch_spend"]
    assert since == [midnight - 24 * HOUR, midnight - 24 * HOUR, midnight]


async def test_an_answer_of_the_wrong_type_is_a_bug_of_the_plugin(desk: Desk) -> None:
    class Nonsense:
        async def to(self, instance_id: str, verb: str, *args: object, deadline_s: float | None = None) -> object:
            return 42

    desk.poller._caller = Nonsense()
    with pytest.raises(Bug, match="fetch_campaigns"):
        await desk.poll(NOON)


async def test_an_account_of_another_currency_or_other_days_is_left_alone_until_that_is_settled(desk: Desk) -> None:
    desk.platform.stated = Capabilities(currency="EUR")
    with pytest.raises(Rejected, match="the account is in EUR, the agent counts in USD"):
        await desk.poll(NOON)
    desk.platform.stated = Capabilities(timezone="America/New_York")
    with pytest.raises(Rejected, match=r'set connector\.meta\.timezone = "America/New_York"'):
        await desk.poll(NOON + MINUTE)
    assert {verb for verb, _ in desk.platform.asked} == {"capabilities"}
    assert not desk.accounts.heard("meta")
    assert "New_York" in desk.accounts.lost["meta"]
    desk.platform.stated = Capabilities(timezone="Etc/UTC", batch_size=7)
    assert await desk.poll(NOON + 2 * MINUTE) is None
    assert desk.accounts.lost == {}
    assert desk.accounts.heard("meta")
    assert desk.accounts.batch_size("meta") == 7


async def test_a_platform_that_says_nothing_of_its_account_is_read_all_the_same(desk: Desk) -> None:
    desk.platform.fails = {"capabilities": [Unsupported("no such verb")]}
    assert await desk.poll(NOON) is None
    assert desk.accounts.heard("meta")
    assert desk.accounts.batch_size("meta") == 100


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("UTC", "Etc/UTC", True),
        ("Europe/Berlin", "Europe/Paris", True),
        ("Europe/Berlin", "Europe/London", False),
        ("America/Phoenix", "America/Denver", False),
        ("UTC", "Mars/Olympus", False),
    ],
)
def test_time_zones_are_one_when_their_days_are(one: str, other: str, same: bool) -> None:
    assert same_days(one, other) is same


@pytest.mark.parametrize(
    ("sunset", "severity"), [("", None), ("2026-06-01", None), ("2026-03-30", "WARNING"), ("2026-03-01", "CRITICAL")]
)
async def test_people_hear_before_the_version_of_an_api_ends(desk: Desk, sunset: str, severity: str | None) -> None:
    told: list[object] = []
    desk.poller = Poller(
        desk.accounts,
        "meta",
        desk.platform,
        desk.book,
        poll_interval=MINUTE,
        report_interval=5 * MINUTE,
        history_days=7,
        tell=lambda topic, data: told.append((topic, data["severity"])),
    )
    desk.platform.stated = Capabilities(api_version="v3", sunset=sunset)
    for minute in range(10):
        await desk.poll(NOON + minute * MINUTE)
    assert told == ([("news", severity)] if severity else [])


async def test_what_there_were_no_calls_left_for_comes_first_next_time(desk: Desk) -> None:
    await desk.poll(NOON)
    later = NOON + 5 * MINUTE
    desk.platform.fails = {"fetch_performance": [RateLimited("few calls", Instant(later + 30_000_000))]}
    assert "few calls" in str(await desk.poll(Instant(later)))
    before = len(desk.platform.asked)
    assert await desk.poll(Instant(later + MINUTE)) is None
    assert [verb for verb, _ in desk.platform.asked[before:]] == ["fetch_performance", "fetch_spend"]


async def test_spend_of_a_day_that_is_gone_is_not_believed_and_people_are_told(desk: Desk) -> None:
    """Costs that a report leaves out look like costs of nothing; believed, they would free a day's budget."""
    platform, accounts = desk.platform, desk.accounts
    platform.campaigns = [campaign("a"), campaign("b")]
    platform.spend = {("a", TODAY): 60_000_000, ("b", TODAY): 40_000_000}
    await desk.poller.tick(NOON)
    told: list[Mapping[str, object]] = []

    def spent() -> list[int]:
        return [int(accounts.table.spend_today_micros[accounts.table.index["meta", name]]) for name in ("a", "b")]

    desk.poller._tell = lambda topic, data: told.append(data)

    platform.spend, platform.as_of = {("a", TODAY): 59_000_000, ("b", TODAY): 0}, Instant(NOON + MINUTE)
    await desk.poller.tick(Instant(NOON + MINUTE))
    assert spent() == [59_000_000, 40_000_000], "a little may be taken back"
    assert desk.booked[-1][1].rows == (SpendRow("a", TODAY, 59_000_000),)
    assert accounts.skipped["meta", "fallen"] == 1
    assert [each["title"] for each in told] == ["meta: spend of today went down"]

    booked, platform.spend, platform.as_of = len(desk.booked), {("a", TODAY): 0}, Instant(NOON + 2 * MINUTE)
    said = await desk.poller.tick(Instant(NOON + 2 * MINUTE))
    assert said is not None
    assert "59.00 were spent today in 1 campaigns and now says 0.00; this is not believed" in said
    assert len(desk.booked) == booked, "nothing of it is booked"
    assert accounts.spend_age("meta", Instant(NOON + 2 * MINUTE)) == MINUTE, "and its age grows"

    platform.spend = {("a", TODAY): 61_000_000, ("b", TODAY): 41_000_000}
    await desk.poller.tick(Instant(NOON + 3 * MINUTE))
    assert spent() == [61_000_000, 41_000_000]


async def test_less_spend_is_believed_on_a_new_day_and_of_an_older_answer(desk: Desk) -> None:
    platform, accounts = desk.platform, desk.accounts
    platform.campaigns, platform.spend = [campaign("a")], {("a", TODAY): 60_000_000}
    await desk.poller.tick(NOON)
    platform.spend, platform.as_of = {("a", TODAY): 10_000_000}, Instant(NOON - MINUTE)
    assert await desk.poller.tick(Instant(NOON + MINUTE)) is None
    assert accounts.table.spend_today_micros.sum() == 60_000_000
    tomorrow, moment = "2026-03-11", Instant(NOON + 13 * HOUR)
    platform.spend, platform.as_of = {("a", TODAY): 90_000_000, ("a", tomorrow): 0}, moment
    assert await desk.poller.tick(moment) is None
    assert accounts.table.spend_today_micros.sum() == 0
    assert not accounts.skipped
