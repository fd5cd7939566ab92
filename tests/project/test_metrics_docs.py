"""Every metric that is served is documented with its type and labels, and nothing else is."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.runtime.test_metrics import fed

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_every_metric_that_is_served_is_documented_as_it_is() -> None:
    served = {}
    for family in text_string_to_metric_families(fed().render().decode()):
        if family.name.startswith("process_"):  # of the client library; the page says that they come along
            continue
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        suffix = "_total" if family.type == "counter" else ""
        served[f"`{family.name}{suffix}`"] = (family.type, labels, family.documentation)
    rows = [line.strip("|").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    documented = {
        row[0].strip(): (row[1].strip(), {each.strip(" `") for each in row[2].split(",")} - {"-"}, row[3].strip())
        for row in rows
    }
    assert documented == served


def test_every_metric_has_one_row_in_the_order_of_its_name() -> None:
    names = [line.split("`")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert names == sorted(set(names))
