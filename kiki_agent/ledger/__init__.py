"""The record: an append-only, hash-chained journal, and what is built directly on it.

Decisions and the runs of equal ones, the outbox through which alone changes reach platforms, the log of budget shifts,
old entries sealed into files, verification and export. Nothing here decides whether money may move, knows a
vendor, or changes a row once written.
"""

from kiki_agent.ledger.decisions import DecisionBook, DecisionRun
from kiki_agent.ledger.exports import export, export_file, file_chunks
from kiki_agent.ledger.intents import IntentRow
from kiki_agent.ledger.ledger import Ledger
from kiki_agent.ledger.outbox import Outbox
from kiki_agent.ledger.reallocations import Reallocation, ReallocationRow, record_reallocation
from kiki_agent.ledger.records import Records
from kiki_agent.ledger.verify import Verification, verify_file

__all__ = [
    "DecisionBook",
    "DecisionRun",
    "IntentRow",
    "Ledger",
    "Outbox",
    "Reallocation",
    "ReallocationRow",
    "Records",
    "Verification",
    "export",
    "export_file",
    "file_chunks",
    "record_reallocation",
    "verify_file",
]
