"""Telling people: every alert is stored with the fact that caused it, then delivered through notifier plugins.

Nothing here decides what is worth telling; the layers above do, and hand an `Alert` over in their own transaction.
"""

from kiki_agent.notify.alerts import Alerts, DeliveryLoop, StoredAlert

__all__ = ["Alerts", "DeliveryLoop", "StoredAlert"]
