"""Is what a change of budget does larger than what chance does anyway?"""

from __future__ import annotations

import math

from kiki_agent.errors import Denied
from kiki_agent.governor.reasons import Held


def check_noise(connector: str, delta_micros: int, stands_micros: int, conversions: float, z: float) -> None:
    """No change whose effect drowns in noise.

    Conversions are counted events, so N of them come with a standard deviation of sqrt(N) (Poisson). A change of the
    daily budgets by a share r moves N by about r * N, where conversions follow spend. It is made when r * N is above
    z * sqrt(N), over the optimizer's look-back; z = 0 lets everything through. Raises Denied NOISE.
    """
    if z <= 0 or delta_micros == 0:
        return
    effect = abs(delta_micros) / max(1, stands_micros) * conversions
    noise = z * math.sqrt(max(0.0, conversions))
    if effect <= noise:
        raise Denied(
            Held.NOISE,
            f"{connector}: the change would move {effect:.1f} of {conversions:.0f} conversions, and chance moves"
            f" {noise:.1f} (governor.noise_z = {z:g})",
        )
