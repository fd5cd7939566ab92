"""The nouns: money, time, platforms, campaigns, performance, intents, receipts, decisions, customers, alerts.

Frozen, typed values without I/O. Nothing here reads a clock, opens a file or knows a vendor.
"""

from kiki_agent.model.alert import Alert, Severity
from kiki_agent.model.campaign import Campaign, CampaignStatus
from kiki_agent.model.customer import Customer, CustomerPage, PlatformValue, Prediction
from kiki_agent.model.decision import Decision, DecisionOutcome, DecisionSource
from kiki_agent.model.intent import Intent, IntentKind, intent_key
from kiki_agent.model.money import Money, decimal_text, micros_from_text, minor_exponent
from kiki_agent.model.performance import DayWindow, PerformanceReport, PerformanceRow, SpendReport, SpendRow
from kiki_agent.model.platform import Platform
from kiki_agent.model.receipt import Outcome, Receipt
from kiki_agent.model.time import DAY, HOUR, MILLISECOND, MINUTE, SECOND, Instant, day_bounds, iso, local_day, parse_iso

__all__ = [
    "DAY",
    "HOUR",
    "MILLISECOND",
    "MINUTE",
    "SECOND",
    "Alert",
    "Campaign",
    "CampaignStatus",
    "Customer",
    "CustomerPage",
    "DayWindow",
    "Decision",
    "DecisionOutcome",
    "DecisionSource",
    "Instant",
    "Intent",
    "IntentKind",
    "Money",
    "Outcome",
    "PerformanceReport",
    "PerformanceRow",
    "Platform",
    "PlatformValue",
    "Prediction",
    "Receipt",
    "Severity",
    "SpendReport",
    "SpendRow",
    "day_bounds",
    "decimal_text",
    "intent_key",
    "iso",
    "local_day",
    "micros_from_text",
    "minor_exponent",
    "parse_iso",
]
