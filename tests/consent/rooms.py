"""The consent room on a real store, opened, closed and opened again; for tests alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kiki_agent.consent import Consents, Privacy, Vault, Vendors, seeded_entropy
from kiki_agent.ledger import Ledger
from kiki_agent.model import Instant, parse_iso
from kiki_agent.store import Store

NOON = parse_iso("2026-03-10T12:00:00Z")


@dataclass
class Room:
    """Everything consents need, in one folder."""

    folder: Path
    vendors: Vendors = field(default_factory=lambda: Vendors(755, {"tradedesk": frozenset({21})}))
    most: int = 1_000
    starts: int = 0
    reapplied: int = 0
    """Subjects the last start erased again."""

    store: Store = field(init=False)
    ledger: Ledger = field(init=False)
    vault: Vault = field(init=False)
    consents: Consents = field(init=False)
    privacy: Privacy = field(init=False)

    async def start(self, now: Instant = NOON) -> Room:
        """Open it, as an agent does."""
        self.starts += 1
        self.store = await Store.open(self.folder / "a.db", synchronous="OFF", readers=1, now=now)
        self.ledger = await Ledger.open(self.store, self.folder / "a.head", client_id="demo", now=now)
        self.vault = await Vault.open(
            self.folder / "a.keys",
            self.folder / "a.erased",
            synchronous="OFF",
            entropy=seeded_entropy(self.starts),
        )
        self.consents = Consents(self.store, self.ledger, self.vault, self.vendors, self.most)
        self.privacy = Privacy(self.store, self.ledger, self.vault, self.consents)
        self.reapplied = await self.privacy.reapply(now)
        await self.consents.load(now)
        return self

    async def stop(self) -> None:
        """Close it; the chain must be whole."""
        await self.store.drain()
        await self.ledger.write_head()
        assert (await self.ledger.verify()).ok
        await self.store.close()
        await self.vault.close()

    async def again(self, now: Instant = NOON) -> Room:
        """Close and open."""
        await self.stop()
        return await self.start(now)

    async def rows(self, sql: str) -> list[tuple[object, ...]]:
        """Ask the database."""
        return await self.store.read(lambda connection: connection.execute(sql).fetchall())

    def bytes(self) -> bytes:
        """Everything that lies in the folder."""
        return b"".join(path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.is_file())
