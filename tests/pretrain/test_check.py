import numpy as np
import pytest

from arbooth.metrics.judge import load_judge
from pretrain.check import _answers, _shares


@pytest.fixture(scope="module")
def seen():
    """Pictures, and what the judge says of each: the class and, of the first, a second thing beside it."""
    judge, rng = load_judge(), np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(4)]
    said = [{question: _answers(judge, picture)[question] for question in ("class", "scene")} for picture in pictures]
    said[0]["beside"] = _answers(judge, pictures[0])["beside"]
    return judge, said, pictures


def test_what_is_painted_as_asked_is_right(seen):
    judge, said, pictures = seen
    shares = _shares(judge, said, pictures)
    assert set(shares.values()) == {1.0} and list(shares)[-1].startswith("class: ")


def test_the_first_of_two_things_is_not_counted_among_single_ones(seen):
    judge, said, pictures = seen
    wrong = [{**said[0], "class": "another"}, *said[1:]]
    shares = _shares(judge, wrong, pictures)
    assert shares["first of two"] == 0 and shares["class"] == shares["beside"] == shares["scene"] == 1
    wrong[1] = {**wrong[1], "class": "another"}
    assert _shares(judge, wrong, pictures)["class"] == pytest.approx(2 / 3, abs=1e-4)
