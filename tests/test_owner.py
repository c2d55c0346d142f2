"""Which process is whose, and that a stage ends with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from arbooth.owner import OWNER, named, process_is_there


def test_a_process_is_known_by_number_and_start():
    assert process_is_there(named())
    number, started = named().split()
    assert int(number) == os.getpid()
    assert not process_is_there(f"{number} {int(started) + 1}")  # another one with that number
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not process_is_there(f"{ended.pid} 1")
    assert process_is_there("") and process_is_there("typed by somebody")


def test_it_ends_with_its_owner():
    script = (
        "import time; from arbooth.owner import end_with_owner; end_with_owner(); print(1, flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen(["sleep", "60"])
    started = Path(f"/proc/{owner.pid}/stat").read_text().rpartition(")")[2].split()[19]
    environment = {**os.environ, OWNER: f"{owner.pid} {started}"}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE)
    process.stdout.readline()
    time.sleep(1.5)
    assert process.poll() is None
    owner.kill()
    owner.wait()
    assert process.wait(10) == -signal.SIGTERM
