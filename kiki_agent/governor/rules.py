"""What the platforms themselves ask of those who change budgets: data, with its source.

`None` where a platform states nothing. Limits that an account can be asked for (LinkedIn) come with its answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from kiki_agent.model import DAY, HOUR, Platform


@dataclass(frozen=True, slots=True)
class PlatformRule:
    """What one platform asks."""

    source: str
    edits: int | None = None
    """So many edits of one budget are taken within `per` microseconds; one more and it is blocked."""
    per: int = HOUR
    step: Fraction | None = None
    """Largest change of a budget at once, as a share of what stands."""
    rest: int = 0
    """Microseconds between two changes of one budget."""
    rest_binds: bool = True
    """False where step and rest matter to a campaign that is learning only."""
    day_factor: Fraction = Fraction(1)
    """The platform may spend so many daily budgets in one day, by contract."""
    month_days: Fraction | None = None
    """And so many daily budgets in a month."""


NO_RULE = PlatformRule("the platform states no limit for edits of budgets")
RULES: dict[Platform, PlatformRule] = {
    Platform.META: PlatformRule(
        "Meta, Marketing API, ad set: a budget takes 4 edits an hour, then it is blocked for an hour;"
        " a day may cost 1.75 daily budgets",
        edits=4,
        per=HOUR,
        day_factor=Fraction(7, 4),
    ),
    Platform.GOOGLE_ADS: PlatformRule(
        "Google Ads help, about average daily budgets: a day may cost 2 daily budgets, a month 30.4;"
        " changed budgets are listed among the causes of a learning phase",
        day_factor=Fraction(2),
        month_days=Fraction(304, 10),
    ),
    Platform.TIKTOK: PlatformRule(
        "TikTok Business Help Center, learning phase: change a budget by at most 50 % and not again for 2 days",
        step=Fraction(1, 2),
        rest=2 * DAY,
        rest_binds=False,
    ),
    Platform.AMAZON: PlatformRule(
        "Amazon Ads help, budgets: a day may cost 2 daily budgets within a month's average", day_factor=Fraction(2)
    ),
    Platform.MICROSOFT: PlatformRule(
        "Microsoft Advertising help, budgets: a month costs at most the daily budget times its days",
        day_factor=Fraction(2),
        month_days=Fraction(304, 10),
    ),
    Platform.LINKEDIN: PlatformRule("LinkedIn Marketing API: limits are those of the account, given by query"),
}


def rule_of(platform: Platform) -> PlatformRule:
    """The rule of a platform."""
    return RULES.get(platform, NO_RULE)
