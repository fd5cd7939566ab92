"""The SQL of customers, predictions and models."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from kiki_agent.model import DAY, Customer, Instant, Platform
from kiki_agent.model.money import MAX_MICROS
from kiki_agent.value.distribution import between, quartile_place, quotient
from kiki_agent.value.model import MOST_WEEKS, PRIOR, WEEK, Group, Model

_CUSTOMER = """
INSERT INTO customers (source_crm, customer_id, acquired_platform, acquired_at, purchase_count, total_spend_micros,
    last_purchase_at, updated_at, pending)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)
ON CONFLICT (source_crm, customer_id) DO UPDATE SET
    acquired_platform = excluded.acquired_platform, acquired_at = excluded.acquired_at,
    purchase_count = excluded.purchase_count, total_spend_micros = excluded.total_spend_micros,
    last_purchase_at = excluded.last_purchase_at, updated_at = excluded.updated_at, pending = 1
WHERE excluded.updated_at > updated_at OR (excluded.updated_at = updated_at
    AND (excluded.purchase_count <> purchase_count OR excluded.total_spend_micros <> total_spend_micros))
"""
_PREDICTION = """
INSERT INTO ltv_predictions (client_id, source_crm, customer_id, platform, predicted_ltv_micros, lower_micros,
    upper_micros, confidence_score, model_version, source, predicted_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (client_id, source_crm, customer_id) DO UPDATE SET
    platform = excluded.platform, predicted_ltv_micros = excluded.predicted_ltv_micros,
    lower_micros = excluded.lower_micros, upper_micros = excluded.upper_micros,
    confidence_score = excluded.confidence_score, model_version = excluded.model_version, source = excluded.source,
    predicted_at = excluded.predicted_at
"""
_CURSOR = """
INSERT INTO crm_sync_state (provider, cursor, last_run_at) VALUES (?, ?, ?)
ON CONFLICT (provider) DO UPDATE SET cursor = excluded.cursor, last_run_at = excluded.last_run_at
"""
_BY_VALUE = "ltv_predictions INDEXED BY ltv_predictions_platform"
"""The index holds all that is asked for, in the order of values; left to itself SQLite takes the one by time."""
_WINDOW = "client_id = ? AND platform = ? AND predicted_at > ? AND predicted_at <= ?"


@dataclass(frozen=True, slots=True)
class Distribution:
    """Predicted values of one platform's customers within a look-back, in micros."""

    count: int
    average: int | None
    p25: int | None
    p75: int | None


def believable(customer: Customer, now: Instant) -> bool:
    """Whether a customer's numbers can be true; a shop's clock may be up to a day ahead of the tick that asks."""
    return (
        bool(customer.customer_id)
        and 0 <= customer.purchases <= 10**9
        and 0 <= customer.revenue_micros <= MAX_MICROS
        and 0 <= customer.acquired_at <= now + DAY
    )


def platform_id(name: str) -> str:
    """The canonical platform id, or empty when the platform is not known."""
    try:
        return Platform.parse(name).value
    except ValueError:
        return ""


def take_page(
    connection: sqlite3.Connection, source: str, customers: Sequence[Customer], cursor: str, now: Instant
) -> None:
    """Store one page and where to go on, together: after a crash nothing is missing and nothing read twice hurts."""
    connection.executemany(
        _CUSTOMER,
        [
            (
                source,
                each.customer_id,
                platform_id(each.platform),
                each.acquired_at,
                each.purchases,
                each.revenue_micros,
                each.last_purchase_at,
                each.updated_at,
            )
            for each in customers
        ],
    )
    connection.execute(_CURSOR, (source, cursor, now))


def cursor_of(connection: sqlite3.Connection, source: str) -> str:
    """Where the last sync of a source ended; empty = never ran."""
    row = connection.execute("SELECT cursor FROM crm_sync_state WHERE provider = ?", (source,)).fetchone()
    return str(row[0]) if row else ""


def groups(connection: sqlite3.Connection, now: Instant) -> list[Group]:
    """All customers by platform and whole weeks since they were won."""
    rows = connection.execute(
        "SELECT acquired_platform, min(max(? - acquired_at, 0) / ?, ?) AS week, count(*), sum(purchase_count),"
        " sum(total_spend_micros) FROM customers GROUP BY 1, 2 ORDER BY 1, 2",
        (now, WEEK, MOST_WEEKS),
    )
    return [Group(*row) for row in rows]


def predict_pending(connection: sqlite3.Connection, client_id: str, model: Model, now: Instant, limit: int) -> int:
    """Predict up to `limit` new or changed customers and store the predictions; returns how many there were."""
    rows = connection.execute(
        "SELECT source_crm, customer_id, acquired_platform, acquired_at, purchase_count, total_spend_micros,"
        " last_purchase_at, updated_at FROM customers INDEXED BY customers_pending WHERE pending = 1 LIMIT ?",
        (limit,),
    ).fetchall()
    source = "ai" if model.trained else PRIOR
    predictions = []
    for name, *fields in rows:
        customer = Customer(*fields)
        made = model.estimate(customer, now)
        predictions.append(
            (
                client_id,
                name,
                customer.customer_id,
                customer.platform,
                made.predicted_micros,
                made.lower_micros,
                made.upper_micros,
                made.confidence,
                model.version,
                source,
                now,
            )
        )
    connection.executemany(_PREDICTION, predictions)
    connection.executemany(
        "UPDATE customers SET pending = 0 WHERE source_crm = ? AND customer_id = ?", [row[:2] for row in rows]
    )
    return len(rows)


def ask_again(connection: sqlite3.Connection, client_id: str, before: int, won_after: int, limit: int) -> int:
    """Mark customers won after an instant whose prediction is from before `before`, oldest first; returns how many."""
    return connection.execute(
        "UPDATE customers SET pending = 1 WHERE (source_crm, customer_id) IN ("
        " SELECT p.source_crm, p.customer_id FROM ltv_predictions p JOIN customers c USING (source_crm, customer_id)"
        " WHERE p.client_id = ? AND p.predicted_at > ? AND p.predicted_at < ? AND c.acquired_at > ?"
        " ORDER BY p.predicted_at, p.customer_id LIMIT ?)",
        (client_id, won_after, before, won_after, limit),
    ).rowcount


def replace_prior(connection: sqlite3.Connection, client_id: str) -> None:
    """Mark every customer the prior spoke about: a trained model has something to say now."""
    connection.execute(
        "UPDATE customers SET pending = 1 WHERE (source_crm, customer_id) IN ("
        " SELECT source_crm, customer_id FROM ltv_predictions WHERE client_id = ? AND source = 'prior')",
        (client_id,),
    )


def keep_model(connection: sqlite3.Connection, model: Model) -> None:
    """Store a trained model; the newest one serves."""
    connection.execute(
        "INSERT OR REPLACE INTO ltv_models (version, created_at, kind, params) VALUES (?, ?, 'credibility', ?)",
        (model.version, model.trained_at, model.to_json()),
    )


def newest_model(connection: sqlite3.Connection) -> Model | None:
    """The model that served last."""
    row = connection.execute("SELECT version, params FROM ltv_models ORDER BY created_at DESC LIMIT 1").fetchone()
    return Model.from_json(*row) if row else None


def distribution(connection: sqlite3.Connection, client_id: str, platform: str, after: int, until: int) -> Distribution:
    """Mean and quartiles of the predictions made after `after` and not later than `until`."""
    window = (client_id, platform, after, until)
    count, total = connection.execute(
        f"SELECT count(*), sum(predicted_ltv_micros) FROM {_BY_VALUE} WHERE {_WINDOW}",
        window,
    ).fetchone()
    if not count:
        return Distribution(0, None, None, None)

    def quartile(quarter: int) -> int:
        place, fourths = quartile_place(count, quarter)
        near = connection.execute(
            f"SELECT predicted_ltv_micros FROM {_BY_VALUE} WHERE {_WINDOW}"
            " ORDER BY predicted_ltv_micros LIMIT 2 OFFSET ?",
            (*window, place),
        ).fetchall()
        return between(near[0][0], near[-1][0], fourths)

    return Distribution(count, quotient(total, count), quartile(1), quartile(3))


def latest(connection: sqlite3.Connection, client_id: str, limit: int) -> list[int]:
    """The newest predictions of all platforms, newest first."""
    rows = connection.execute(
        "SELECT predicted_ltv_micros FROM ltv_predictions WHERE client_id = ?"
        " ORDER BY predicted_at DESC, customer_id DESC LIMIT ?",
        (client_id, limit),
    )
    return [row[0] for row in rows]
