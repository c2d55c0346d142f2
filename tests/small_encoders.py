"""Checkpoints of the encoders that papers use, small and random."""

from pathlib import Path

import torch


def write_small_encoders(where: Path) -> Path:
    """DINO, CLIP and LPIPS checkpoints of the real layout with random weights and small sizes."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast, ViTConfig, ViTModel

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
