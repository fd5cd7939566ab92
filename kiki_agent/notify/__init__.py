"""Telling people: every alert is stored with the fact that caused it, then delivered through notifier plugins.

The layers above hand an `Alert` over in the transaction of its cause; what they only publish becomes one here, once.
"""

from kiki_agent.notify.alerts import Alerts, DeliveryLoop, StoredAlert
from kiki_agent.notify.news import NewsLoop

__all__ = ["Alerts", "DeliveryLoop", "NewsLoop", "StoredAlert"]
