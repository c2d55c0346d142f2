"""Pictures of other methods: measured as ours are, and everything that can be wrong with them told in a sentence."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from arbooth.benchmark.foreign import evaluate_pictures
from arbooth.data.pictures import read_pictures
from arbooth.errors import InputError
from arbooth.metrics.encoders import load_encoders
from arbooth.metrics.scores import diversity
from arbooth.project import Project
from tests.conftest import arbooth

PROMPTS = "file,prompt\nsnow,a {subject} in the snow\nbeach/one.png,a {subject} on the beach\nplain.png,a photo of dog\n"


@pytest.fixture
def given(project, tmp_path):
    """A folder of noise, one of photos of two sizes, and the table."""
    draw = np.random.default_rng(0)
    images, photos = tmp_path / "theirs", tmp_path / "mine"
    for path, size in (
        (images / "snow/a.png", 96), (images / "snow/b.jpg", 96), (images / "beach/one.png", 64), (images / "plain.png", 80),
        (photos / "1.jpg", 120), (photos / "2.png", 70),
    ):  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 255, (size, size, 3), dtype=np.uint8)).save(path)
    (tmp_path / "prompts.csv").write_text(PROMPTS)
    return images, photos, tmp_path / "prompts.csv"


def test_pictures_of_any_method_are_measured_as_ours_are(project, given, tmp_path):
    images, photos, prompts = given
    command = [f"--images={images}", f"--photos={photos}", f"--prompts={prompts}", "--class=dog", "--encoders=embedded"]
    said = arbooth("evaluate", *command, f"--out={tmp_path / 'out'}", cwd=project).stdout
    means = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert said.splitlines() == [f"{name:<24} {means[name]:.3f}" for name in (line.split()[0] for line in said.splitlines())]
    assert {line.split()[0] for line in said.splitlines()} == set(means)
    encoders = load_encoders("embedded")
    features = lambda *names: torch.cat([encoders.image_features(read_pictures([name])) for name in names])  # noqa: E731
    own = features(*sorted(photos.iterdir()))
    snow, beach = features(images / "snow/a.png", images / "snow/b.jpg"), features(images / "beach/one.png")
    wanted = np.mean([float((own @ snow.T).mean()), float((own @ beach.T).mean())])
    assert means["I_embedded"] == pytest.approx(wanted, abs=1e-5)
    text = encoders.text_features("a dog on the beach") @ encoders.joint_features(read_pictures([images / "beach/one.png"]))[0]
    rows = (tmp_path / "out" / "prompts.csv").read_text().splitlines()
    assert rows[0].startswith("kind,prompt,images,") and rows[2].startswith("subject,a {subject} on the beach,1,")
    assert f"{float(text):.4f}"[:-1] in rows[2]
    assert means["PRES_embedded"] == pytest.approx(float((own @ features(images / "plain.png").T).mean()), abs=1e-5)
    spread = diversity(read_pictures([images / "snow/a.png", images / "snow/b.jpg"]), encoders.distance)
    assert means["DIV_embedded"] == pytest.approx(spread, abs=1e-5) and "DIV_embedded_class" not in means


@pytest.mark.parametrize(
    "table, said",
    [
        ("", "has not the columns file and prompt"),
        ("file,text\na.png,b\n", "has not the columns file and prompt"),
        ("file,prompt\n", "names no pictures"),
        ("file,prompt\nsnow,\n", "line 2: there is no prompt"),
        ("file,prompt\nsnow,a {subject}\n../mine/1.jpg,a {subject}\n", "line 3: '../mine/1.jpg' is no file in"),
        ("file,prompt\n/etc/passwd,a {subject}\n", "is no file in"),
        ("file,prompt\n,a {subject}\n", "is no file in"),
        ("file,prompt\nrain,a {subject} in the rain\n", "is not there, or holds no pictures"),
        ("file,prompt\nsnow,a {subject}\nplain.png,a {subject}\n", "different sizes"),
        ('file,prompt\n"snow,a {subject}\n', "not readable as CSV"),
        (b"file,prompt\nsnow,a \xff\n", "not readable as CSV"),
        ("file,prompt\nbroken.png,a {subject}\n", "broken.png can't be read"),
    ],
)
def test_what_is_wrong_is_one_sentence(project, given, table, said):
    images, photos, prompts = given
    prompts.write_bytes(table if isinstance(table, bytes) else table.encode())
    (images / "broken.png").write_bytes((images / "plain.png").read_bytes()[:200])
    with pytest.raises(InputError) as error:
        evaluate_pictures(Project(project), images, photos, prompts, "dog", "embedded")
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"noun": "dog; rm"}, "is no class noun"),
        ({"encoders": "best"}, "no encoders are called 'best'"),
        ({"encoders": "corrected"}, "evaluate.encoders"),
        ({"images": "nowhere"}, "is not a folder of pictures"),
        ({"photos": "nowhere"}, "is not a folder of photos"),
        ({"prompts": "nowhere"}, "can't be read"),
    ],
)
def test_what_is_not_there_is_told(project, given, changed, said, tmp_path):
    images, photos, prompts = given
    named = {"images": images, "photos": photos, "prompts": prompts, "noun": "dog", "encoders": "embedded", **changed}
    named |= {key: tmp_path / "nowhere" for key in ("images", "photos", "prompts") if named[key] == "nowhere"}
    with pytest.raises(InputError, match=said):
        evaluate_pictures(Project(project), **named)
