import pytest
import torch

from arbooth.errors import InputError
from arbooth.metrics.drawings import Drawings, load_drawings

AXES = torch.eye(3)


def test_a_picture_is_the_subject_where_its_photos_are_nearest():
    drawings = Drawings(["a", "b", "c"], AXES)
    photos = torch.tensor([[0.9, 0.1, 0.0]])
    assert drawings.nearest_is_subject(torch.tensor([[0.8, 0.2, 0.0], [0.0, 1.0, 0.0]]), photos, "a") == [True, False]
    # Its own drawing must not compete with its photos; another's must.
    assert drawings.nearest_is_subject(torch.tensor([[1.0, 0.0, 0.0]]), photos, "a") == [True]
    assert drawings.nearest_is_subject(torch.tensor([[1.0, 0.0, 0.0]]), photos, "b") == [False]
    assert drawings.nearest_is_subject(torch.tensor([[1.0, 0.0, 0.0]]), photos, None) == [False]


def test_an_unknown_drawing_is_refused():
    with pytest.raises(InputError, match="no drawing 'd'"):
        Drawings(["a", "b", "c"], AXES).nearest_is_subject(AXES, AXES, "d")


def test_the_packed_table_holds_seen_and_held_out_drawings():
    drawings = load_drawings()
    assert {"noto/cat", "fluent/poodle"} <= set(drawings.names)
    assert len(set(drawings.names)) == len(drawings.names) == len(drawings.features)
    assert torch.allclose(drawings.features.norm(dim=1), torch.ones(len(drawings.names)), atol=1e-4)
