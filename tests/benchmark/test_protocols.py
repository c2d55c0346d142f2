"""The papers' benchmarks from somebody's copy of them: read, laid out, run and set beside other methods."""

import json
import shutil

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from arbooth.benchmark.protocols import PROTOCOLS, PUBLISHED, EncoderScorer, lay_out
from arbooth.benchmark.run import defaults, merged, run_benchmark
from arbooth.errors import InputError
from arbooth.params import load_params
from arbooth.project import Project
from tests.conftest import arbooth
from tests.small_encoders import write_small_encoders

PUBLISHED_LIST = """Classes

subject_name,class
bear_plushie,stuffed animal
dog6,dog
can,can

Prompts

Object Prompts

prompt_list = [
'a {0} {1} in a box'.format(unique_token, class_token),
'a glass {0} {1}'.format(unique_token, class_token)
]

Live Subject Prompts

prompt_list = [
'a {0} {1} in a coat'.format(unique_token, class_token)
]
"""


def photos(folder, *names):
    draw = np.random.default_rng(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(6):
            pixels = draw.integers(0, 255, (90, 100, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02}.jpg")
        (folder / name / "notes.txt").write_text("no photo")


@pytest.fixture
def vico(tmp_path):
    photos(tmp_path / "vico", "fat_dog", "red_teapot", "something_else")
    (tmp_path / "vico" / "prompts_live.txt").write_text("a {} in a coat\n\n")
    (tmp_path / "vico" / "prompts_nonlive.txt").write_text("a {} in a box\na glass {}\n")
    return tmp_path / "vico"


def test_vico_is_laid_out_as_a_benchmark(project, vico):
    assert lay_out(Project(project), "vico", vico, "corrected") == f"vico: 2 of 16 subjects are in {vico}"
    source = project / "benchmarks" / "vico"
    params = load_params(source / "params.yaml", text=OmegaConf.to_yaml(merged(Project(project), source, None)))
    assert list(params.subjects) == ["fat_dog", "red_teapot"] and params.noun("red_teapot") == "teapot"
    assert params.prompt_sets["live"] == ("a {subject} in a coat",)
    assert params.subjects["red_teapot"].prompts == "nonlive"
    assert params.prompt_sets["nonlive"] == ("a {subject} in a box", "a glass {subject}")
    assert (params.generate.images_per_prompt, params.evaluate.encoders) == (8, "corrected")
    assert sorted(path.name for path in (source / "photos" / "fat_dog").iterdir()) == [f"{n:02}.jpg" for n in range(6)]
    params, rows = defaults(Project(project), source, None), EncoderScorer(source).anchors
    assert rows(params)["ELITE (published)"]["I_dino_as_published"]["mean"] == 0.584
    (source / PUBLISHED).unlink()  # as in a benchmark that somebody made by hand
    assert rows(params) == {}
    (source / "studies.yaml").write_text("mine: {arbooth: {}}\n")
    lay_out(Project(project), "vico", vico, "published")
    assert (source / "studies.yaml").read_text() == "mine: {arbooth: {}}\n"


def test_dreambench_is_read_as_its_authors_publish_it(project, tmp_path):
    photos(tmp_path / "dreambooth", "bear_plushie", "dog6")
    (tmp_path / "dreambooth" / "prompts_and_classes.txt").write_text(PUBLISHED_LIST)
    assert "2 of 3 subjects" in lay_out(Project(project), "dreambench", tmp_path / "dreambooth", "corrected")
    source = project / "benchmarks" / "dreambench"
    params = load_params(source / "params.yaml", text=OmegaConf.to_yaml(merged(Project(project), source, None)))
    assert params.noun("bear_plushie") == "stuffed animal" and params.subjects["dog6"].prompts == "live"
    assert params.prompt_sets == {"nonlive": ("a {subject} in a box", "a glass {subject}"), "live": ("a {subject} in a coat",)}
    assert params.generate.images_per_prompt == 4


@pytest.mark.parametrize(
    "name, spoilt, said",
    [
        ("mini", None, "'mini' takes no photos: those that do are vico and dreambench"),
        ("dreambench", None, "prompts_and_classes.txt can't be read"),
        ("vico", ("prompts_live.txt", b"a dog in a coat\n"), "prompts_live.txt: 'a dog in a coat' does not name the subject"),
        ("vico", ("prompts_live.txt", b"\n"), "prompts_live.txt: 'no line' does not name the subject once"),
        ("vico", ("prompts_live.txt", b"\xff\xfe\x00"), "prompts_live.txt is no text in UTF-8"),
        ("vico", ("prompts_live.txt", b"a" * 2_000_000), "is larger than"),
        ("dreambench", ("prompts_and_classes.txt", b"subject_name,class\ncan,can\n"), "or not its two lists of prompts"),
    ],
)
def test_what_is_wrong_with_a_copy_is_told(project, vico, name, spoilt, said):
    if spoilt:
        (vico / spoilt[0]).write_bytes(spoilt[1])
    with pytest.raises(InputError, match=said):
        lay_out(Project(project), name, vico, "corrected")
    assert not (project / "benchmarks").exists()


def test_a_protocol_without_photos_says_what_it_needs(project, tmp_path):
    for name in PROTOCOLS:
        with pytest.raises(InputError, match=f"{name} needs its photos, which you have: name their folder with --photos"):
            run_benchmark(Project(project), project / "benchmarks" / name, "default")
    with pytest.raises(InputError, match="is not a folder of vico's photos"):
        lay_out(Project(project), "vico", tmp_path / "nowhere", "corrected")
    photos(tmp_path / "odd", "something_else")
    (tmp_path / "odd" / "prompts_live.txt").write_text("a {}")
    (tmp_path / "odd" / "prompts_nonlive.txt").write_text("a {}")
    with pytest.raises(InputError, match="holds none of vico's subjects: black_cat"):
        lay_out(Project(project), "vico", tmp_path / "odd", "corrected")
    with pytest.raises(InputError, match="no encoders are called 'clip'"):
        lay_out(Project(project), "vico", tmp_path / "odd", "clip")


@pytest.mark.heavy
def test_vico_runs_beside_other_methods_and_published_numbers(project, vico):
    """With the official encoders' layouts, small; and pictures of a method of somebody else's."""
    write_small_encoders(project / ".arbooth" / "encoders")
    source = project / "benchmarks" / "vico"
    source.mkdir(parents=True)
    few = {"common": {"generate.images_per_prompt": 2, "generate.class_images": 2}, "arbooth": {}}
    OmegaConf.save({"default": few}, source / "studies.yaml")
    theirs = project / "theirs"
    photos(theirs, "box")
    (project / "asked.csv").write_text("file,prompt\nbox,a {subject} in a box\n")
    arbooth("evaluate", f"--images={theirs}", f"--photos={vico / 'red_teapot'}", "--prompts=asked.csv", "--class=teapot",
            f"--out={source / 'others' / 'elite' / 'red_teapot'}", cwd=project)  # fmt: skip
    said = arbooth("benchmark", "vico", f"--photos={vico}", cwd=project).stdout
    rows = {row["setting"]: row["metrics"] for row in json.loads((source / "results" / "default.json").read_text())}
    assert list(rows)[:2] == ["arbooth", "elite"] and "ARBooth, Infinity-2B (published)" in rows
    own = json.loads((source / "runs" / "default" / "arbooth" / "artifacts" / "evaluate" / "fat_dog.json").read_text())
    assert rows["arbooth"]["I_dino"]["subjects"]["fat_dog"] == pytest.approx(own["I_dino"], abs=1e-4)
    assert set(rows["arbooth"]["I_dino"]["subjects"]) == {"fat_dog", "red_teapot"}
    assert {"I_dino", "I_clip", "T_clip", "PRES", "DIV", "seconds_per_image"} <= set(rows["arbooth"])
    assert list(rows["elite"]["I_dino"]["subjects"]) == ["red_teapot"]
    table = [line for line in said.splitlines() if line.startswith("| ARBooth, Infinity-2B (published)")]
    assert "0.705" in table[0] and "(0.705" not in table[0]
    assert "vico: 2 of 16 subjects are in" in said
    with Image.open(next((source / "runs" / "default" / "arbooth" / "artifacts" / "sheets").glob("*.png"))) as sheet:
        assert sheet.width > 256


def test_photos_that_lie_where_links_are_made_stay(project, vico):
    own = Project(project).benchmarks / "vico"
    shutil.copytree(vico, own / "photos")
    kept = {path: path.read_bytes() for path in (own / "photos").rglob("*") if path.is_file()}
    for given in (own / "photos", vico):
        with pytest.raises(InputError, match="keep the photos in a folder of their own"):
            lay_out(Project(project), "vico", given, "corrected")
    assert kept == {path: path.read_bytes() for path in (own / "photos").rglob("*") if path.is_file()}
    shutil.rmtree(own)
    for _ in range(2):  # links are made anew
        lay_out(Project(project), "vico", vico, "corrected")
