"""The one SQLite file of an agent: one writer that commits for everybody, a few readers, migrations, lock and backups.

Callers hand in plain functions of a connection; nothing outside this folder begins or ends a transaction, and nothing
but SQLite opens the database file. What the rows mean is the business of the folders above; no table but the store's
own is named here.
"""

from kiki_agent.store.lock import AlreadyRunning
from kiki_agent.store.meta import get_meta, set_meta
from kiki_agent.store.store import Store
from kiki_agent.store.trouble import Damaged

__all__ = ["AlreadyRunning", "Damaged", "Store", "get_meta", "set_meta"]
