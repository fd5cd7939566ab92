"""Ad platforms and the spellings they are known by."""

from __future__ import annotations

from enum import StrEnum


class Platform(StrEnum):
    """An ad platform; the value is the canonical id used in answers and rows."""

    META = "meta"
    GOOGLE_ADS = "google_ads"
    TIKTOK = "tiktok"
    LINKEDIN = "linkedin"
    AMAZON = "amazon"
    MICROSOFT = "microsoft"
    TRADEDESK = "tradedesk"
    X = "x"

    @property
    def rpc_name(self) -> str:
        """The upper-case name of the RPC messages: `PLATFORM_GOOGLE` for google_ads."""
        return "PLATFORM_GOOGLE" if self is Platform.GOOGLE_ADS else f"PLATFORM_{self.name}"

    @property
    def label(self) -> str:
        """The name people use."""
        return _LABELS[self]

    @classmethod
    def parse(cls, text: str) -> Platform:
        """The platform meant by any accepted spelling, in any case. Raises ValueError naming the spellings."""
        found = _SPELLINGS.get(text.strip().lower())
        if found is None:
            names = ", ".join(member.value for member in cls)
            raise ValueError(f"unknown platform {text[:40]!r}; known are {names} (or PLATFORM_META style)")
        return found


_LABELS = {
    Platform.META: "Meta",
    Platform.GOOGLE_ADS: "Google Ads",
    Platform.TIKTOK: "TikTok",
    Platform.LINKEDIN: "LinkedIn",
    Platform.AMAZON: "Amazon",
    Platform.MICROSOFT: "Microsoft",
    Platform.TRADEDESK: "The Trade Desk",
    Platform.X: "X",
}
_SPELLINGS: dict[str, Platform] = {
    "meta_ads": Platform.META,
    "facebook": Platform.META,
    "google": Platform.GOOGLE_ADS,
    "tiktok_ads": Platform.TIKTOK,
    "bing": Platform.MICROSOFT,
    "ttd": Platform.TRADEDESK,
    "twitter": Platform.X,
}
for _member in Platform:
    _SPELLINGS[_member.value] = _member
    _SPELLINGS[_member.rpc_name.lower()] = _member
