"""What happens when platforms fail or want fewer calls: one guard per connector, and what a person tunes meanwhile.

The arithmetic of limits and breakers is in `runtime`, their place in a call in `hooks`; here they are built from the
configuration, changed at run time, remembered over a restart and put on record. Never a decision about money: caps
belong to the shield, which is asked to take them.
"""

from kiki_agent.resilience.changes import ConnectorChange, RulesChange, Unusable
from kiki_agent.resilience.overrides import Overrides
from kiki_agent.resilience.resilience import Resilience

__all__ = ["ConnectorChange", "Overrides", "Resilience", "RulesChange", "Unusable"]
