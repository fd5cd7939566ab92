"""What a customer is worth: customers from CRM sources, one stored prediction each, and their distribution by platform.

Conversions and their values go back to the platforms from here. The model is pure and thin; the service keeps it, its
predictions and the cheap answer for the bidder. No bid and no budget belongs here.
"""

from kiki_agent.value.conversions import ConversionReport, Conversions, ConversionsLoop, ConversionState
from kiki_agent.value.model import PRIOR, Model
from kiki_agent.value.value import Value
from kiki_agent.value.value_loop import CrmReader, ValueLoop

__all__ = [
    "PRIOR",
    "ConversionReport",
    "ConversionState",
    "Conversions",
    "ConversionsLoop",
    "CrmReader",
    "Model",
    "Value",
    "ValueLoop",
]
