"""Commands killed at a random moment, and then run to the end: the same bytes, and nothing to clean up by hand."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, arbooth, copy_project, dvc

pytestmark = pytest.mark.heavy
KILLS = int(os.environ.get("FAULT_KILLS", "1"))
KEPT = ("preprocess", "tokenize", "prior", "finetune", "generate", "curves", "sheets", "prompts")


def contents(folder):
    found = {}
    for name in KEPT:
        for path in sorted((folder / "artifacts" / name).rglob("*")):
            if path.is_file():
                found[str(path.relative_to(folder))] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a run that nobody disturbs leaves, and how long its steps take."""
    folder = copy_project(tmp_path_factory.mktemp("whole") / "project", **{"finetune.steps": 8})
    started = time.monotonic()
    dvc("repro", cwd=folder)
    return folder, contents(folder), time.monotonic() - started


def processes_of(folder: Path) -> list[str]:
    """Processes that stand in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if Path(os.readlink(entry / "cwd")).is_relative_to(folder):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
    return found


def killed(rng: random.Random, folder: Path, command: list[str], seconds: float) -> None:
    """Start a command in a process group of its own and end the group at a random moment."""
    environment = {**os.environ, "ARBOOTH_CHECKPOINT_SECONDS": "0.2", "ARBOOTH_PROJECT": str(folder)}
    process = subprocess.Popen(
        [sys.executable, *([] if command[0].endswith(".py") else ["-m"]), *command], cwd=folder, env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    time.sleep(rng.uniform(0.05, seconds))
    if process.poll() is None:
        os.killpg(process.pid, rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:  # a shell in between may ignore SIGINT
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 20
    while processes_of(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes_of(folder), "orphans"


def killed_at(word: str, command: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Start a command and end its process group when it says a word."""
    process = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    assert process.stdout is not None
    said = next((line for line in process.stdout if word in line), "")
    assert said, "it ended before"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_repro_ends_with_the_same_bytes(undisturbed, tmp_path, number):
    rng = random.Random(number)
    whole, expected, seconds = undisturbed
    folder = copy_project(tmp_path / "project", **{"finetune.steps": 8})
    for _ in range(rng.choice([1, 1, 2])):
        killed(rng, folder, ["dvc", "repro"], seconds)
    done = dvc("repro", cwd=folder, check=False)
    if done.returncode:  # DVC's own lock file can be cut in the middle: the one thing that needs a command
        arbooth("doctor", "--fix", cwd=folder, check=False)
        dvc("repro", cwd=folder)
    assert contents(folder) == expected
    assert (folder / "params.yaml").read_text() == (whole / "params.yaml").read_text()
    assert not [p for p in folder.rglob("*.part") if ".dvc" not in p.parts]


@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_flow_ends_with_the_same_bytes(undisturbed, tmp_path, monkeypatch, number):
    """Its server is a temporary one; on a real server and worker, killed as well: tests/fleet."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    _, expected, seconds = undisturbed
    folder = copy_project(tmp_path / "project", **{"finetune.steps": 8})
    script = tmp_path / "one_flow.py"
    script.write_text("from flows.personalize import personalize\npersonalize('poodle')\n")
    environment = {**os.environ, "ARBOOTH_PROJECT": str(folder)}
    if number == 0:  # while it holds what others of its class wait for
        killed_at("prior dog", [sys.executable, str(script)], folder, environment)
    else:
        killed(random.Random(4000 + number), folder, [str(script)], seconds + 15)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=folder, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert contents(folder) == expected


@pytest.mark.parametrize("number", range(KILLS))
def test_a_stage_ends_with_the_process_that_asked_for_it(tmp_path, number):
    """Only that one is killed, as `kill -9` of a worker or the system's memory guard does: not DVC, not the stage."""
    folder = copy_project(tmp_path / "project", **{"finetune.steps": 100000})
    dvc("repro", "subjects/poodle/dvc.yaml:tokenize", "classes/dog/dvc.yaml:prior", cwd=folder)
    script = f"from arbooth.project import Project; Project({str(folder)!r}).repro('finetune', 'poodle')"
    asked = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert asked.stderr is not None
    for line in asked.stderr:
        if line.startswith("finetune poodle"):
            break
    time.sleep(random.Random(number).uniform(0, 6))
    asked.kill()
    deadline = time.monotonic() + 20
    while processes_of(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes_of(folder), "orphans"


@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_subject_add_works_the_second_time(undisturbed, tmp_path, number):
    rng = random.Random(1000 + number)
    folder = copy_project(tmp_path / "project")
    before = (folder / "params.yaml").read_text()
    photos = tmp_path / "mine"
    shutil.copytree(folder / "photos" / "poodle", photos)
    command = ["arbooth", "subject", "add", "mine", "--class", "cat", "--photos", str(photos)]
    killed(rng, folder, command, 4)
    said = arbooth(*command[1:], cwd=folder, check=False)
    assert said.returncode == 0 or "there is a subject 'mine' already" in said.stderr, said.stderr
    assert arbooth("params", cwd=folder).returncode == 0
    arbooth("graph", cwd=folder)
    arbooth("stage", "preprocess", "mine", cwd=folder)
    assert all(line in (folder / "params.yaml").read_text() for line in before.splitlines() if "#" in line)
    assert not [p for p in folder.rglob("*.part") if ".dvc" not in p.parts]


@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_publish_registers_once(undisturbed, tmp_path, number):
    from arbooth.project import Project
    from arbooth.registry.ledger import ledger

    rng = random.Random(2001 + number)
    folder = tmp_path / "project"
    shutil.copytree(undisturbed[0], folder, symlinks=True)
    shutil.rmtree(folder / ".arbooth", ignore_errors=True)
    killed(rng, folder, ["arbooth", "stage", "publish"], 9)
    arbooth("stage", "publish", cwd=folder)
    again = arbooth("stage", "publish", cwd=folder)
    assert "unchanged, candidate and champion" in again.stderr
    with ledger(Project(folder).tracking_uri) as client:
        aliases = client.get_registered_model("arbooth-poodle").aliases
        assert set(aliases) == {"candidate", "champion"}


@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_import_works_the_second_time(tmp_path, number):
    import torch

    from tests.data.test_bases import public_autoencoder, public_transformer, text_folder

    official = tmp_path / "official"
    official.mkdir()
    torch.save(public_transformer()[1], official / "infinity_2b_reg.pth")
    torch.save({"vae": public_autoencoder()[1]}, official / "infinity_vae_d32reg.pth")
    text_folder(official / "flan-t5-xl")
    folder = copy_project(tmp_path / "project")
    command = ["arbooth", "base", "import", str(official), "--name", "mine"]
    killed(random.Random(3000 + number), folder, command, 8)
    arbooth(*command[1:], cwd=folder)
    assert "mine\t" in arbooth("base", "list", cwd=folder).stdout
    assert not [p for p in folder.rglob("*.part") if ".dvc" not in p.parts]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a few pages, or of none."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
        if done.returncode:
            pytest.skip("no file system can be mounted here")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True)


@pytest.mark.parametrize("options", ["size=40k", "ro"])
def test_a_full_or_read_only_disk_is_one_sentence_and_leaves_nothing(undisturbed, small_disk, options):
    disk = small_disk(options)
    done = arbooth("generate", "base", "a cat", "-n", "12", "--out", str(disk / "x"), cwd=undisturbed[0], check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert not list(disk.rglob("*.png"))
