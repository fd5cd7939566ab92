"""One agent per database, across processes, within one, and after a kill; and nothing but SQLite opens the file."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kiki_agent.model import Instant
from kiki_agent.store import AlreadyRunning, Store

HOLD = """
import asyncio, sys
from pathlib import Path
from kiki_agent.store import Store

async def main():
    store = await Store.open(Path(sys.argv[1]), now=1)
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await store.close()

asyncio.run(main())
"""

AUDIT = """
import asyncio, json, os, sys
from pathlib import Path

opened = []
def hook(event, arguments):
    if event in ("open", "os.open") and arguments and not arguments[-1] & os.O_EXCL:
        opened.append(os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes, os.PathLike)) else "")
sys.addaudithook(hook)

from kiki_agent.ledger import Ledger, export, verify_file
from kiki_agent.store import Store
from kiki_agent.store.schema import status

async def main(folder):
    path, head = folder / "agent.db", folder / "ledger.head"
    for start in range(2):
        store = await Store.open(path, now=1)
        ledger = await Ledger.open(store, head, client_id="demo", now=1)
        await store.write(lambda c: ledger.append(c, 2, "control", {"what": "test"}))
        await ledger.verify()
        await ledger.write_head()
        await export(store, "csv", lambda text: None)
        await store.backup(folder / "copy.db")
        store.sizes()
        status(path)
        assert verify_file(path, head).ok
        await store.close()

asyncio.run(main(Path(sys.argv[1])))
print(json.dumps(opened))
"""


def run(script: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)


def start(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


async def test_a_second_process_is_refused_and_told_the_holder_until_the_first_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    first = start(path)
    with first:
        with pytest.raises(AlreadyRunning) as refused:
            await Store.open(path, now=Instant(1))
        assert f"pid {first.pid} " in refused.value.holder
        os.kill(first.pid, signal.SIGKILL)
    store = await Store.open(path, now=Instant(1))
    assert store.epoch == 2
    await store.close()


async def test_two_stores_in_one_process_exclude_each_other_too(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    store = await Store.open(path, now=Instant(1))
    with pytest.raises(AlreadyRunning) as refused:
        await Store.open(path, now=Instant(1))
    assert f"pid {os.getpid()} " in refused.value.holder
    # The refused attempt must not have cost the first one its lock.
    script = HOLD.replace('print("open", flush=True)', "raise SystemExit('got in')")
    second = await asyncio.to_thread(run, script, path)
    assert "AlreadyRunning" in second.stderr
    await store.close()
    store = await Store.open(path, now=Instant(1))
    await store.close()


def test_nothing_but_sqlite_opens_the_database_file(tmp_path: Path) -> None:
    """A plain open and close of the file would drop SQLite's locks on it. Making one that is not there drops none."""
    done = run(AUDIT, tmp_path)
    assert done.returncode == 0, done.stderr
    opened = {Path(name).name for name in json.loads(done.stdout) if name.startswith(str(tmp_path))}
    assert "agent.db.lock" in opened, "the hook sees what it should see"
    assert "ledger.head.new" in opened
    assert not opened & {"agent.db", "agent.db-wal", "agent.db-shm"}


async def test_a_database_is_read_by_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        store = await Store.open(tmp_path / "agent.db", now=Instant(1))
        await store.write(lambda connection: connection.execute("UPDATE meta SET value = value"))
        files = [tmp_path / f"agent.db{suffix}" for suffix in ("", "-wal", "-shm")]
        assert [os.stat(file).st_mode & 0o777 for file in files] == [0o600] * 3
        await store.close()
    finally:
        os.umask(before)
