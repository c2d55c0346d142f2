"""Photographs for the tokenizer: bounded crops that repeat."""

import numpy as np
import pytest
from PIL import Image

from arbooth.errors import InputError
from pretrain.render import crop_photos, load_photos


def test_crops_repeat_and_come_from_every_photograph(tmp_path):
    for name, colour in (("a.jpg", (200, 0, 0)), ("b.png", (0, 0, 200))):
        Image.new("RGB", (300, 200), colour).save(tmp_path / name)
    crop_photos(tmp_path, tmp_path, 6, 32, 0)
    first = np.array(load_photos(tmp_path))
    assert first.shape == (6, 32, 32, 3)
    assert (first[0::2, ..., 0] > 150).all() and (first[1::2, ..., 2] > 150).all()
    crop_photos(tmp_path, tmp_path, 6, 32, 0)
    assert np.array_equal(first, load_photos(tmp_path))


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="holds no photographs"):
        crop_photos(tmp_path, tmp_path, 6, 32, 0)
