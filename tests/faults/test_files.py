"""Files that a project reads back: damaged, exchanged, of somebody else."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from arbooth.data.adapters import read_adapter, write_adapter
from arbooth.data.files import EMBEDDED
from arbooth.data.tensors import HEADER, open_tensors, write_tensors
from tests.faults.harness import check, damaged, drawn, run, seeds

# A file of the finished project -> commands that read it.
READERS = {
    "artifacts/preprocess/poodle/manifest.json": [("stage", "tokenize", "poodle")],
    "artifacts/preprocess/poodle/00.png": [("stage", "tokenize", "poodle"), ("stage", "evaluate", "poodle")],
    "artifacts/tokenize/poodle.safetensors": [("stage", "finetune", "poodle")],
    "artifacts/prior/dog.safetensors": [("stage", "finetune", "poodle")],
    "artifacts/finetune/poodle.safetensors": [
        ("stage", "generate", "poodle"),
        ("generate", "poodle", "a <S*> dog", "-n", "1"),
        ("stage", "publish"),
    ],
    "artifacts/generate/poodle/index.json": [("stage", "evaluate", "poodle")],
    "artifacts/generate/poodle/0000.png": [("stage", "evaluate", "poodle")],
    "artifacts/timing/poodle.json": [("stage", "evaluate", "poodle")],
    "artifacts/evaluate/poodle.json": [("stage", "summarize"), ("summary",)],
    "artifacts/prompts/poodle.csv": [("stage", "summarize")],
    "params.yaml": [("params",), ("stage", "stamp")],
    ".env": [("params",), ("generate", "base", "a dog", "-n", "1")],
}


@pytest.mark.parametrize("number", seeds("files"))
def test_any_damage(case, number):
    rng = drawn("files", number)
    name = rng.choice(list(READERS))
    path = case / name
    if name == ".env":
        path.write_bytes(damaged(rng, b"ARBOOTH_DEVICE=cpu\nARBOOTH_MAX_PIXELS=1000000\n"))
    elif rng.random() < 0.1:
        path.unlink()
        path.mkdir()
    elif rng.random() < 0.1:
        path.unlink()
    else:
        path.write_bytes(damaged(rng, path.read_bytes()))
    for command in READERS[name]:
        done = check(case, *command, may_write=True)
        if done.code == 2:
            assert "mend" in done.err or ": " in done.err
    if number % 5 == 0:
        said = run(case, "doctor")
        assert said.code in (0, 1) and "Traceback" not in said.said, said.said


def rewritten(path, change_tensors=lambda t: None, **header):
    """A cache or adapter with other content, whole and with a right checksum."""
    tensors, before = open_tensors(path)
    change_tensors(tensors)
    write_tensors(path, tensors, {k: v for k, v in {**before, **header}.items() if v is not None})


@pytest.mark.parametrize(
    "file, change, header, words",
    [
        ("tokenize", None, {"subject": '"rex"'}, "made with another subject"),
        ("tokenize", None, {"photos": '"other"'}, "made with another photos"),
        ("tokenize", lambda t: t["features"].fill_(torch.nan), {}, "not finite in features"),
        ("tokenize", lambda t: t.update(identifier_rows_0=torch.zeros(0, dtype=torch.int64)), {}, "holds identifier_rows_0"),
        ("tokenize", lambda t: t.update(identifier_rows_0=torch.tensor([99])), {}, "outside its prompt"),
        ("tokenize", lambda t: t.update(features=t["features"][..., :4, :4]), {}, "holds features"),
        ("prior", lambda t: t.update(bits=t["bits"][..., :0]), {}, "holds bits"),
        ("prior", lambda t: t.pop("margins"), {}, "holds margins as None"),
        ("prior", lambda t: t["margins"].fill_(torch.inf), {}, "not finite in margins"),
    ],
)  # fmt: skip
def test_content_that_does_not_belong_is_refused(case, file, change, header, words):
    path = case / "artifacts" / file / {"tokenize": "poodle.safetensors", "prior": "dog.safetensors"}[file]
    rewritten(path, change or (lambda t: None), **header)
    done = check(case, "stage", "finetune", "poodle")
    assert done.code == 2 and words in done.err, done.err


def test_one_flipped_bit_is_seen(case):
    for file, command in (
        ("tokenize/poodle", ("stage", "finetune", "poodle")),
        ("prior/dog", ("stage", "finetune", "poodle")),
        ("finetune/poodle", ("stage", "generate", "poodle")),
    ):
        path = case / "artifacts" / f"{file}.safetensors"
        whole = path.read_bytes()
        path.write_bytes(whole[:-7] + bytes([whole[-7] ^ 1]) + whole[-6:])
        done = check(case, *command, may_write=True)
        assert done.code == 2 and "checksum differs" in done.err
        path.write_bytes(whole)


def test_photos_replaced_after_tokenizing_are_seen(case):
    photos = sorted((case / "photos" / "poodle").iterdir())
    photos[0].write_bytes(photos[1].read_bytes())
    done = check(case, "stage", "finetune", "poodle")
    assert done.code == 2 and "another photos" in done.err


@pytest.mark.parametrize("subject", ["../../escaped", "rex", "", "A b"])
def test_an_adapter_of_another_name_is_refused_through_every_door(case, subject):
    path = case / "artifacts" / "finetune" / "poodle.safetensors"
    write_adapter(path, replace(read_adapter(path), subject=subject))
    for command in (("stage", "generate", "poodle"), ("generate", "poodle", "a <S*> dog"), ("stage", "publish")):
        assert check(case, *command, may_write=command[-1] == "publish").code == 2
    assert not list(case.parent.rglob("escaped*"))


@pytest.mark.parametrize("header", ["{", "[]", "null", '{"format": "arbooth-adapter-2"}', '{"format": 1}', "\u0000"])
def test_headers_that_say_nothing(case, header):
    from safetensors.torch import load_file, save_file

    path = case / "artifacts" / "finetune" / "poodle.safetensors"
    save_file(load_file(path), path, {HEADER: header})
    assert check(case, "generate", "poodle", "a <S*> dog").code == 2


def test_odd_types_and_missing_tensors(case):
    path = case / "artifacts" / "finetune" / "poodle.safetensors"
    whole = path.read_bytes()
    name = next(k for k in open_tensors(path)[0] if k.startswith("blocks"))
    for change in (
        lambda t: t.update({name: t[name].to(torch.float8_e4m3fn)}),
        lambda t: t.update({name: t[name].to(torch.int32)}),
        lambda t: t.pop("identifier"),
        lambda t: t.update(identifier=torch.zeros(4, 3)),
    ):
        rewritten(path, change)
        assert check(case, "generate", "poodle", "a <S*> dog").code == 2
        path.write_bytes(whole)


def test_a_damaged_resume_file_does_not_block(case):
    resume = case / ".arbooth" / "resume" / "poodle.pt"
    resume.parent.mkdir(parents=True)
    expected = (case / "artifacts" / "finetune" / "poodle.safetensors").read_bytes()
    for content in (b"", b"PK\x03\x04", b"x" * 1000):
        resume.write_bytes(content)
        done = check(case, "stage", "finetune", "poodle")
        assert done.code == 0 and "starts afresh" in done.err
        assert (case / "artifacts" / "finetune" / "poodle.safetensors").read_bytes() == expected


def test_a_last_step_that_diverges_is_not_saved(case):
    path = case / "artifacts" / "finetune" / "poodle.safetensors"
    before = path.read_bytes()
    for rate in (".inf", "1.0e+38", "1000"):
        done = check(case, "stage", "finetune", "poodle", f"finetune.learning_rate={rate}", "finetune.steps=1")
        assert done.code == 0 or "finetune.learning_rate" in done.err
    assert path.read_bytes() == before or torch.isfinite(read_adapter(path).identifier).all()


def test_doctor_finds_what_kills_leave_and_mends_it(case):
    (case / ".git").mkdir()
    shutil.rmtree(case / ".git")
    (case / ".dvc" / "tmp").mkdir(parents=True, exist_ok=True)
    (case / ".dvc" / "tmp" / "rwlock").write_text('{"a": ')
    (case / "artifacts" / ".prior.999999.part").mkdir()
    (case / "photos" / ".x.jpg.999999.part").write_text("half")
    (case / "subjects" / "poodle" / "dvc.lock").write_text("schema: '2.0'\nstages:\n  preprocess: {cmd: x}\n")
    said = run(case, "doctor")
    assert said.code == 1
    for words in ("cut in the middle: .dvc/tmp/rwlock", "lacks tokenize, finetune, generate, evaluate", "half-written files"):
        assert words in said.out, said.out
    assert "run `git init`" in said.out
    fixed = run(case, "doctor", "--fix").out
    assert fixed.count("fixed ") == 3 and not list(case.rglob("*.part"))
    assert not (case / ".dvc" / "tmp" / "rwlock").exists()
    path = case / "artifacts" / "prior" / "dog.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert "dog.safetensors" in run(case, "doctor").out


def test_weights_in_the_package_are_read_whole():
    index = json.loads((EMBEDDED / "base.json").read_text())
    assert index["format"] == 2
