"""Metrics: the agreed names, a clean exposition, and one registry per agent."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from kiki_agent.runtime.clock import SimClock
from kiki_agent.runtime.metrics import Labelled, Metrics
from kiki_agent.runtime.supervisor import Supervisor

from .scripts import START, Scripted

AGREED = """
syncflow_budget_shifts_total syncflow_platform_efficiency syncflow_platform_daily_budget syncflow_bid_executions_total
syncflow_bid_rejections_total syncflow_platform_latency_seconds syncflow_tick_duration_seconds syncflow_ticks_late_total
syncflow_budget_spent syncflow_budget_limit syncflow_budget_utilization syncvalue_predictions_total
syncshield_checks_total kiki_http_requests_total kiki_http_request_seconds kiki_task_restarts_total
kiki_event_loop_lag_seconds
"""


def fed() -> Metrics:
    metrics = Metrics()
    metrics.set_build("0.1.0", "demo")
    for metric in vars(metrics).values():
        if isinstance(metric, Labelled):
            child = metric(*("value" for _ in metric.labels))
            if hasattr(child, "observe"):
                child.observe(0.01)
            else:
                child.inc()
    supervisor = Supervisor([Scripted("bidding", [])], SimClock(START))
    supervisor.succeeded(supervisor.health["bidding"], START, None)
    supervisor.health["bidding"].late = 3
    metrics.read_loops(supervisor.health.values)
    return metrics


def test_every_agreed_metric_is_there():
    text = fed().render().decode()
    for name in AGREED.split():
        assert f"# HELP {name} " in text, name
    assert 'kiki_build_info{mode="demo",version="0.1.0"} 1.0' in text
    assert 'syncflow_ticks_late_total{loop="bidding"} 3.0' in text
    assert 'kiki_loop_last_success_timestamp_seconds{loop="bidding"} 1.75e+09' in text
    assert "_created" not in text


def test_the_names_stand_in_the_text_before_anything_was_counted():
    text = Metrics(process=False).render().decode()
    for name in AGREED.split():
        assert f"# HELP {name} " in text, name


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing_to_say():
    answer = subprocess.run(["promtool", "check", "metrics"], input=fed().render(), capture_output=True, check=False)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, b"", b"")


def test_agents_do_not_share_a_registry():
    first, second = Metrics(), Metrics()
    first.bid_executions("meta", "ACCEPTED", "ai").inc(5)
    assert b'outcome="ACCEPTED"' in first.render()
    assert b'outcome="ACCEPTED"' not in second.render()


def test_children_are_the_same_object_and_a_wrong_number_of_labels_is_an_error():
    metrics = Metrics(process=False)
    assert metrics.tick_duration("bidding") is metrics.tick_duration("bidding")
    with pytest.raises(ValueError, match="label"):
        metrics.bid_executions("meta")


def test_gauges_can_be_read_on_scrape():
    metrics = Metrics(process=False)
    depth = [3]
    metrics.read_on_scrape(metrics.db_queue_depth, lambda: depth[0])
    assert b"kiki_db_queue_depth 3.0" in metrics.render()
    depth[0] = 4
    assert b"kiki_db_queue_depth 4.0" in metrics.render()
