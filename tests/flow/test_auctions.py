"""Replay of auctions: the published figures of a real log, a log computed by hand, and logs that are not in order."""

from __future__ import annotations

import gzip
from fractions import Fraction
from pathlib import Path

import pytest

from kiki_agent.errors import ConfigError
from kiki_agent.flow.auctions import Policy, default_budget, load, replay, statistics

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "rtb-ipinyou"

# click, price, rate, hour: one tie for const:5, a free impression, and one auction nobody wins
BY_HAND = """\
1\t5\t0.5\t0
0\t0\t0.1\t0
0\t4\t0.2\t1
1\t4\t0.2\t1
0\t9\t0.0\t2
0\t2\t0.2\t3
"""


def write(folder: Path, text: str, name: str = "log.tsv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.fixture
def by_hand(tmp_path):
    return load([write(tmp_path, BY_HAND)])


@pytest.mark.parametrize(
    ("policy", "budget", "bids", "impressions", "clicks", "cost"),
    [
        # total price 24, 2 clicks, mean rate 0.2; a click costs 24/1000/2 = 0.012 and is worth 0.0024
        # const 5 ties with the first price and loses; wins 0, 4, 4, 2
        ("const:5", 100, 6, 4, 1, 10),
        ("const:5", 8, 4, 3, 1, 8),  # cost 8 reaches the budget after the fourth
        ("const:5", Fraction(17, 2), 6, 4, 1, 10),  # 8 < 8.5: goes on, and passes it
        ("const:5", 0, 0, 0, 0, 0),
        ("const:0", 100, 6, 0, 0, 0),  # 0 does not beat a price of 0
        ("const:1", 100, 6, 1, 0, 0),
        ("const:5.9", 100, 6, 4, 1, 10),
        # lin:5 bids 12 (rounded from 12.5), 2 (2.5), 5, 5, 0, 5
        ("lin:5", 100, 6, 5, 2, 15),
        # lin:4 bids 10, 2, 4, 4, 0, 4: exactly 4 at a rate of 0.2, which floating point may miss, ties twice
        ("lin:4", 100, 6, 3, 1, 7),
        # truth bids 0.0024 x 1000 x rate = 1, 0, 0, 0, 0, 0: only the free one could be won, and 0 is not above 0
        ("truth", 100, 6, 0, 0, 0),
        # mcpc bids 12 x rate = 6, 1, 2, 2, 0, 2: wins 5 and 0
        ("mcpc", 100, 6, 2, 1, 5),
    ],
)
def test_a_log_computed_by_hand(by_hand, policy, budget, bids, impressions, clicks, cost):
    result = replay(by_hand, Policy.parse(policy), budget)
    assert (result.bids, result.impressions, result.clicks, result.cost) == (bids, impressions, clicks, cost)
    assert result.profit == clicks * Fraction(24, 10_000) - Fraction(cost, 1000)
    assert result.exhausted is (bids < 6)
    assert result.as_dict()["policy"] == str(Policy.parse(policy))


def test_statistics_and_the_default_budget_are_exact(by_hand):
    known = statistics(by_hand)
    assert (known.auctions, known.clicks, known.total_price) == (6, 2, 24)
    assert known.base_rate == Fraction(1, 5)
    assert known.cost_per_click == Fraction(12, 1000)
    assert known.value_per_click == Fraction(24, 10_000)
    assert default_budget(by_hand) == Fraction(3, 2)
    assert replay(by_hand, Policy.parse("const:5")).cost == 4


def test_what_is_known_can_come_from_another_log(tmp_path, by_hand):
    train = load([write(tmp_path, "1\t50\t0.04\t0\n", "train.tsv")])
    result = replay(by_hand, Policy.parse("mcpc"), 100, statistics(train))
    assert (result.impressions, result.cost) == (5, 15)  # bids 25, 5, 10, 10, 0, 10
    assert result.profit == Fraction(2 * 10, 1000) - Fraction(15, 1000)


def test_files_are_read_one_after_the_other_gzipped_or_not(tmp_path, by_hand):
    packed = tmp_path / "packed.bin"
    packed.write_bytes(gzip.compress(BY_HAND.replace("\n", "\r\n").encode()))
    both = load([packed, write(tmp_path, BY_HAND.rstrip("\n"))])
    assert len(both) == 12
    assert both.prices.tolist() == 2 * by_hand.prices.tolist()
    assert both.rates.tolist() == 2 * by_hand.rates.tolist()
    assert both.hours.tolist() == 2 * [0, 0, 1, 1, 2, 3]


def test_rates_may_be_written_in_any_way(tmp_path):
    log = load([write(tmp_path, "0\t1\t1e-4\t0\n0\t1\t.0001\t0\n0\t1\t1\t0\n0\t1\t0.12345678901234567895\t0\n")])
    assert log.rates.tolist() == [10**14, 10**14, 10**18, 123456789012345679]


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        ("2\t5\t0.5\t0", "click", "expected 0 or 1, was '2'"),
        ("0\t-5\t0.5\t0", "market_price", "expected a whole number up to 1000000000, was '-5'"),
        ("0\t5.0\t0.5\t0", "market_price", "was '5.0'"),
        ("0\t1000000001\t0.5\t0", "market_price", "was '1000000001'"),
        ("0\t5\tnan\t0", "pctr", "expected a rate from 0 to 1, was 'nan'"),
        ("0\t5\t1.01\t0", "pctr", "was '1.01'"),
        ("0\t5\t\t0", "pctr", "was ''"),
        ("0\t5\t0.5\tx", "hour_index", "expected a whole number, was 'x'"),
        ("0\t5\t0.5", "line", "expected 4 columns divided by tabs, found 3"),
        ("0 5 0.5 0", "line", "found 1"),
        ("", "line", "found 1"),
        ("click\tmarket_price\tpctr\thour_index", "pctr", "was 'pctr'"),
        ("0\t5\t0.5\t\u0663", "hour_index", "expected a whole number"),
    ],
)
def test_a_malformed_line_is_one_sentence_with_file_line_and_column(tmp_path, line, column, message):
    path = write(tmp_path, f"0\t1\t0.1\t0\n{line}\n0\t1\t0.1\t0\n")
    with pytest.raises(ConfigError) as caught:
        load([path])
    text = str(caught.value)
    assert text.startswith(f"{path}:2: {column}: ")
    assert message in text
    assert "\n" not in text


