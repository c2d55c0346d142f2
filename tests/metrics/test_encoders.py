import pytest
import torch

from arbooth.errors import InputError
from arbooth.metrics.encoders import LPIPS, load_encoders


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """DINO, CLIP and LPIPS checkpoints of the real layout with random weights and small sizes."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast, ViTConfig, ViTModel

    where = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    ViTModel(ViTConfig(image_size=224, patch_size=16, **small), add_pooling_layer=False).save_pretrained(
        where / "dino-vits16"
    )
    clip = CLIPConfig(
        text_config={**small, "vocab_size": 64, "max_position_embeddings": 32, "eos_token_id": 1, "bos_token_id": 2},
        vision_config={**small, "image_size": 224, "patch_size": 32},
        projection_dim=16,
    )
    CLIPModel(clip).save_pretrained(where / "clip-vit-base-patch32")
    words = {w: i for i, w in enumerate(["<unk>", "<end>", "<start>", "a", "photo", "of", "cat", "{}", "snow"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>", bos_token="<start>"
    )
    fast.save_pretrained(where / "clip-vit-base-patch32")
    (where / "lpips").mkdir()
    shapes = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
    weights = {f"features.{i}.weight": torch.randn(s) * 0.05 for i, s in shapes.items()}
    weights |= {f"features.{i}.bias": torch.zeros(s[0]) for i, s in shapes.items()}
    torch.save(weights, where / "lpips" / "alexnet.pth")
    heads = {f"lin{k}.model.1.weight": torch.rand(1, s[0], 1, 1) for k, s in enumerate(shapes.values())}
    torch.save(heads, where / "lpips" / "lpips_alex.pth")
    return where


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
