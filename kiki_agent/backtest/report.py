"""A backtest as a page: what was spent and earned with the agent, beside the same market left alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from kiki_agent.model import Platform, decimal_text

if TYPE_CHECKING:
    from kiki_agent.backtest.run import BacktestResult

_WIDTH, _HEIGHT, _PAD = 640, 180, 34


@dataclass(frozen=True, slots=True)
class Line:
    """One polyline of a chart."""

    label: str
    css: str
    points: str
    last: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A small line chart in SVG units."""

    title: str
    lines: tuple[Line, ...]
    low: str
    high: str
    width: int = _WIDTH
    height: int = _HEIGHT


def chart(title: str, series: Sequence[tuple[str, str, Sequence[float | None]]], unit: str = "") -> Chart:
    """Lines over days; None leaves a gap at its place. The vertical axis starts at zero."""
    known = [value for _, _, values in series for value in values if value is not None]
    top = max(known, default=1.0) or 1.0
    lines = []
    for label, css, values in series:
        spots = []
        for index, value in enumerate(values):
            if value is None:
                continue
            across = _PAD + (_WIDTH - 2 * _PAD) * index / max(1, len(values) - 1)
            down = _HEIGHT - _PAD - (_HEIGHT - 2 * _PAD) * value / top
            spots.append(f"{across:.1f},{down:.1f}")
        last = next((value for value in reversed(values) if value is not None), None)
        lines.append(Line(label, css, " ".join(spots), "cannot say" if last is None else f"{last:,.2f}{unit}"))
    return Chart(title, tuple(lines), f"0{unit}", f"{top:,.2f}{unit}")


def render(result: BacktestResult) -> str:
    """The report as one HTML file that loads nothing from outside."""
    import jinja2

    days = result.days_with
    idle = result.days_without
    charts = [
        chart(
            "Spend a day",
            [
                ("with the agent", "with", [day.spend_micros / 1e6 for day in days]),
                ("left alone", "without", [day.spend_micros / 1e6 for day in idle]),
            ],
        ),
        chart(
            "Lifetime value won a day",
            [
                ("with the agent", "with", [day.value_micros / 1e6 for day in days]),
                ("left alone", "without", [day.value_micros / 1e6 for day in idle]),
            ],
        ),
        chart(
            "Value per unit spent",
            [
                (
                    "with the agent",
                    "with",
                    [day.value_micros / day.spend_micros if day.spend_micros else None for day in days],
                ),
                (
                    "left alone",
                    "without",
                    [day.value_micros / day.spend_micros if day.spend_micros else None for day in idle],
                ),
            ],
        ),
        chart(
            "Efficiency by platform, as the optimizer saw it",
            [
                (Platform(name).label, f"p{index}", values)
                for index, (name, values) in enumerate(sorted(result.efficiency_by_day.items()))
            ],
        ),
    ]
    template = resources.files("kiki_agent.backtest").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["money"] = lambda micros: f"{float(decimal_text(micros, result.currency)):,.2f}"
    environment.filters["platform"] = lambda name: Platform(name).label
    return environment.from_string(template).render(result=result, charts=charts)
