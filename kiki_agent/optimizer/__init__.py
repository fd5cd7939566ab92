"""The five-minute loop: compares what platforms earn per customer with what they cost, and moves budget.

The rule is pure (`rule`, `plan`); the loop carries a shift from plan to record, decrease confirmed before increase.
No bids, no vendor formats, no caps of its own: the shield decides whether money may move.
"""

from kiki_agent.optimizer.optimizer import EfficiencyDetail, EfficiencySnapshot, Optimizer
from kiki_agent.optimizer.shifts import Shift, ShiftState

__all__ = ["EfficiencyDetail", "EfficiencySnapshot", "Optimizer", "Shift", "ShiftState"]
