"""Wrong requests before the judge and the stand-in, and what the vendor itself is lenient about."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kiki_google_ads.sandbox_uploads import Order

from kiki_agent.model import DAY, Instant

from .google_mutations import Kind, Mutant, mutants
from .google_rig import EVERYTHING, NOW, Rig, google
from .google_schema import PREFIX, judge_answer, judge_body

LENIENT = {
    ("removed", "partialFailure"): "absent means false, which a change may be; uploads must not, and are refused",
    ("removed", "validateOnly"): "absent means false",
    ("removed", "pageToken"): "absent means the first page",
    ("removed", "conversions[].orderId"): "Google keeps conversions without an order number",
    ("mask lacks a field that is set", "*"): "Google passes over what the mask does not name; the judge does not",
}
"""What Google itself takes; (what was done, where) -> why."""


@dataclass(frozen=True)
class Judged:
    """One mutant before both."""

    mutant: Mutant
    by_judge: bool
    """Whether the judge refuses it."""
    by_sandbox: str
    """`refused` in Google's envelope with nothing done, `taken`, or what is wrong with the answer."""

    @property
    def excuse(self) -> tuple[str, str] | None:
        """The entry of `LENIENT` that covers it."""
        rest, sort, place = self.mutant.key
        if place == "partialFailure" and rest.startswith(":"):
            return None
        return next((each for each in ((sort, place), (sort, "*")) if each in LENIENT), None)

    @property
    def refused(self) -> bool:
        return self.by_judge and self.by_sandbox == "refused"


async def judge_all(found: Sequence[Kind]) -> list[Judged]:
    """Every mutant of every kind."""
    made: list[Judged] = []
    async with google(strategies=EVERYTHING) as rig:
        headers = await logged_in(rig)
        for kind in found:
            make_ready(rig, kind)
            for each in mutants(kind):
                match = PREFIX.fullmatch(kind.path)
                assert match is not None
                wrong = judge_body(kind.message, match["rest"], json.loads(each.body), match["customer"])
                made.append(Judged(each, bool(wrong), answered(rig, kind.path, each.body, headers)))
    return made


def refused_by_both(judged: Sequence[Judged]) -> Counter[str]:
    """How many mutants both refuse, by operation."""
    return Counter(each.mutant.kind.rest for each in judged if each.refused and each.excuse is None)


def make_ready(rig: Rig, kind: Kind) -> None:
    """No conversion is there that is uploaded, and each is that is restated: so nothing but a mutation is wrong."""
    if "conversions" in kind.body:
        rig.sandbox.uploads.orders.clear()
    for each in kind.body.get("conversionAdjustments", ()):
        rig.sandbox.uploads.orders[each["orderId"]] = Order(Instant(NOW - 3 * DAY), 1.0, Instant(NOW - 3 * DAY))


async def logged_in(rig: Rig) -> dict[str, str]:
    """Headers that are good for any request."""
    await rig.to("check")
    return dict(rig.recorder.exchanges[-1].headers)


def answered(rig: Rig, path: str, body: bytes, headers: Mapping[str, str]) -> str:
    """How the stand-in takes a request, see `Judged.by_sandbox`."""
    before = _state(rig)
    status, told, said = rig.sandbox.handle("POST", path, headers, body, rig.clock.now())
    if not told["content-type"].startswith("application/json"):
        return f"{status} {said[:60]!r}"
    value = json.loads(said)
    problem = judge_answer(path, status, value)
    if problem:
        return str(problem)
    if status == 200 and "partialFailureError" not in value:
        return "taken"
    return "refused" if before == _state(rig) else "refused, and done all the same"


def _state(rig: Rig) -> tuple[int, int, str, str]:
    account, orders = rig.sandbox.account, rig.sandbox.uploads.orders
    return rig.effects.count, len(account.events), repr(account.parameters) + repr(account.roas), repr(orders)
