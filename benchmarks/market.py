"""What the simulated market and its vendor API cost: one table.

    python benchmarks/market.py [--campaigns 120] [--days 30]

The market: seconds to load the kernel, to live through 30 days of history, per simulated day, and how a day grows with
the number of campaigns. The API in process: microseconds per request. The reference beside them, in the same run, is
the encoding of the same answer with the standard library's json.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable
from functools import partial

import msgspec

from kiki_agent.model import DAY, Instant, iso, parse_iso
from kiki_agent.runtime.clock import Stopwatch
from kiki_agent.sandbox import Market, SandboxService
from kiki_agent.sandbox import layout as at
from kiki_agent.sandbox.kernel import advance

EPOCH = parse_iso("2026-01-05T00:00:00Z")


def timed(work: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    watch = Stopwatch()
    work()
    return watch.seconds()


def each(work: Callable[[], object], times: int = 400) -> tuple[float, float]:
    """Median and 99th percentile of a call in microseconds."""
    work()
    spans = sorted(timed(work) * 1e6 for _ in range(times))
    return statistics.median(spans), spans[int(0.99 * (times - 1))]


def market(campaigns: int, days: int) -> Market:
    """Time the market and print it."""
    print(f"load the kernel (compile, or read the cache)  {timed(advance.compile):9.2f} s")
    made: list[Market] = []
    history = timed(lambda: made.append(Market(1, EPOCH, campaigns)))
    print(f"30 days of history, {campaigns:<4d} campaigns            {history:9.2f} s")
    month = timed(lambda: made[0].advance_to(Instant(EPOCH + days * DAY)))
    print(f"one simulated day, mean of {days:<3d}                {month / days * 1e3:9.1f} ms")
    idle = each(lambda: made[0].advance_to(Instant(EPOCH + days * DAY + 1)))[0]
    print(f"advance with no step due                      {idle:9.2f} us")
    return made[0]


def growth() -> None:
    """A day with 1, 10 and 100 times the campaigns, and the exponent."""
    found = []
    for campaigns in (12, 120, 1_200):
        grown = Market(1, EPOCH, campaigns, 2)
        found.append((campaigns, timed(partial(grown.advance_to, Instant(EPOCH + 5 * DAY))) / 5))
    cells = "  ".join(f"{campaigns}: {seconds * 1e3:.1f} ms" for campaigns, seconds in found)
    exponent = math.log(found[-1][1] / found[0][1]) / math.log(found[-1][0] / found[0][0])
    print(f"one day by campaigns                          {cells}  (exponent {exponent:.2f})")


def requests(made: Market) -> None:
    """Time the API in process and print it."""
    service = SandboxService(made, requests_per_minute=10**9)
    now = made.now
    grant = json.dumps({"grant_type": "client_credentials", "client_id": "sandbox", "client_secret": "sandbox"})
    token = json.loads(service.handle("POST", "/token", {}, grant.encode(), now)[2])["access_token"]
    headers = {"authorization": f"Bearer {token}"}
    first, last = made.span(0)
    count = last - first
    bids = made.control[at.BID, first:last].tolist()
    body = json.dumps(
        {
            "operations": [
                {"campaign": str(100_001 + first + index), "max_cpc": f"{bid / 1e6:.2f}", "client_ref": f"key-{index}"}
                for index, bid in enumerate(bids)
            ]
        }
    ).encode()
    week = f"first_day={iso(now - 6 * DAY)[:10]}&last_day={iso(now)[:10]}"
    asked = {
        f"spend of today, {count} campaigns": ("GET", f"/v1/meta/spend?since={iso(now)}", b""),
        f"{count} bids in a batch": ("POST", "/v1/meta/bids", body),
        f"{count} campaigns": ("GET", "/v1/meta/campaigns", b""),
        f"performance of 7 days, {count} campaigns": ("GET", f"/v1/meta/performance?{week}", b""),
        "500 customers": ("GET", "/v1/customers?page_size=500", b""),
    }
    print()
    print(f"{'request':<40s} {'bytes':>7s} {'median us':>10s} {'p99 us':>8s} {'json.dumps us':>14s}")
    for name, (method, path, data) in asked.items():
        status, _, answer = service.handle(method, path, headers, data, now)
        assert status == 200, answer
        median, high = each(partial(service.handle, method, path, headers, data, now))
        value = msgspec.json.decode(answer)
        beside = each(partial(json.dumps, value))[0]
        print(f"{name:<40s} {len(answer):7d} {median:10.1f} {high:8.1f} {beside:14.1f}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--campaigns", type=int, default=120)
    parser.add_argument("--days", type=int, default=30)
    options = parser.parse_args()
    made = market(options.campaigns, options.days)
    growth()
    requests(made)


if __name__ == "__main__":
    main()
