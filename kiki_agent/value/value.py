"""The value service: keeps predictions, answers what a platform's customers are worth, cheaply for the bidder."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from kiki_agent.config import ValueSettings
from kiki_agent.model import DAY, CustomerPage, DecisionSource, Instant, PlatformValue, local_day, micros_from_text
from kiki_agent.runtime.log import get_logger
from kiki_agent.runtime.metrics import Metrics
from kiki_agent.store import Store
from kiki_agent.value import records
from kiki_agent.value.distribution import MULTIPLIER_PERMILLE, fallback_ltv
from kiki_agent.value.model import Model, train
from kiki_agent.value.records import Distribution

BATCH = 1_000
"""Customers predicted in one turn of the writer, so that others get theirs."""
TRAIN_EVERY = DAY
ASK_AGAIN_AFTER = 7 * DAY
"""Predictions of recently won customers older than this are made anew, `ASK_AGAIN_LIMIT` an hour."""
ASK_AGAIN_LIMIT = 500

Tokens = Callable[[Sequence[str], Instant], Awaitable[Sequence[str | None]]]
"""What stands for customers in the database, in their order; None for who was erased and is not taken up again."""

_log = get_logger("syncvalue")


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the bidder is told about one platform."""

    ltv_micros: int
    source: DecisionSource
    model_version: str


