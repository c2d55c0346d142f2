"""Imports go one way: a library that knows neither DVC, nor Prefect, nor MLflow, under three planes."""

import ast
import subprocess
import sys

import pytest

from tests.conftest import ROOT

LIBRARY = {"model", "method", "data", "metrics", "painting", "errors", "progress"}
PROJECT = {"project", "params", "settings", "graph", "closure", "edits", "owner", "dvcfiles"}
# Every package and module of arbooth -> what it may import of the others.
MAY_IMPORT = {
    "__init__": set(),
    "__main__": {"cli"},
    "errors": set(),
    "progress": {"errors"},
    "closure": set(),
    "owner": set(),
    "model": set(),
    "method": {"model", "errors"},
    "data": {"model", "method", "errors"},
    "metrics": {"data", "model", "method", "errors"},
    "painting": LIBRARY,
    "settings": {"errors"},
    "graph": {"errors"},
    "params": {"model", "method", "errors"},
    "edits": {"params", "data", "errors"},
    "recipes": {"edits", "errors"},
    "dvcfiles": {"project", "data", "errors", "settings"},
    "project": PROJECT | {"data", "errors"},
    "creating": PROJECT | {"recipes", "data", "errors"},
    "subjects": PROJECT | {"data", "painting", "errors"},
    "registry": LIBRARY | PROJECT,
    "stages": LIBRARY | PROJECT | {"registry"},
    "memory": LIBRARY | PROJECT | {"recipes"},
    "terminal": PROJECT | {"progress", "errors"},
    "doctor": LIBRARY | PROJECT | {"registry", "memory"},
    "benchmark": LIBRARY | PROJECT | {"stages", "creating", "terminal"},
    "cli": LIBRARY | PROJECT | {"stages", "registry", "benchmark", "doctor", "memory", "subjects", "creating", "recipes", "terminal"},
}
# Which of the outer tools each may touch.
MAY_TOUCH = {"registry": {"mlflow"}, "dvcfiles": {"dvc"}}
OUTER = {"prefect", "mlflow", "dvc"}


def imports(path, top_level=False):
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def home_of(path):
    """The package or top-level module that a file belongs to."""
    return path.relative_to(ROOT / "arbooth").parts[0].removesuffix(".py")


FILES = sorted((ROOT / "arbooth").rglob("*.py"))


def test_every_module_falls_under_a_rule():
    assert {home_of(path) for path in FILES} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_imports_only_what_lies_under_it(path):
    home = home_of(path)
    for name in imports(path):
        if name.startswith("arbooth."):
            assert name.split(".")[1] in MAY_IMPORT[home] | {home}, f"{path.name} imports {name}"
        assert name.split(".")[0] not in OUTER - MAY_TOUCH.get(home, set()), f"{path.name} imports {name}"


def test_prefect_alone_is_in_flows():
    for path in (ROOT / "flows").glob("*.py"):
        assert not {"mlflow", "dvc"} & {name.split(".")[0] for name in imports(path)}, path


def test_only_the_project_starts_dvc():
    for path in FILES:
        starts = '"dvc"' in path.read_text() and path.name not in ("doctor.py",)
        assert starts == (path.name == "project.py"), path


def test_no_module_is_long_and_most_are_short():
    lengths = sorted(len(path.read_text().splitlines()) for path in FILES if path.name != "__init__.py")
    assert lengths[-1] <= 400 and lengths[len(lengths) // 2] < 150


def test_the_command_line_imports_nothing_heavy_at_start():
    heavy = {"torch", "numpy", "PIL", "transformers", "pydantic", "omegaconf", *OUTER}
    for name in ("cli.py", "errors.py", "__init__.py", "__main__.py"):
        assert not heavy & {n.split(".")[0] for n in imports(ROOT / "arbooth" / name, top_level=True)}


@pytest.mark.parametrize("stage", ["preprocess", "summarize"])
def test_stages_that_compute_nothing_start_without_torch(stage):
    script = (
        f"import sys, arbooth.project, arbooth.stages.{stage}, arbooth.data.bases; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_weights_are_never_unpickled():
    for folder in ("arbooth", "flows", "pretrain"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                    assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords), path
