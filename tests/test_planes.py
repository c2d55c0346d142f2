"""Imports go one way: a library that knows neither DVC, nor Prefect, nor MLflow, under three planes."""

import ast

import pytest

from tests.conftest import ROOT

MAY_IMPORT = {
    "model": {"model"},
    "method": {"method", "model", "errors"},
    "metrics": {"metrics", "model", "method", "data", "errors"},
    "data": {"data", "model", "method", "errors"},
    "stages": {
        "stages",
        "model",
        "method",
        "metrics",
        "data",
        "params",
        "settings",
        "errors",
        "progress",
        "painter",
        "tracking",
    },
    "tracking": {"tracking", "data", "method", "model", "errors", "settings"},
    "serving": {"serving", "data", "method", "model", "errors", "painter", "settings"},
}
OUTER = {"prefect", "mlflow", "dvc"}


def imports(path, top_level=False):
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("plane", MAY_IMPORT)
def test_each_plane_imports_only_what_lies_under_it(plane):
    files = list((ROOT / "arbooth" / plane).glob("*.py"))
    assert len(files) > 1
    for path in files:
        for name in imports(path):
            if name.startswith("arbooth."):
                assert name.split(".")[1] in MAY_IMPORT[plane], f"{path.name} imports {name}"


def test_prefect_mlflow_and_dvc_stay_in_their_planes():
    for path in (ROOT / "arbooth").rglob("*.py"):
        if path.parent.name not in ("tracking", "serving"):
            assert not OUTER & {name.split(".")[0] for name in imports(path)}, path


def test_the_command_line_imports_nothing_heavy_at_start():
    heavy = {"torch", "numpy", "PIL", "transformers", "pydantic", "omegaconf", *OUTER}
    for name in ("cli.py", "errors.py", "__init__.py", "__main__.py"):
        assert not heavy & {n.split(".")[0] for n in imports(ROOT / "arbooth" / name, top_level=True)}


def test_weights_are_never_unpickled():
    for folder in ("arbooth", "flows", "pretrain"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                    assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords), path