class Value:
    """What customers are worth, by platform. Written by its loop, read by all others."""

    def __init__(
        self,
        store: Store,
        settings: ValueSettings,
        client_id: str,
        platforms: Sequence[str],
        metrics: Metrics,
        tokens: Tokens,
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._settings = settings
        self._client_id = client_id
        self._metrics = metrics
        self._default = micros_from_text(settings.default_ltv)
        self.platforms = tuple(sorted(set(platforms)))
        self.model = Model(self._default)
        self.refreshed_at: Instant | None = None
        """When the answers were last computed from the stored predictions."""
        self.skipped = 0
        """Customers whose numbers were not believed."""
        self.predicted = 0
        self._trained_at = 0
        self._permille = dict(MULTIPLIER_PERMILLE)
        self._distributions: dict[str, Distribution] = {}
        self._history: list[int] = []
        self._answers: dict[str, _Answer] = {}
        self._answer()

    @classmethod
    async def open(
        cls,
        store: Store,
        settings: ValueSettings,
        *,
        client_id: str,
        platforms: Sequence[str],
        metrics: Metrics,
        tokens: Tokens,
        now: Instant,
    ) -> Value:
        """Know again what the last agent on this database knew."""
        self = cls(store, settings, client_id, platforms, metrics, tokens)
        model = await store.read(records.newest_model)
        if model is not None:
            self.model, self._trained_at = model, model.trained_at
        await self.refresh(now)
        return self

    # -- answers -------------------------------------------------------------------------------------------------

    def ltv_micros(self, platform: str) -> tuple[int, DecisionSource, str]:
        """Value of a new customer: `ai` = mean of stored predictions, `fallback` = median of the history (RES-03)."""
        answer = self._answers.get(platform)
        if answer is None:
            answer = self._answers[platform] = self._fallback(platform)
        return answer.ltv_micros, answer.source, answer.model_version

    def fallback_micros(self, platform: str) -> tuple[int, DecisionSource, str]:
        """The fallback's answer, whatever is predicted: for a platform that cannot be reached (RES-03)."""
        answer = self._fallback(platform)
        return answer.ltv_micros, answer.source, answer.model_version

    def tune(self, permille: dict[str, int], history: int, min_samples: int) -> None:
        """Other multipliers in thousandths, another length and least size of the fallback's history, from now on."""
        self._permille = dict(permille)
        self._settings = self._settings.model_copy(update={"history": history, "min_samples": min_samples})
        self._history = self._history[:history]  # newest first; a longer one is read at the next refresh
        self._answer()

    def platform_value(self, platform: str, now: Instant) -> PlatformValue:
        """Distribution over the configured look-back as of the last refresh; cheap."""
        found = self._distributions.get(platform, _EMPTY)
        return PlatformValue(platform, found.average, found.p25, found.p75, found.count, self.model.version)

    async def platform_ltv(self, platform: str, lookback_days: int, now: Instant) -> PlatformValue:
        """Distribution over predictions of the last `lookback_days`, read now (VAL-03, VAL-05)."""
        found = await self._store.read(
            partial(
                records.distribution,
                client_id=self._client_id,
                platform=platform,
                after=now - lookback_days * DAY,
                until=now,
            )
        )
        return PlatformValue(platform, found.average, found.p25, found.p75, found.count, self.model.version)

    # -- work ----------------------------------------------------------------------------------------------------

    async def cursor_of(self, source: str) -> str:
        """Where the last sync of a CRM source ended."""
        return await self._store.read(partial(records.cursor_of, source=source))

    async def take_page(self, source: str, page: CustomerPage, now: Instant) -> None:
        """Store one page of customers, under tokens, with its cursor; what cannot be true is counted and left out."""
        believed = [each for each in page.customers if records.believable(each, now)]
        if len(believed) < len(page.customers):
            if not self.skipped:
                _log.warning("customer_skipped", f"{source} stated customers that are not believed", source=source)
            self.skipped += len(page.customers) - len(believed)
        tokens = await self._tokens([each.customer_id for each in believed], now)
        taken = [replace(each, customer_id=token) for each, token in zip(believed, tokens, strict=True) if token]
        work = partial(records.take_page, source=source, customers=taken, cursor=page.cursor, now=now)
        await self._store.write(work)

    async def train_when_due(self, now: Instant) -> bool:
        """Fit a new model once a day; True when one serves now."""
        if self._trained_at and now < self._trained_at + TRAIN_EVERY:
            return False
        groups = await self._store.read(partial(records.groups, now=now))
        version = f"credibility-{local_day(now, 'UTC')}"
        model = train(groups, self._default, version, now)
        if model is None:
            return False
        first = not self.model.trained
        self.model, self._trained_at = model, now

        def keep(connection: sqlite3.Connection) -> None:
            records.keep_model(connection, model)
            if first:
                records.replace_prior(connection, self._client_id)

        await self._store.write(keep)
        _log.info("model_trained", f"{version} predicts from now on", version=version)
        return True

    async def predict(self, now: Instant) -> int:
        """Predict new and changed customers, and a few whose prediction is old; returns how many."""
        await self._store.write(
            partial(
                records.ask_again,
                client_id=self._client_id,
                before=now - ASK_AGAIN_AFTER,
                won_after=now - self._settings.lookback_days * DAY,
                limit=ASK_AGAIN_LIMIT,
            )
        )
        work = partial(records.predict_pending, client_id=self._client_id, model=self.model, now=now, limit=BATCH)
        done = 0
        while True:
            batch = await self._store.write(work)
            done += batch
            if batch < BATCH:
                break
        if done:
            self.predicted += done
            self._metrics.predictions(self.model.version, "ai" if self.model.trained else "prior").inc(done)
        return done

    async def refresh(self, now: Instant) -> None:
        """Compute the cheap answers from what is stored."""
        after = now - self._settings.lookback_days * DAY

        def read(connection: sqlite3.Connection) -> tuple[dict[str, Distribution], list[int]]:
            found = {
                platform: records.distribution(connection, self._client_id, platform, after, now)
                for platform in self.platforms
            }
            return found, records.latest(connection, self._client_id, self._settings.history)

        self._distributions, self._history = await self._store.read(read)
        self.refreshed_at = now
        self._answer()

    def distrust(self, now: Instant, longest: int) -> None:
        """Stored predictions that were not refreshed for `longest` microseconds no longer steer bids."""
        if self.refreshed_at is None or now - self.refreshed_at > longest:
            self._answers = {platform: self._fallback(platform) for platform in self.platforms}

    # -- inside --------------------------------------------------------------------------------------------------

    def _answer(self) -> None:
        self._answers = {platform: self._spoken(platform) for platform in self.platforms}

    def _spoken(self, platform: str) -> _Answer:
        found = self._distributions.get(platform, _EMPTY)
        if found.average is None:
            return self._fallback(platform)
        return _Answer(found.average, DecisionSource.AI, self.model.version)

    def _fallback(self, platform: str) -> _Answer:
        ltv = fallback_ltv(self._history, platform, self._default, self._settings.min_samples, self._permille)
        return _Answer(ltv, DecisionSource.FALLBACK, self.model.version)


_EMPTY = Distribution(0, None, None, None)
