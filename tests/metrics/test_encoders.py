import pytest
import torch

from arbooth.errors import InputError
from arbooth.metrics.encoders import LPIPS, load_encoders
from tests.small_encoders import write_small_encoders


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_small_encoders(tmp_path_factory.mktemp("encoders"))


@pytest.mark.parametrize("kind", ["published", "corrected"])
def test_features_are_normalised_and_named(folder, kind):
    encoders = load_encoders(kind, folder)
    pixels = torch.rand(2, 3, 80, 96)
    for features in (encoders.image_features(pixels), encoders.joint_features(pixels)):
        assert torch.allclose(features.norm(dim=-1), torch.ones(2), atol=1e-5)
    assert encoders.text_features("a photo of cat").norm() == pytest.approx(1, abs=1e-5)
    assert encoders.distance(pixels, pixels).abs().max() < 1e-6
    assert (encoders.distance(pixels[:1], pixels[1:]) > 0).all()
    published = kind == "published"
    assert encoders.names["image"] == ("I_dino_as_published" if published else "I_dino")
    assert encoders.literal_template == published


def test_the_published_way_squashes_and_does_not_normalise(folder):
    corrected, published = (load_encoders(kind, folder) for kind in ("corrected", "published"))
    pixels = torch.rand(1, 3, 64, 128)
    assert not torch.allclose(corrected.image_features(pixels), published.image_features(pixels), atol=1e-3)


def test_missing_checkpoints_are_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"facebook/dino-vits16.*evaluate.encoders"):
        load_encoders("corrected", tmp_path)
    with pytest.raises(InputError, match="lpips"):
        LPIPS(tmp_path / "lpips")


def test_our_own_encoders_bear_their_own_names(tmp_path):
    encoders = load_encoders("embedded")
    pixels = torch.rand(2, 3, 64, 64)
    assert torch.allclose(encoders.image_features(pixels).norm(dim=-1), torch.ones(2), atol=1e-5)
    assert encoders.text_features("a photo of cat").shape == encoders.joint_features(pixels).shape[1:]
    assert not {"dino", "clip", "lpips"} & set("_".join(encoders.names.values()).lower().split("_"))
    assert encoders.distance(pixels, pixels).abs().max() == 0