def test_files_that_cannot_be_read_are_named(tmp_path):
    empty = write(tmp_path, "", "empty.tsv")
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(BY_HAND.encode() * 100)[:-20])
    spoiled = tmp_path / "spoiled.gz"
    spoiled.write_bytes(b"\x1f\x8bnot really")
    for path in (empty, cut, spoiled, tmp_path / "absent.tsv", tmp_path):
        with pytest.raises(ConfigError, match=path.name):
            load([path])
    with pytest.raises(ConfigError, match="no file of auctions was named"):
        load([])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("greedy", "expected one of truth, lin, const, mcpc, was 'greedy'"),
        ("truth:3", "truth takes no parameter"),
        ("lin:x", "expected a number after lin:"),
        ("lin:1/0", "expected a number after lin:"),
        ("lin:1e999999999", "expected a number after lin:"),
        ("const:-1", "a bid cannot be negative"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        Policy.parse(text)


def test_a_log_without_clicks_says_what_it_lacks(tmp_path):
    log = load([write(tmp_path, "0\t3\t0.0\t0\n0\t3\t0.0\t0\n")])
    for name in ("truth", "mcpc"):
        with pytest.raises(ConfigError, match="no click to learn from"):
            replay(log, Policy.parse(name))
    with pytest.raises(ConfigError, match="all predicted rates are 0"):
        replay(log, Policy.parse("lin"))
    with pytest.raises(ConfigError, match="cannot be negative"):
        replay(log, Policy.parse("const"), -1)
    result = replay(log, Policy.parse("const"), 100)
    assert (result.impressions, result.cost, result.profit) == (2, 6, None)


def test_enormous_bids_are_cut_off_not_wrapped(by_hand):
    for policy in (f"const:{10**30}", f"lin:{10**30}"):
        assert replay(by_hand, Policy.parse(policy), 10**30).impressions >= 5


real_log = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the recorded auctions are not at {SHARED}")


@pytest.fixture(scope="module")
def recorded():
    return load([SHARED / "1458.test.tsv.gz"]), statistics(load([SHARED / "1458.train.tsv.gz"]))


@real_log
@pytest.mark.parametrize(
    ("policy", "profit", "clicks", "bids", "impressions", "cost"),
    [
        # as published for this log
        ("truth", 44.72, 3, 80_000, 601, 11_862),
        ("lin:75", -93.89, 13, 59_404, 10_843, 339_097),
        ("lin:25", 45.77, 6, 80_000, 3_148, 67_405),
        ("const:5", -2.96, 0, 80_000, 740, 2_958),
        # not published; from this replay, and the same in floating point
        ("mcpc", -29.14, 15, 80_000, 10_700, 312_072),
    ],
)
def test_recorded_auctions_give_the_published_figures(recorded, policy, profit, clicks, bids, impressions, cost):
    log, known = recorded
    result = replay(log, Policy.parse(policy), known=known)
    found = (float(round(result.profit, 2)), result.clicks, result.bids, result.impressions, result.cost)
    assert found == (profit, clicks, bids, impressions, cost)


@real_log
def test_the_published_statistics(recorded):
    log, known = recorded
    assert (len(log), log.total_clicks, log.total_price) == (80_000, 51, 5_425_163)
    assert default_budget(log) == Fraction(5_425_163, 16)  # published as 339,072.7
    assert round(float(known.base_rate), 7) == 0.0006064
    assert round(float(known.cost_per_click), 3) == 94.311


@real_log
def test_another_campaign_runs_through_the_same_replay():
    log = load([SHARED / "2261.test.tsv.gz"])
    assert (len(log), log.total_clicks, log.total_price) == (80_000, 19, 7_227_178)
    result = replay(log, Policy.parse("mcpc"))
    assert result.cost >= result.budget or result.bids == len(log)
    free = replay(log, Policy.parse(f"const:{10**9}"), log.total_price + 1)
    assert (free.impressions, free.clicks, free.cost) == (80_000, 19, 7_227_178)
