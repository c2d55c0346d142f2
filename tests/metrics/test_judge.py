import pytest
import torch

from arbooth.data.files import EMBEDDED, read_json
from arbooth.errors import InputError
from arbooth.metrics.judge import Judge, load_judge
from pretrain.train_encoders import labels


def test_the_judge_answers_every_question_for_every_picture():
    judge = Judge({"class": ["cat", "dog"], "scene": ["at night"]})
    said = judge.answers(torch.rand(3, 3, 64, 64))
    assert len(said) == 3 and all(one["class"] in ("cat", "dog") and one["scene"] == "at night" for one in said)


def test_answers_do_not_depend_on_the_batch():
    judge, pixels = load_judge(), torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    alone = [judge(pixels[i : i + 1])["class"][0] for i in range(4)]
    assert torch.allclose(torch.stack(alone), judge(pixels)["class"], atol=1e-4)


def test_the_packed_judge_tells_scenes_apart():
    white = torch.full((1, 3, 64, 64), 0.97)
    assert load_judge().answers(white)[0]["scene"] == "on a white background"
    assert read_json(EMBEDDED / "encoders.json")["labels"] == labels()


def test_a_missing_judge_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        load_judge(tmp_path)
