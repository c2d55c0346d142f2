import re
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT, arbooth


def test_help_answers_in_half_a_second():
    best = 9.0
    for _ in range(5):
        started = time.perf_counter()
        done = arbooth("--help")
        best = min(best, time.perf_counter() - started)
    assert best < 0.5
    for command in ("stage", "generate", "subject", "base", "doctor", "bench"):
        assert command in done.stdout


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["stage", "finetun", "poodle"], "no stage 'finetun'"),
        (["stage", "finetune", "cat"], "no subject 'cat'"),
        (["stage", "finetune"], "runs for one subject"),
        (["stage", "prior", "cat"], "runs for one class (known: dog)"),
        (["stage", "summarize", "poodle"], "runs for all at once"),
        (["stage", "tokenize", "poodle"], "is not there"),
        (["generate", "poodle", "a <S*> dog"], "not trained yet: run `dvc repro subjects/poodle/dvc.yaml:finetune`"),
        (["generate", "cat", "a <S*> cat"], "no subject 'cat'"),
        (["generate", "../x", "a"], "no subject '../x'"),
        (["generate", "base", ""], "the prompt is empty"),
        (["generate", "base", "a <S*> cat"], "no subject is chosen"),
        (["generate", "base", "a <s*> cat"], "the identifier is written <S*>"),
        (["generate", "base", "a cat", "--top-p", "2"], "top_p must be in (0, 1]"),
        (["generate", "base", "a cat", "--temperature", "0"], "temperature must be above 0"),
        (["generate", "models:/arbooth-cat@champion", "a <S*> cat"], "has nothing yet: run `dvc repro`"),
        (["registry", "promote", "cat", "--reason", "x"], "has nothing yet: run `dvc repro`"),
        (["subject", "add", "../evil", "--class", "cat", "--photos", "photos/poodle"], "can't be named '../evil'"),
        (
            ["subject", "add", "poodle", "--class", "cat", "--photos", "photos/poodle"],
            "there is a subject 'poodle' already",
        ),
        (["subject", "add", "x", "--class", "!!", "--photos", "photos/poodle"], "is no class noun"),
        (["subject", "add", "x", "--class", "cat", "--photos", "nowhere"], "not a folder of photos"),
        (["subject", "remove", "x"], "no subject 'x'"),
        (["base", "import", "nowhere", "--name", "x"], "is not a folder"),
        (["params", "finetune.steps=many"], "finetune.steps"),
        (["summary"], "not evaluated yet"),
        (["generate", "base", "a cat", "--out", "params.yaml"], "is a file"),
        (["init", "."], "is a project already"),
        (["init", "new", "--recipe", "none"], "no recipe 'none'"),
    ],
)
def test_bad_input_is_one_message_exit_code_2_and_nothing_written(project, arguments, words):
    before = sorted(
        p for p in project.rglob("*") if not p.is_symlink() and not {".git", ".dvc", ".arbooth"} & set(p.parts)
    )
    done = arbooth(*arguments, cwd=project, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    after = sorted(
        p for p in project.rglob("*") if not p.is_symlink() and not {".git", ".dvc", ".arbooth"} & set(p.parts)
    )
    assert before == after


def test_params_prints_what_the_file_comes_to(project):
    done = arbooth("params", "finetune.steps=9", cwd=project)
    assert '"steps":9' in done.stdout.replace(" ", "")


def test_doctor_says_what_is_missing_and_what_to_do(project, monkeypatch):
    done = arbooth("doctor", cwd=project)
    assert "ok    base: embedded" in done.stdout
    assert "none  dino-vits16: not there" in done.stdout
    assert "-> for evaluate.encoders" in done.stdout
    (project / "params.yaml").write_text("base: 1")
    broken = arbooth("doctor", cwd=project, check=False)
    assert broken.returncode == 1
    assert "MISS  project" in broken.stdout


@pytest.mark.parametrize(
    "name, value", [("ARBOOTH_DEVICE", "gpu"), ("ARBOOTH_ATTENTION", "magic"), ("ARBOOTH_CHECKPOINT_SECONDS", "often")]
)
def test_invalid_settings_are_named(project, name, value):
    done = arbooth("generate", "base", "a cat", cwd=project, env={name: value}, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {name}")


def test_a_device_that_is_not_there_is_an_error(project):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    done = arbooth("generate", "base", "a cat", cwd=project, env={"ARBOOTH_DEVICE": "cuda"}, check=False)
    assert done.returncode == 2
    assert "torch sees 0 CUDA devices" in done.stderr


def test_pictures_of_the_plain_base_repeat_with_their_seed(project):
    for out in ("one", "two"):
        arbooth("generate", "base", "a photo of cat in the snow", "-n", "2", "--seed", "7", "--out", out, cwd=project)
    one, two = (sorted((project / out).glob("*.png")) for out in ("one", "two"))
    names = [re.fullmatch(r"a-photo-of-cat-in-the-snow-([0-9a-f]{8})-seed7-(0|1|sheet)\.png", p.name) for p in one]
    assert [name[2] for name in names] == ["0", "1", "sheet"]
    assert len({name[1] for name in names}) == 1, "the digest of how they are painted"
    assert [p.name for p in one] == [p.name for p in two]
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in two]
    assert one[0].read_bytes() != one[1].read_bytes()


def test_version_is_the_packages():
    assert f'version = "{arbooth("version").stdout.strip()}"' in (ROOT / "pyproject.toml").read_text()


def test_an_interrupt_leaves_no_traceback_and_nothing_half_written(project):
    command = [sys.executable, "-m", "arbooth", "generate", "base", "a cat", "-n", "1000"]
    heard = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731 (ignored in a shell's background)
    process = subprocess.Popen(
        command, cwd=project, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heard
    )
    time.sleep(8)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said, said
    assert not list(project.rglob("*.part"))
