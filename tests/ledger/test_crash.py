"""Kill -9 in the middle of writing: nothing that was acknowledged is missing, and the chain is sound."""

import json
import subprocess
import sys
from pathlib import Path

KILLS = 20


def test_a_killed_writer_leaves_a_sound_chain_with_everything_it_acknowledged(tmp_path: Path) -> None:
    script = Path(__file__).with_name("crash_run.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(KILLS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["problems"] == []
    assert found["missing"] == 0
    assert found["whole"]
    assert found["epoch"] == KILLS + 1
    assert found["acknowledged"] >= KILLS * 20, "the writers wrote"
