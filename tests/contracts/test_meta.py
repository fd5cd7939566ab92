"""Meta: every request the connector can send and every answer of its stand-in, held against the vendor's names."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest
from kiki_meta.currency import WHOLE
from kiki_meta.sandbox import MetaSandbox
from kiki_meta.sandbox_write import Writer

from kiki_agent.sandbox import Fault
from tests.contracts.meta_coverage import COVERAGE, written
from tests.contracts.meta_drive import CURRENCIES, STRATEGIES, Driven, drive
from tests.contracts.meta_mutations import Mutation, mutations
from tests.contracts.meta_names import Names
from tests.contracts.meta_rig import Asked, Exchange

ROOT = Path(__file__).parents[2]
SPECS = ROOT.parent / "shared" / "specs" / "meta"
pytestmark = pytest.mark.skipif(not SPECS.is_dir(), reason="the vendor's specification is not on this machine")


@dataclass(frozen=True)
class Allowed:
    """A wrong request that may pass one of the two, or both, and why."""

    how: str
    what: str
    by: str
    """`names`, `sandbox` or `both`."""
    reason: str

    def covers(self, mutation: Mutation, by: str) -> bool:
        return self.how == mutation.how and re.fullmatch(self.what, mutation.what) is not None and self.by == by


ALLOWED = (
    Allowed(
        "wrong kind", r"bid_amount '-5'( of a part)?", "names", "the vendor's kind of bid_amount is int, not unsigned"
    ),
    Allowed(
        "renamed",
        r"custom_data\.(order_id|ltv|confidence|timestamp)",
        "both",
        "an event's custom_data may carry properties of the advertiser's own, under any name",
    ),
    Allowed(
        "wrong kind",
        r"custom_data\.(ltv|confidence|timestamp)",
        "sandbox",
        "Meta does not say what kind an advertiser's own property must be",
    ),
)


@pytest.fixture(scope="module")
def names() -> Names:
    return Names(SPECS)


@pytest.fixture(scope="module")
def driven(names: Names) -> list[Driven]:
    runs = asyncio.run(drive())
    for run in runs:
        for each in run.exchanges:
            _learn(names, each)
    return runs


def _learn(names: Names, exchange: Exchange) -> None:
    """What kind of node each id names, as the answers say it."""
    asked = exchange.asked
    if exchange.status != 200 or b'"error"' in exchange.body or not exchange.body.startswith(b"{"):
        return
    kind = {"campaigns": "Campaign", "adsets": "AdSet"}.get(asked.path.rpartition("/")[2])
    said = json.loads(exchange.body)
    if kind is not None and asked.method == "GET":
        names.nodes.update({row["id"]: kind for row in said["data"]})
    if "report_run_id" in said:
        names.nodes[said["report_run_id"]] = "AdReportRun"


def _each(driven: list[Driven]) -> Iterator[Exchange]:
    for run in driven:
        yield from run.exchanges


def test_every_request_is_in_the_vendors_names(names: Names, driven: list[Driven]) -> None:
    counts: Counter[str] = Counter()
    for each in _each(driven):
        assert names.request(each.asked) == [], (each.asked.path, each.asked.params, each.asked.body)
        counts[names.operation(each.asked)] += 1
    print(f"{sum(counts.values())} requests names-valid in {len(CURRENCIES)} currencies: {dict(counts)}")
    assert set(counts) == set(COVERAGE)


def test_every_answer_is_in_the_vendors_names(names: Names, driven: list[Driven]) -> None:
    counts: Counter[str] = Counter()
    for each in _each(driven):
        if each.status == 0 or each.body.startswith(b"<!DOCTYPE"):
            counts["lost or no JSON"] += 1
            continue
        problems = names.answer(each.asked, each.status, each.headers, each.body)
        assert problems == [], (each.asked.path, each.body[:500])
        counts["error" if b'"error"' in each.body else "success"] += 1
    print(f"answers: {dict(counts)}")
    assert counts["error"] > 20
    assert counts["success"] > 100
    assert counts["lost or no JSON"] > 20


def test_every_strategy_lever_and_place_of_a_budget_was_driven(driven: list[Driven]) -> None:
    sent = [
        str(each.fields) for run in driven for each in (one.asked for one in run.exchanges) if each.method == "POST"
    ]
    for word in ("daily_budget", "bid_amount", "roas_average_floor", "VALUE", "LOWEST_COST_WITH_BID_CAP",
                 "PAUSED", "ACTIVE", "validate_only", "ltv", "confidence", "timestamp", "fbc"):  # fmt: skip
        assert any(word in each for each in sent), word
    read = b"".join(each.body for each in _each(driven))
    for strategy in {*STRATEGIES.values(), "LOWEST_COST_WITH_BID_CAP"}:
        assert strategy.encode() in read
    assert len(Fault) == 5
    bad_days = {
        Fault.ERROR: lambda each: each.status == 500 and b'"code":1,' in each.body,
        Fault.GARBAGE: lambda each: each.body.startswith(b"<!DOCTYPE"),
        Fault.LOST: lambda each: each.status == 0,
        Fault.FAILED: lambda each: each.status == 200 and (b"false" in each.body or b'"error"' in each.body),
        Fault.THROTTLED: lambda each: b'"code":80004' in each.body,
    }
    for fault, seen in bad_days.items():
        methods = {each.asked.method for each in _each(driven) if seen(each)}
        assert methods == {"GET", "POST"}, fault


# -- negative controls -------------------------------------------------------------------------------------------------


def _kinds(names: Names, run: Driven) -> Iterator[tuple[Driven, int, Asked]]:
    """One request of each kind: operation, names of its fields, alone or in a batch."""
    seen = set()
    for number, each in enumerate(run.exchanges):
        asked = each.asked
        operation = names.operation(asked)
        fields = asked.fields if asked.method == "POST" else {}
        inside = _inside(fields.get("batch", ""))
        kind = (operation, *sorted({*asked.params, *fields}), inside)
        if kind in seen or each.status != 200 or b'"error"' in each.body or each.body.startswith(b"<"):
            continue
        if b'"success":false' in each.body.replace(b"\\", b""):
            continue
        seen.add(kind)
        yield run, number, asked


def _inside(batch: str) -> str:
    return " ".join(sorted(set(re.findall(r"[a-z_]+(?==)", batch))))


def test_wrong_requests_are_refused_by_the_names_and_by_the_stand_in(names: Names, driven: list[Driven]) -> None:
    counts: Counter[tuple[str, str]] = Counter()
    used: set[Allowed] = set()
    passed: set[tuple[str, ...]] = set()
    kinds = 0
    for run in driven[:2]:
        for _, number, asked in _kinds(names, run):
            kinds += 1
            sandbox = next(each for each, first, last in run.sandboxes if first <= number < last)
            _forgiven(sandbox)
            assert not _refused(sandbox, Mutation("", "", "", asked)), f"the right request is refused: {asked}"
            effects = sandbox.desk._effects.count
            for mutation in mutations(asked, names):
                _forgiven(sandbox)
                by_names = names.request(mutation.asked) != []
                by_sandbox = _refused(sandbox, mutation)
                counts[mutation.how, "refused"] += by_names and by_sandbox
                if not (by_names and by_sandbox):
                    by = "both" if not by_names and not by_sandbox else "sandbox" if by_names else "names"
                    allowance = next((each for each in ALLOWED if each.covers(mutation, by)), None)
                    if allowance is None:
                        passed.add((mutation.operation, mutation.how, mutation.what, f"passed {by}"))
                    else:
                        used.add(allowance)
                        counts[mutation.how, "allowed"] += 1
                elif mutation.part is None:
                    assert sandbox.desk._effects.count == effects, mutation
                effects = sandbox.desk._effects.count
    print(f"{kinds} kinds of requests, {sum(counts.values())} wrong forms: {_shown(counts)}")
    print(f"{len(ALLOWED)} allowances: {[f'{each.how} {each.what}: {each.reason}' for each in ALLOWED]}")
    assert passed == set()
    assert used == set(ALLOWED)
    assert {how for how, _ in counts} == {"removed", "renamed", "wrong kind", "wrong word", "wrong place"}
    assert sum(counts.values()) > 1_500


def _shown(counts: Counter[tuple[str, str]]) -> dict[str, int]:
    return {f"{how} {what}": count for (how, what), count in sorted(counts.items())}


def _forgiven(sandbox: MetaSandbox) -> None:
    """No quota is used up: what is refused now is refused for what it is."""
    sandbox.writer = Writer(sandbox.account)
    sandbox._score = 0


def _refused(sandbox: MetaSandbox, mutation: Mutation) -> bool:
    """Whether the stand-in refuses, in the vendor's envelope; for a part of a batch, that part."""
    asked = mutation.asked
    query = urlencode(asked.params)
    target = f"{asked.path}?{query}" if query else asked.path
    status, headers, body = sandbox.handle(asked.method, target, asked.headers, asked.body, sandbox.desk.now)
    said = json.loads(body)
    if mutation.part is not None and status == 200:
        part = said[mutation.part]
        status, said = part["code"], json.loads(part["body"])
    if status == 200:
        return False
    assert set(said) == {"error"}, said
    assert {"message", "type", "code", "fbtrace_id"} <= set(said["error"])
    assert headers["content-type"].startswith("application/json")
    return True


def test_currencies_counted_in_whole_units_are_currencies_of_the_vendor(names: Names) -> None:
    assert set(names.v25["enums"]["adaccount_currency"]) >= WHOLE
    assert set(names.v26["nodes"]["AdAccount"]["enums"]["Currency"]) >= WHOLE


def test_the_page_says_how_far_each_operation_is_checked(names: Names, driven: list[Driven]) -> None:
    assert {names.operation(each.asked) for each in _each(driven)} == set(COVERAGE)
    page = (ROOT / "docs" / "contracts.md").read_text()
    assert written(page) == page, "run: python -m tests.contracts.meta_coverage"
