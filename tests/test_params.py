import re

import pytest

from arbooth.errors import InputError
from arbooth.params import load_params
from arbooth.recipes import names, params_of
from tests.conftest import ROOT, set_params

STEPS = re.search(r"steps: \d+", (ROOT / "params.yaml").read_text())[0]  # whatever is shipped


@pytest.fixture
def file(tmp_path):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    return tmp_path / "params.yaml"


def change(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_the_shipped_file_holds():
    params = load_params(ROOT / "params.yaml")
    assert params.noun("poodle") == "dog"
    assert set(params.methods) == {"arbooth", "naive", "textual-inversion", "custom-diffusion", "dreambooth"}


def test_all_problems_are_told_at_once_each_with_its_path(file):
    change(file, STEPS, "steps: 0\n  stepz: 4")
    change(file, "top_p: 0.97", "top_p: 1.97")
    with pytest.raises(InputError) as error:
        load_params(file)
    for words in ("finetune.steps: ", "finetune.stepz: Extra inputs", "prior.top_p: "):
        assert words in str(error.value)


@pytest.mark.parametrize("steps, right", [("auto", True), ("1", True), ("0", False), ("Auto", False), ("many", False), ("-5", False), ("2.5", False), ("null", False), ("[3]", False), ("true", False)])
def test_steps_are_a_number_or_auto(file, steps, right):
    change(file, STEPS, f"steps: {steps}")
    if right:
        assert str(load_params(file).finetune.steps) == steps
    else:
        with pytest.raises(InputError, match="finetune.steps: .* is neither a number of steps"):
            load_params(file)


def test_nothing_has_a_default(file):
    change(file, "  drop_text: 0.0\n", "")
    with pytest.raises(InputError, match=r"finetune.drop_text: Field required"):
        load_params(file)


def test_references_must_exist(file):
    set_params(
        file.parent, **{"finetune.method": "magic", "subjects.poodle.class": "cat", "subjects.poodle.prompts": "none"}
    )
    with pytest.raises(InputError) as error:
        load_params(file)
    for words in ("no method 'magic'", "no class 'cat'", "no list 'none'"):
        assert words in str(error.value)


@pytest.mark.parametrize("name", ["../evil", "Poodle", "a b", "", "x" * 65])
def test_names_of_subjects_stay_in_their_folder(file, name):
    change(file, "  poodle:", f'  "{name}":')
    with pytest.raises(InputError, match="subjects"):
        load_params(file)


def test_a_subjects_own_overrides_come_before_the_command_line(file):
    set_params(file.parent, **{"subjects.poodle.overrides": {"finetune": {"steps": 7, "batch": 3}}})
    assert load_params(file).finetune.steps == load_params(ROOT / "params.yaml").finetune.steps
    assert load_params(file, "poodle").finetune.steps == 7
    last = load_params(file, "poodle", ["finetune.steps=9"])
    assert (last.finetune.steps, last.finetune.batch) == (9, 3)


@pytest.mark.parametrize("override", ["finetune.stepz=4", "nothing=1", "subjects.cat.class=dog"])
def test_overrides_of_unknown_names_are_refused(file, override):
    with pytest.raises(InputError, match=override.split("=")[0]):
        load_params(file, overrides=[override])


def test_interpolation_is_refused(file):
    change(file, "seed: 0", "seed: ${finetune.steps}")
    with pytest.raises(InputError, match="interpolates"):
        load_params(file)


@pytest.mark.parametrize("text", ["a: [1", "a: 1\na: 2", "- 1\n- 2", "just text"])
def test_broken_files_are_one_error(file, text):
    file.write_text(text)
    with pytest.raises(InputError):
        load_params(file)


def test_unknown_subject_and_missing_file(file, tmp_path):
    with pytest.raises(InputError, match="known: poodle"):
        load_params(file, "cat")
    with pytest.raises(InputError, match="no .*params.yaml here"):
        load_params(tmp_path / "nowhere" / "params.yaml")


@pytest.mark.parametrize("section", ["prior", "templates", "picture"])
def test_what_a_class_shares_can_not_differ_by_subject(file, section):
    set_params(file.parent, **{"subjects.poodle.overrides": {section: {}}})
    with pytest.raises(InputError, match=f"overrides.{section}: only finetune, generate, evaluate"):
        load_params(file)


@pytest.mark.parametrize(
    "overrides, words",
    [
        ({"finetune": {"steps": -3}}, "overrides: finetune.steps|overrides: steps"),
        ({"finetune": {"method": "nope"}}, "overrides.finetune.method: no method 'nope'"),
        ({"finetune": {"distillation": "joint"}}, "overrides.finetune.distillation: joint needs"),
        ({"finetune": 3}, "overrides.finetune: must be a table"),
        ({"generate": {"foo": 3}}, "foo"),
    ],
)
def test_a_subjects_overrides_are_checked_with_the_file(file, overrides, words):
    set_params(file.parent, **{"subjects.poodle.overrides": overrides})
    with pytest.raises(InputError, match=words):
        load_params(file)


def test_a_method_that_is_missing_is_told_where_there_is_no_subject(file):
    with pytest.raises(InputError, match="finetune.method: no method 'nope'"):
        load_params(file, text=params_of("embedded").replace("method: arbooth", "method: nope"))


@pytest.mark.parametrize(
    "override, words",
    [
        ("generate.temperature=0", "generate.temperature"),
        ("generate.temperature=[1.0,0.0]", "generate.temperature"),
        ("methods.naive.layers=[attention]", "methods.naive.layers"),
        ("finetune.betas=[0.9,1.0]", "finetune.betas"),
        ("templates.subject=a photo of {class}", "templates.subject: <S*> is missing"),
        ("templates.cut_out=a photo of {class}", "templates.cut_out: <S*> is missing"),
        ("templates.prior=a photo of <S*> {class}", "does not belong here"),
        ("compute=float16", "compute"),
    ],
)
def test_values_out_of_range_are_refused_before_anything_runs(file, override, words):
    with pytest.raises(InputError, match=words.replace("*", r"\*")):
        load_params(file, overrides=[override])


def test_joint_distillation_asks_for_pairs(file):
    with pytest.raises(InputError, match="keep_pairs"):
        load_params(file, overrides=["finetune.distillation=joint"])
    assert load_params(file, overrides=["finetune.distillation=joint", "prior.keep_pairs=true"])


def test_captions_name_the_subject(file):
    set_params(file.parent, **{"subjects.poodle.captions": {"00.jpg": "a dog", "01.jpg": "a <S*> {class} at night"}})
    with pytest.raises(InputError, match="subjects.poodle.captions.00.jpg: 'a dog' lacks {class}") as caught:
        load_params(file)
    assert "01.jpg" not in str(caught.value)


def test_crops_lie_inside_the_photo(file):
    set_params(file.parent, **{"subjects.poodle.crops": {"00.jpg": [0.5, 0, 0.2, 1]}})
    with pytest.raises(InputError, match=r"crop of 00.jpg"):
        load_params(file)


@pytest.mark.parametrize("recipe", names())
def test_a_recipe_compares_what_its_encoders_measure(recipe):
    from arbooth.metrics.encoders import load_encoders, published_names

    params = load_params("recipe", text=params_of(recipe))
    encoders, gate = params.evaluate.encoders, params.publish
    known = load_encoders("embedded").names if encoders == "embedded" else published_names(encoders == "corrected")
    assert {*gate.tolerance, *gate.minimum, *gate.maximum} <= {*known.values()}
