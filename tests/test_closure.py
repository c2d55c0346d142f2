"""A stage depends on the code that it runs, no more and no less."""

import json
import shutil
import subprocess
import sys

import pytest

from arbooth.closure import HANDING, PACKAGE, closure, digest
from arbooth.graph import TABLE
from arbooth.project import Project
from tests.conftest import copy_project, dvc

STAGES = [name for name, stage in TABLE.items() if not stage.always]


def digests(package):
    return {name: digest(f"arbooth.stages.{name}", TABLE[name].package, package) for name in STAGES}


@pytest.mark.parametrize(
    "file, redone",
    [
        ("painting/sheet.py", {"generate"}),
        ("stages/samples.py", set()),
        ("metrics/scores.py", {"evaluate", "summarize"}),
        ("data/photos.py", {"preprocess"}),
        ("data/manifest.py", {"preprocess", "tokenize", "finetune"}),
        ("method/losses.py", {"finetune"}),
        ("model/sampling.py", {"prior", "finetune", "generate"}),
        ("data/networks.py", {"tokenize", "prior", "finetune", "generate"}),
        ("model/transformer.py", {"tokenize", "prior", "finetune", "generate"}),
        ("embedded/encoders.json", {"evaluate"}),
        ("stages/report.html", {"summarize"}),
        ("registry/publish.py", set()),
        ("benchmark/score.py", set()),
        ("data/importing.py", set()),
        ("progress.py", set()),
        ("cli.py", set()),
    ],
)
def test_a_change_redoes_what_runs_the_file_and_nothing_else(tmp_path, file, redone):
    package = tmp_path / "arbooth"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "transformer.safetensors"))
    before = digests(package)
    with (package / file).open("a") as changed:
        changed.write("\n")
    after = digests(package)
    assert {name for name in STAGES if before[name] != after[name]} == redone


def test_type_checkers_alone_make_no_dependency(tmp_path):
    (tmp_path / "a.py").write_text("if TYPE_CHECKING:\n    from arbooth.b import x\nfrom arbooth.c import y\n")
    for name in ("b", "c"):
        (tmp_path / f"{name}.py").write_text("")
    assert closure("arbooth.a", tmp_path) == {"arbooth.a", "arbooth.c"}


def test_packages_run_no_code_of_their_own():
    for path in PACKAGE.glob("*/__init__.py"):
        assert path.parent.name in ("stages", "recipes") or not path.read_text().strip(), path


TRACE = """
import json, sys
import arbooth, arbooth.stages
arbooth.Project().params()
before = set(sys.modules)
arbooth.run(sys.argv[1], sys.argv[2] or None)
print(json.dumps([[name for name in names if name.startswith("arbooth.")] for names in (before, sys.modules)]))
"""


@pytest.mark.heavy
def test_what_really_runs_is_what_is_hashed(tmp_path):
    """Every stage in a process of its own: the modules that it loaded are its closure's, or only hand things over."""
    folder = copy_project(tmp_path / "project")
    for name in STAGES:
        key = {"subject": "poodle", "class": "dog", "all": ""}[TABLE[name].over]
        done = subprocess.run([sys.executable, "-c", TRACE, name, key], cwd=folder, capture_output=True, text=True,
                              env={**__import__("os").environ, "ARBOOTH_PROJECT": str(folder)})  # fmt: skip
        assert done.returncode == 0, done.stderr
        packages = {f"arbooth.{path.parent.name}" for path in PACKAGE.glob("*/__init__.py")}
        before, after = map(set, json.loads(done.stdout.splitlines()[-1]))
        hashed = closure(f"arbooth.stages.{name}")
        ran = after - before - HANDING - packages
        assert ran <= hashed, (name, ran - hashed)
        assert hashed - after <= LAZY, (name, hashed - after)


# Imported only where params.yaml asks for it.
LAZY = {"arbooth.metrics.embedded"}


@pytest.mark.heavy
def test_the_installed_code_decides_not_the_folder(tmp_path):
    """An experiment's own copy of the sources, or a stale one beside params.yaml, changes nothing."""
    folder = copy_project(tmp_path / "project")
    dvc("repro", "subjects/poodle/dvc.yaml:preprocess", cwd=folder)
    (folder / "arbooth" / "data").mkdir(parents=True)
    (folder / "arbooth" / "data" / "photos.py").write_text("raise SystemExit")
    assert Project(folder).is_current("preprocess", "poodle")
    stamp = json.loads((folder / "artifacts" / "stamp.json").read_text())
    assert stamp["code"] == digests(PACKAGE)
    stamp["code"]["preprocess"] = "other"
    (folder / "artifacts" / "stamp.json").write_text(json.dumps(stamp))
    said = dvc("status", "subjects/poodle/dvc.yaml:preprocess", cwd=folder).stdout
    assert "code.preprocess" in said
    assert Project(folder).is_current("preprocess", "poodle")  # it looks at the code again first
