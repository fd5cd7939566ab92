"""Every metric is documented with its type and labels, and nothing else is."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from kiki_agent.runtime.metrics import Metrics

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_every_metric_is_documented_as_it_is() -> None:
    known = {}
    for collector in Metrics(process=False).registry._collector_to_names:
        if isinstance(collector, MetricWrapperBase):
            suffix = "_total" if collector._type == "counter" else ""
            labels = ", ".join(f"`{label}`" for label in collector._labelnames) or "-"
            known[f"`{collector._name}{suffix}`"] = [collector._type, labels, collector._documentation]
    rows = [line.strip("|").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    documented = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    assert documented == known
