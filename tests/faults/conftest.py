"""A finished project, made once for each process that tests; heavy modules are there before anything is forked."""

from __future__ import annotations

import pytest
import torch

from tests.conftest import copy_project, enter


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A small project after its stages, without a ledger."""
    import mlflow  # noqa: F401
    import transformers  # noqa: F401

    from arbooth.data.bases import load_base
    from arbooth.data.networks import load_text_encoder
    from arbooth.stages import run

    torch.set_num_threads(1)  # threads do not survive a fork
    load_text_encoder(load_base("embedded"))
    folder = copy_project(tmp_path_factory.mktemp("faults") / "project")
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(folder, monkeypatch)
        for stage, key in (("preprocess", "poodle"), ("tokenize", "poodle"), ("prior", "dog"), ("finetune", "poodle"),
                           ("generate", "poodle"), ("evaluate", "poodle"), ("summarize", None)):  # fmt: skip
            run(stage, key)
    return folder


@pytest.fixture
def case(finished, tmp_path):
    from tests.faults.harness import copied

    return copied(finished, tmp_path / "case")
