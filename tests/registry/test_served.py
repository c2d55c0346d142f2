"""The registry's model, in Python and over HTTP on loopback."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from arbooth.errors import InputError
from arbooth.stages import run
from tests.conftest import arbooth, copy_project, enter
from tests.services import free_port, wait_until_up

pytestmark = pytest.mark.heavy
ASKED = {"prompt": "a <S*> dog in the snow", "n": 2, "seed": 7}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    own = {"subjects.poodle.overrides": {"generate": {"guidance": 2.5}}}
    folder = copy_project(tmp_path_factory.mktemp("served") / "project", **own)
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(folder, monkeypatch)
        for stage, key in (("preprocess", "poodle"), ("tokenize", "poodle"), ("prior", "dog"), ("finetune", "poodle"),
                           ("generate", "poodle"), ("evaluate", "poodle"), ("summarize", None), ("publish", None)):  # fmt: skip
            run(stage, key)
    return folder


@pytest.fixture(scope="module")
def expected(published):
    """The pictures as `arbooth generate` paints them from the local adapter."""
    arbooth("generate", "poodle", ASKED["prompt"], "-n", "2", "--seed", "7", "--out", "local", cwd=published)
    return painted(published / "local")


def painted(folder):
    """The pictures of a folder, without their sheet."""
    return [np.asarray(Image.open(path)) for path in sorted(folder.glob("*-[0-9].png"))]


def pixels(answer):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["png"]))))


def test_the_registry_paints_what_the_local_adapter_does(published, expected):
    target = "models:/arbooth-poodle@champion"
    arbooth("generate", target, ASKED["prompt"], "-n", "2", "--seed", "7", "--out", "remote", cwd=published)
    assert len(expected) == 2 and np.array_equal(painted(published / "remote"), expected)


def test_pyfunc_predicts_and_refuses_unknown_names(published, expected, monkeypatch):
    import mlflow

    enter(published, monkeypatch)
    mlflow.set_tracking_uri(f"sqlite:///{published}/.arbooth/mlflow.db")
    model = mlflow.pyfunc.load_model("models:/arbooth-poodle@champion")
    answers = model.predict([ASKED, {**ASKED, "n": 1}])
    assert [a["index"] for a in answers] == [0, 1, 0]
    assert np.array_equal(pixels(answers[0]), expected[0]) and np.array_equal(pixels(answers[1]), expected[1])
    assert answers[2]["png"] == answers[0]["png"]
    for bad in ({"prompt": "a dog", "steps": 3}, {"n": 1}, {"prompt": "a dog", "n": 0}):
        with pytest.raises(mlflow.MlflowException):
            model.predict([bad])
    for odd in ({"top_p": 3.0}, {"guidance": float("nan")}, {"guidance": [1.0, 2.0]}, {"prompt": "a <S *> dog"}):
        with pytest.raises(mlflow.MlflowException):
            model.predict([{**ASKED, **odd}])


def test_requests_are_bounded_and_refused_without_their_own_words():
    import pandas as pd

    from arbooth.registry.served import MOST, read_requests

    frame = pd.DataFrame([{"prompt": "a dog", "n": 2, "top_k": 1}, {"prompt": "a cat"}])
    assert [(r.n, r.top_k, r.guidance) for r in read_requests(frame)] == [(2, 1, None), (1, None, None)]
    assert read_requests([{"prompt": "a dog", "seed": None}])[0].seed == 0
    for bad in (
        [{"prompt": "x" * 10**7}],
        [{}] * 10**5,
        [],
        ["a dog"],
        [{"prompt": "a", "n": MOST}] * 2,
        [{"prompt": 3}],
    ):
        with pytest.raises(InputError) as error:
            read_requests(bad)
        assert len(str(error.value)) < 200 and "\n" not in str(error.value)


def test_one_picture_through_four_doors_is_the_same_bytes(published, monkeypatch):
    """The stage, the command, the registered model and Python; judged is served, a subject's overrides included."""
    import mlflow

    from arbooth.data.pictures import png
    from arbooth.project import Project
    from arbooth.registry.load import painter_of

    folder = published
    rows = json.loads((folder / "artifacts" / "generate" / "poodle" / "index.json").read_text())
    row = next(r for r in rows if r["prompt"] == "a <S*> dog at night" and r["index"] == 0)
    stage = (folder / "artifacts" / "generate" / "poodle" / row["file"]).read_bytes()
    sampling = json.loads(Image.open(io.BytesIO(stage)).info["arbooth"])["sampling"]
    assert (sampling["guidance"], sampling["temperature"]) == (2.5, 0.5)

    arbooth("generate", "poodle", row["prompt"], "-n", "1", "--out", "four", cwd=folder)
    (written,) = (folder / "four").glob("*-0.png")
    command = written.read_bytes()

    painter, subject = painter_of(Project(folder), "poodle")
    (painting,) = painter.paint([(row["prompt"], 0)], 0, painter.sampling(), subject)

    enter(folder, monkeypatch)
    mlflow.set_tracking_uri(f"sqlite:///{folder}/.arbooth/mlflow.db")
    model = mlflow.pyfunc.load_model("models:/arbooth-poodle@champion")
    (answer,) = model.predict([{"prompt": row["prompt"]}])
    assert stage == command == png(painting.pixels, painting.record) == base64.b64decode(answer["png"])

    (other,) = model.predict([{"prompt": row["prompt"], "prompt_guidance": 0.0}])
    arbooth("generate", "poodle", row["prompt"], "-n", "1", "--prompt-guidance", "0", "--out", "off", cwd=folder)
    (written,) = (folder / "off").glob("*-0.png")
    assert base64.b64decode(other["png"]) == written.read_bytes()
    assert not np.array_equal(pixels(other), pixels(answer))


