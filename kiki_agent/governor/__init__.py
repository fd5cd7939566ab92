"""May this change go out now? How far the agent may act at each platform, and what is left to people.

The shield says whether money may move at all; this room says whether a sound change is made now, suggested, or left
alone: autonomy levels, quotas of the platforms, steps and rests, learning phases, edits of others, suggestions, orders
of people, roll back, anomalies. Nothing here chooses a bid or a budget, and nothing calls a platform by itself.
"""

from kiki_agent.governor.governor import Governor
from kiki_agent.governor.kill import KillWatch
from kiki_agent.governor.levels import Level, Standing
from kiki_agent.governor.loop import GovernorLoop
from kiki_agent.governor.reasons import Held

__all__ = ["Governor", "GovernorLoop", "Held", "KillWatch", "Level", "Standing"]
