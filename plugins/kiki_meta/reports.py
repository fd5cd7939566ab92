"""Performance in pages: at once for short spans, as a report that Meta makes in the background for long ones."""

from __future__ import annotations

from datetime import date

import msgspec

from kiki_agent import PluginContext
from kiki_agent.errors import Rejected, Temporary
from kiki_agent.model import SECOND, DayWindow, Instant
from kiki_meta import mapping
from kiki_meta.client import MetaClient
from kiki_meta.config import MetaConfig
from kiki_meta.mapping import Insights

RUN = "run:"
"""Begins a cursor that names a report: `run:<id>~<calls that waited for it>:<where its next page begins>`. Meta's own
cursors have no colon."""
PATIENT_CALLS = 20
"""Calls that wait for one report, ten minutes in all, before it is given up."""
WAIT = 2 * SECOND
POLLS = 15
"""Polls of one call: half of the time a read has. A report that takes longer goes on with the next call."""
FAILED = frozenset({"Job Failed", "Job Skipped"})
COMPLETED = "Job Completed"


class Ordered(msgspec.Struct):
    """A report was ordered."""

    report_run_id: str


class Run(msgspec.Struct):
    """How far a report is."""

    id: str = ""
    async_status: str = ""
    async_percent_completion: int = 0


class Reports:
    """Insights of one account."""

    def __init__(self, context: PluginContext[MetaConfig], client: MetaClient, act: str) -> None:
        self._context, self._client, self._act = context, client, act
        self._config = context.config

    async def page(self, fields: str, first_day: str, last_day: str, after: str) -> Insights:
        """One page, made while we wait. Raises Rejected TOO_MUCH_DATA when Meta will not do that for so much."""
        more = {"after": after} if after else {}
        return await self._client.read(
            f"{self._act}/insights", Insights, **self._asked(fields, first_day, last_day), **more
        )

    async def performance(self, window: DayWindow, cursor: str) -> tuple[Insights, str]:
        """One page of performance and the cursor of the next, empty after the last."""
        if cursor.startswith(RUN):
            name, _, after = cursor.removeprefix(RUN).partition(":")
            identity, _, waited = name.partition("~")
            return await self._made(identity, int(waited), after)
        if not cursor and _days(window) > self._config.report_days:
            return await self._order(window)
        try:
            page = await self.page(mapping.INSIGHT_FIELDS, window.first_day, window.last_day, cursor)
        except Rejected as error:
            if error.reason != "TOO_MUCH_DATA" or cursor:
                raise
            return await self._order(window)
        return page, page.paging.cursor

    def _asked(self, fields: str, first_day: str, last_day: str) -> dict[str, str]:
        return {
            "level": "adset",
            "time_increment": "1",
            "time_range": mapping.time_range(first_day, last_day),
            "fields": fields,
            "limit": str(self._config.page_size),
        }

    async def _order(self, window: DayWindow) -> tuple[Insights, str]:
        asked = self._asked(mapping.INSIGHT_FIELDS, window.first_day, window.last_day)
        ordered = await self._client.ask(f"{self._act}/insights", Ordered, asked)
        identity = ordered.report_run_id
        if not (identity.isascii() and identity.isdecimal()):
            raise Temporary("the answer of Meta is garbled: a report without an id")
        return await self._made(identity, 0, "")

    async def _made(self, identity: str, waited: int, after: str) -> tuple[Insights, str]:
        """A page of a report once it is made; no rows and the same report again while it is not."""
        if not after and not await self._is_made(identity):
            if waited >= PATIENT_CALLS:
                raise Temporary(f"Meta did not make the report within {PATIENT_CALLS * POLLS * WAIT // SECOND} s")
            return Insights(data=[]), f"{RUN}{identity}~{waited + 1}:"
        more = {"after": after} if after else {}
        page = await self._client.read(
            f"{identity}/insights",
            Insights,
            fields=mapping.INSIGHT_FIELDS,
            limit=str(self._config.page_size),
            **more,
        )
        following = page.paging.cursor
        return page, f"{RUN}{identity}~{waited}:{following}" if following else ""

    async def _is_made(self, identity: str) -> bool:
        for _ in range(POLLS):
            try:
                run = await self._client.read(identity, Run, fields="async_status,async_percent_completion")
            except Rejected as error:
                if error.reason != "META_100_33":
                    raise
                run = Run()  # just ordered, and not known everywhere yet
            if run.async_status == COMPLETED and run.async_percent_completion == 100:
                return True
            if run.async_status in FAILED:
                raise Temporary(f"Meta could not make the report: {run.async_status}")
            await self._context.clock.sleep_until(Instant(self._context.clock.now() + WAIT))
        return False


def _days(window: DayWindow) -> int:
    """Days of a window. Raises Rejected for one that is none."""
    try:
        days = (date.fromisoformat(window.last_day) - date.fromisoformat(window.first_day)).days + 1
    except ValueError:
        days = 0
    if days < 1:
        raise Rejected(
            f"{window.first_day[:12]!r} to {window.last_day[:12]!r} are no days in order", "INVALID_ARGUMENT"
        )
    return days
