"""Keeping values fresh: customers in, predictions out, once an hour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kiki_agent.config import ValueSettings
from kiki_agent.errors import Bug, PluginError, RateLimited, StoreError, Temporary
from kiki_agent.model import DAY, SECOND, CustomerPage, Instant
from kiki_agent.runtime.log import get_logger
from kiki_agent.runtime.loop import Loop
from kiki_agent.value.value import Value

MOST_PAGES = 10_000
TOLERATED = 2
"""Failures of a source in a row that are weather; one more, and the loop fails visibly."""

_log = get_logger("syncvalue")


class CrmReader(Protocol):
    """The part of the plugin caller that is needed here."""

    async def to(self, instance_id: str, verb: str, *args: object, deadline_s: float | None = None) -> object:
        """Call one verb of one instance; raises nothing but PluginError."""
        ...


class ValueLoop(Loop):
    """Reads what changed in the CRM sources, predicts what changed, and refreshes the answers."""

    name = "value"

    def __init__(self, settings: ValueSettings, value: Value, caller: CrmReader, sources: Sequence[str]) -> None:
        self.period = round(settings.interval_s * SECOND)
        self._value = value
        self._caller = caller
        self._sources = tuple(sources)
        self._cursors: dict[str, str] = {}
        self._retry_at: dict[str, int] = {}
        self._failures: dict[str, int] = {}
        self.pages = 0
        self.waits_for = ""
        """What has to come before a source is asked at all; empty: nothing."""

    async def tick(self, now: Instant) -> str | None:
        """One round; returns why nothing changed. A source that fails does not keep the others from being read."""
        if self.waits_for:
            return f"waiting for {self.waits_for}"
        problem: PluginError | None = None
        waiting = ""
        for source in self._sources:
            if now < self._retry_at.get(source, 0):
                waiting = f"{source} asked for patience"
                continue
            try:
                await self._sync(source, now)
                self._failures[source] = 0
            except PluginError as error:
                waiting = f"{source} could not be read: {error}"
                problem = self._weigh(source, error) or problem
        try:
            trained = await self._value.train_when_due(now)
            predicted = await self._value.predict(now)
            if trained or predicted or self._value.refreshed_at is None or now >= self._value.refreshed_at + DAY:
                await self._value.refresh(now)
        except StoreError:
            self._value.distrust(now, 3 * self.period + DAY)
            raise
        if problem is not None:
            raise problem
        return None if predicted else waiting or "no customer changed"

    async def _sync(self, source: str, now: Instant) -> None:
        cursor = self._cursors.get(source)
        if cursor is None:
            cursor = await self._value.cursor_of(source)
        for _ in range(MOST_PAGES):
            page = await self._caller.to(source, "fetch_customers", cursor)
            if not isinstance(page, CustomerPage):
                raise Bug(f"{source}: fetch_customers answered {type(page).__name__} instead of a page of customers")
            if page.customers or page.cursor != cursor:
                await self._value.take_page(source, page, now)
            self.pages += 1
            stuck, cursor = page.cursor == cursor, page.cursor
            self._cursors[source] = cursor
            if not page.more:
                return
            if stuck:
                raise Bug(f"{source}: fetch_customers says there is more but gives the same cursor")
        raise Bug(f"{source}: fetch_customers gave more than {MOST_PAGES} pages")

    def _weigh(self, source: str, error: PluginError) -> PluginError | None:
        """Whether a failure is to be shown as the loop's own."""
        self._failures[source] = self._failures.get(source, 0) + 1
        if self._failures[source] == 1:
            text = f"{source} could not be read: {error}"
            _log.warning("crm_silent", text, source=source, error=type(error).__name__)
        if isinstance(error, RateLimited):
            self._retry_at[source] = error.retry_at
            return None
        if isinstance(error, Temporary) and self._failures[source] <= TOLERATED:
            return None
        return error
