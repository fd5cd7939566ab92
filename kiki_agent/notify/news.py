"""From what the parts of the agent publish to what people are told: once per fact, with its weight and what to do."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from kiki_agent.errors import StoreError
from kiki_agent.model import DAY, HOUR, SECOND, Alert, Instant, Severity, decimal_text
from kiki_agent.notify.alerts import Alerts
from kiki_agent.runtime.log import get_logger
from kiki_agent.runtime.loop import Loop
from kiki_agent.runtime.signals import Signal, Signals

TOPICS: Final = (
    "budget",
    "loop.faulted",
    "loop.recovered",
    "news",
    "quota",
    "shield",
    "spend.frozen",
    "spend.thawed",
)
"""What is listened to. `news` carries what a part wants told as it stands: severity, title, message, subject."""
HOLD: Final = "hold"
"""Subject of what is told about a safe hold."""
FROZEN: Final = "frozen"
"""The same of a loop that must run and does not."""
SAME_AGAIN = HOUR
MOST_WAITING = 200
"""So many alerts wait for a database that takes none; older ones give way."""

_ONLY_PEOPLE_CAN = ("AuthExpired:", "Outdated:", "AccountMismatch:")
"""Errors that no waiting cures."""

_SCOPES = {
    "day": "the cap of its day",
    "window": "its spending window",
    "allocation": "its allocation",
    "client_day": "the client's cap of the day",
    "client_window": "the client's spending window",
}
_TOGETHER = "All platforms together"

_log = get_logger("syncnotify")

News = tuple[Severity, str, str, str]
"""Severity, title, message, subject (a connector, a campaign, a loop)."""


class NewsLoop(Loop):
    """Turns published facts into alerts, and tells when the agent enters or leaves safe hold."""

    name = "news"
    period = 2 * SECOND

    def __init__(self, alerts: Alerts, signals: Signals, hold_reason: Callable[[], str | None]) -> None:
        """`hold_reason()` says why nothing may be spent, or None."""
        self._alerts = alerts
        self._heard = signals.subscribe(TOPICS, maxsize=1_000)
        self._hold_reason = hold_reason
        self._held: str | None = None
        self._told_at: dict[tuple[str, str], Instant] = {}
        self._waiting: deque[Alert] = deque(maxlen=MOST_WAITING)

    async def tick(self, now: Instant) -> str | None:
        """Write down everything new; what the database does not take waits for the next tick."""
        for number, signal in enumerate(self._heard.drain()):
            news = _news_of(signal)
            if news is None:
                continue
            fact = _fact(signal, now)
            if fact or signal.topic == "shield" or self._is_new(news, now):
                self._waiting.append(_alert(news, now, number, fact))
        self._watch_hold(now)
        told = 0
        while self._waiting:
            try:
                await self._alerts.tell(self._waiting[0])
            except StoreError as error:
                return f"{len(self._waiting)} alerts wait for the database: {error}"
            self._waiting.popleft()
            told += 1
        return None if told else "nothing new"

    def _is_new(self, news: News, now: Instant) -> bool:
        """Whether nobody was told the same within the last hour: what comes and goes is told once."""
        _, title, _, subject = news
        for known in [each for each, at in self._told_at.items() if not 0 <= now - at < SAME_AGAIN]:
            del self._told_at[known]
        if (title, subject) in self._told_at:
            return False
        self._told_at[title, subject] = now
        return True

    def _watch_hold(self, now: Instant) -> None:
        reason = self._hold_reason()
        if (reason is None) == (self._held is None):
            self._held = reason
            return
        if reason is not None:
            _log.error("safe_hold", f"Nothing is spent: {reason}", reason=reason)
            news: News = (Severity.CRITICAL, "Safe hold: nothing is spent", reason, HOLD)
        else:
            _log.info("hold_over", f"Spending goes on; what held it is over: {self._held}")
            news = (Severity.INFO, "Safe hold is over", f"What held it is over: {self._held}", HOLD)
        self._held = reason
        self._waiting.append(_alert(news, now, -1))


def _fact(signal: Signal, now: Instant) -> str:
    """What names a fact that is told once however often it is published, also over restarts; empty for others."""
    if signal.topic == "quota":
        return f"quota|{_text(signal.data, 'connector')}|{now // DAY}"
    return _text(signal.data, "fact") if signal.topic == "budget" else ""


def _alert(news: News, now: Instant, number: int, fact: str = "") -> Alert:
    """An alert whose id says which fact it is about; where none is named, what it says and when."""
    severity, title, message, subject = news
    named = fact or "\x1f".join((title, message, subject, str(now), str(number)))
    identity = f"news-{hashlib.sha256(named.encode()).hexdigest()[:24]}"
    return Alert(identity, severity, title, message, now, {"subject": subject} if subject else {})


def _news_of(signal: Signal) -> News | None:
    data = signal.data
    match signal.topic:
        case "news":
            return (
                Severity(_text(data, "severity")),
                _text(data, "title"),
                _text(data, "message"),
                _text(data, "subject"),
            )
        case "budget":
            return _budget(data)
        case "quota":
            return _quota(data)
        case "shield":
            return _kill_switch(data)
        case "spend.frozen":
            loops = data.get("loops")
            names = ", ".join(map(str, loops)) if isinstance(loops, list | tuple) else ""
            text = f"{names} failed again and again, so nothing is raised until it works."
            return Severity.CRITICAL, "Spending is frozen", text, FROZEN
        case "spend.thawed":
            return Severity.INFO, "Spending goes on", "What failed works again.", FROZEN
        case "loop.faulted":
            return _faulted(data)
        case "loop.recovered":
            name = _text(data, "loop")
            return Severity.INFO, f"{_loop_label(name)} works again", f"Loop {name} succeeded.", name
    return None


def _budget(data: Mapping[str, object]) -> News | None:
    spent, limit, currency = data.get("spent_micros"), data.get("limit_micros"), _text(data, "currency")
    if not isinstance(spent, int) or not isinstance(limit, int) or limit <= 0:
        return None
    subject, level = _text(data, "subject"), _text(data, "level")
    what = _SCOPES[_text(data, "scope")]
    who = subject or _TOGETHER
    share = 100 * spent // limit
    amounts = f"{decimal_text(spent, currency)} of {decimal_text(limit, currency)} {currency}"
    if level == "overshoot":
        title = f"{who} spent more than {what}"
        return Severity.CRITICAL, title, f"{amounts}; nothing more is permitted there.", subject
    severity = Severity.CRITICAL if level == "critical" else Severity.WARNING
    return severity, f"{who} used {share} % of {what}", f"{amounts}.", subject


def _quota(data: Mapping[str, object]) -> News:
    connector, usage = _text(data, "connector"), data.get("usage")
    if isinstance(usage, float):
        text = f"The platform says that {100 * usage:.0f} % of its quota is used; the agent spaces the rest out."
    else:
        used, limit, window_s = data.get("used"), data.get("limit"), data.get("window_s")
        text = f"{used} of {limit} calls in {window_s} s are used; the agent spaces the rest out."
    return Severity.WARNING, f"{connector} nears its call quota", text, connector


def _kill_switch(data: Mapping[str, object]) -> News | None:
    if "kill_switch" not in data:
        return None
    reason = _text(data, "reason")
    if data["kill_switch"]:
        text = f"Campaigns are being paused wherever the agent may write. Reason: {reason or 'none given'}."
        return Severity.CRITICAL, "Kill switch is on", text, "kill_switch"
    return (
        Severity.INFO,
        "Kill switch is off",
        f"The agent spends again. Reason: {reason or 'none given'}.",
        "kill_switch",
    )


def _faulted(data: Mapping[str, object]) -> News:
    name, error = _text(data, "loop"), _text(data, "error")
    severe = bool(data.get("essential")) or error.startswith(_ONLY_PEOPLE_CAN)
    severity = Severity.CRITICAL if severe else Severity.WARNING
    return severity, f"{_loop_label(name)} does not work", error or f"Loop {name} fails.", name


def _loop_label(name: str) -> str:
    kind, _, subject = name.partition(":")
    if kind == "poll" and subject:
        return f"Reading {subject}"
    if kind == "write" and subject:
        return f"Changing {subject}"
    return f"Loop {name}"


def _text(data: Mapping[str, object], name: str) -> str:
    value = data.get(name, "")
    return value if isinstance(value, str) else str(value)