def test_http_serving(published, expected):
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/arbooth-poodle@champion",
               "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]  # fmt: skip
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{published}/.arbooth/mlflow.db"}
    process = subprocess.Popen(command, cwd=published, env=environment, start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        wait_until_up(f"http://127.0.0.1:{port}/ping", process)
        answers = ask(port, {"inputs": [ASKED]})
        answers = answers.get("predictions", answers)
        assert np.array_equal(pixels(answers[0]), expected[0])
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(port, {"inputs": [{"prompt": "a dog", "steps": 3}]})
        assert refused.value.code == 400
        body = refused.value.read().decode()
        assert "request 0: steps" in body and "Traceback" not in body and len(body) < 500
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


ELSEWHERE = """
import json, sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in type(finder).__module__ + str(finder)]
sys.path = [place for place in sys.path if not place.endswith(("/main", "/ft", "site-packages/arbooth"))]
try:
    import arbooth
except ModuleNotFoundError:
    import mlflow
    model = mlflow.pyfunc.load_model(sys.argv[1])
    import arbooth
    print(json.dumps([arbooth.__file__, model.predict(json.loads(sys.argv[2]))]))
"""


def test_an_environment_without_the_package_paints_by_the_registered_code(published, expected, tmp_path):
    """What MLflow brings along is enough, where the base's files are."""
    from arbooth.data.files import EMBEDDED
    from arbooth.registry.ledger import fetch

    folder = fetch("models:/arbooth-poodle@champion", f"sqlite:///{published}/.arbooth/mlflow.db")
    (tmp_path / "embedded").symlink_to(EMBEDDED)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "ARBOOTH_PROJECT")}
    done = subprocess.run([sys.executable, "-c", ELSEWHERE, str(folder), json.dumps([ASKED])], cwd=tmp_path, text=True,
                          env={**environment, "ARBOOTH_WEIGHTS": str(tmp_path)}, capture_output=True)  # fmt: skip
    if not done.stdout:
        pytest.skip("the package is installed for good here: it can't be hidden")
    where, answers = json.loads(done.stdout)
    assert where.startswith(str(folder)) and len(answers) == 2
    assert np.array_equal([pixels(answer) for answer in answers], expected)


def ask(port, body):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read())
