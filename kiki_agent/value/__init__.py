"""What a customer is worth: customers from CRM sources, one stored prediction each, and their distribution by platform.

The model is pure and thin; the service keeps it, its predictions and the cheap answer for the bidder. No bid, no
budget and no platform call belongs here.
"""

from kiki_agent.value.model import PRIOR, Model
from kiki_agent.value.value import Value
from kiki_agent.value.value_loop import CrmReader, ValueLoop

__all__ = ["PRIOR", "CrmReader", "Model", "Value", "ValueLoop"]
