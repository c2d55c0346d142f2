import threading

import numpy as np
import pytest
import torch

from arbooth.data.adapters import Adapter, write_adapter
from arbooth.data.bases import load_base
from arbooth.errors import InputError
from arbooth.painting.painter import Painter

SAMPLING = {"guidance": 3.0, "temperature": 0.6, "top_k": 900, "top_p": 0.97}


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    """The embedded base with two subjects whose weights differ."""
    folder = tmp_path_factory.mktemp("adapters")
    painter = Painter(load_base("embedded"), SAMPLING)
    for number, subject in enumerate(("one", "two")):
        changed = {
            n: p.detach() * (0.5 + number) for n, p in painter.net.named_parameters() if ".feed_forward.contract.w" in n
        }
        token = torch.zeros(2, painter.net.config.text_width)
        write_adapter(folder / f"{subject}.safetensors", Adapter(token, changed, painter.base.hash, subject, "cat", {}))
        painter.add(folder / f"{subject}.safetensors")
    return painter


def paint(painter, subject, count=2):
    prompts = [("a photo of cat", i) for i in range(count)]
    return [p.pixels for p in painter.paint(prompts, 0, painter.sampling(), subject)]


def test_subjects_do_not_mix_when_asked_at_once(painter):
    """MLflow's server paints every request in a thread of its own."""
    alone = {subject: paint(painter, subject) for subject in (None, "one", "two")}
    assert not np.array_equal(alone["one"], alone["two"])
    together = {}
    threads = [
        threading.Thread(target=lambda s=s, k=k: together.update({(s, k): paint(painter, s)}))
        for k in range(2)
        for s in alone
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(together) == 6
    for (subject, _), pictures in together.items():
        assert np.array_equal(pictures, alone[subject]), subject


def test_prompt_guidance_moves_the_pictures_of_a_subject_alone(painter):
    asked = [("a <S*> cat in the snow", 0), ("a photo of cat", 0)]
    moved = painter.sampling(prompt_guidance=3.0)
    before, after = (painter.paint(asked, 0, how, "one") for how in (painter.sampling(), moved))
    assert not np.array_equal(before[0].pixels, after[0].pixels)
    assert np.array_equal(before[1].pixels, after[1].pixels)
    assert after[0].record["sampling"]["prompt_guidance"] == 3.0
    plain = [painter.paint(asked[1:], 0, how)[0].pixels for how in (painter.sampling(), moved)]
    assert np.array_equal(*plain)


def test_a_picture_does_not_depend_on_how_many_are_painted(painter):
    few, many = paint(painter, "one", 2), paint(painter, "one", 3)
    assert np.array_equal(few, many[:2])


def test_bad_requests_are_one_sentence(painter):
    with pytest.raises(InputError, match="no adapter of 'three'"):
        painter.paint([("a cat", 0)], 0, painter.sampling(), "three")
    with pytest.raises(InputError, match="8 scales"):
        painter.paint([("a cat", 0)], 0, painter.sampling(guidance=(1.0, 2.0)))
    with pytest.raises(InputError, match="600 tokens, the text encoder reads 512"):
        painter.paint([("<S*> " + "a " * 598, 0)], 0, painter.sampling(), "one")
    with pytest.raises(InputError, match="top_p"):
        painter.sampling(top_p=2.0)
    with pytest.raises(InputError, match="magic"):
        painter.sampling(magic=1)
