"""Encoders that score pictures: DINO, CLIP and LPIPS where the user has them, our own otherwise.

Shape suffixes: B batch, F features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arbooth.data.checkpoints import read_pretrained, read_weights
from arbooth.data.files import EMBEDDED, read_json
from arbooth.errors import InputError

DINO, CLIP = "facebook/dino-vits16", "openai/clip-vit-base-patch32"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Encoders(Protocol):
    """What evaluation asks of encoders; pictures are [B,3,H,W] in [0,1], features l2-normalised [B,F]."""

    names: dict[str, str]
    literal_template: bool

    def image_features(self, pixels: Tensor) -> Tensor: ...

    def joint_features(self, pixels: Tensor) -> Tensor: ...

    def text_features(self, text: str) -> Tensor: ...

    def distance(self, first: Tensor, second: Tensor) -> Tensor: ...


class PublishedEncoders:
    """DINO ViT-S/16, CLIP ViT-B/32 and LPIPS (AlexNet).

    Args:
        folder: holds `dino-vits16`, `clip-vit-base-patch32` and `lpips`; the first two are else taken
            from the hub's cache on this machine.
        corrected: resize, crop and normalise as the checkpoints were trained. The published evaluator
            squashes to 256x256, leaves pixels in [-1,1] and scores texts with a literal "{}".

    Raises:
        InputError: a checkpoint is not on this machine.
    """

    def __init__(self, folder: Path, corrected: bool, device: torch.device | str = "cpu") -> None:
        self.corrected, self.literal_template, self.device = corrected, not corrected, device
        self.names = published_names(corrected)
        self.dino = _local(folder / "dino-vits16", DINO, "AutoModel", ("pooler.",)).to(device).eval()
        clip_folder = folder / "clip-vit-base-patch32"
        self.clip = _local(clip_folder, CLIP, "CLIPModel").to(device).eval()
        self.tokenizer = _local(clip_folder, CLIP, "AutoTokenizer")
        self.lpips = LPIPS(folder / "lpips").to(device).eval()

    @torch.inference_mode()
    def image_features(self, pixels: Tensor) -> Tensor:
        if self.corrected:
            size = getattr(self.dino.config, "image_size", 224)
            inputs = _normalized(_covered(pixels, round(size * 256 / 224), size), IMAGENET_MEAN, IMAGENET_STD)
        else:
            inputs = _resized(pixels, 256, 256) * 2 - 1
        output = self.dino(pixel_values=inputs.to(self.device), interpolate_pos_encoding=True)
        return F.normalize(output.last_hidden_state[:, 0], dim=-1).cpu()

    @torch.inference_mode()
    def joint_features(self, pixels: Tensor) -> Tensor:
        size = self.clip.config.vision_config.image_size
        inputs = _covered(pixels, size, size) if self.corrected else _resized(pixels, size, size)
        vision = self.clip.vision_model(pixel_values=_normalized(inputs, CLIP_MEAN, CLIP_STD).to(self.device))
        return F.normalize(self.clip.visual_projection(vision.pooler_output), dim=-1).cpu()

    @torch.inference_mode()
    def text_features(self, text: str) -> Tensor:
        tokens = self.tokenizer(text, truncation=True, return_tensors="pt").to(self.device)
        output = self.clip.text_model(**tokens)
        return F.normalize(self.clip.text_projection(output.pooler_output)[0], dim=-1).cpu()

    @torch.inference_mode()
    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        return self.lpips(first.to(self.device) * 2 - 1, second.to(self.device) * 2 - 1).cpu()


def published_names(corrected: bool) -> dict[str, str]:
    """What is measured -> the metric's name."""
    suffix = "" if corrected else "_as_published"
    kinds = {"image": "I_dino", "joint": "I_clip", "text": "T_clip", "preservation": "PRES", "diversity": "DIV"}
    return {kind: name + suffix for kind, name in kinds.items()}


class LPIPS(nn.Module):
    """Learned perceptual distance over AlexNet (Zhang et al., 2018); pictures in [-1,1] -> [B].

    Reads `alexnet.pth` (the ImageNet weights, `features.*`) and `lpips_alex.pth` (`lin{k}.model.1.weight`).
    """

    _mean, _std = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)

    def __init__(self, folder: Path) -> None:
        super().__init__()
        sizes = [(3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1)]
        self.convs = nn.ModuleList(nn.Conv2d(i, o, k, s, p) for i, o, k, s, p in sizes)
        if not folder.is_dir():
            raise InputError(
                f"{folder} is not there: put alexnet.pth and lpips_alex.pth into it, or evaluate.encoders: embedded"
            )
        alexnet, heads = read_weights(folder / "alexnet.pth"), read_weights(folder / "lpips_alex.pth")
        try:
            for conv, index in zip(self.convs, (0, 3, 6, 8, 10)):
                conv.load_state_dict({k: alexnet[f"features.{index}.{k}"] for k in ("weight", "bias")})
            for k in range(len(sizes)):
                self.register_buffer(f"head{k}", heads[f"lin{k}.model.1.weight"].clone())
        except (KeyError, RuntimeError) as error:
            raise InputError(
                f"{folder} does not hold AlexNet and LPIPS weights: {str(error).splitlines()[0]}"
            ) from None

    def _maps(self, x: Tensor) -> list[Tensor]:
        maps = []
        x = _normalized(x, self._mean, self._std)
        for index, conv in enumerate(self.convs):
            x = F.relu(conv(x))
            maps.append(F.normalize(x, dim=1, eps=1e-10))
            if index < 2:
                x = F.max_pool2d(x, 3, 2)
        return maps

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        pairs = zip(self._maps(first), self._maps(second))
        return sum(
            F.conv2d((a - b).square(), getattr(self, f"head{k}")).mean((1, 2, 3)) for k, (a, b) in enumerate(pairs)
        )


def _local(folder: Path, hub: str, kind: str, unused: tuple[str, ...] = ()):
    try:
        return read_pretrained(kind, folder if folder.is_dir() else hub, unused)
    except InputError as error:
        raise InputError(f"{error}: put {hub} into {folder}, or set evaluate.encoders to embedded") from None


def _resized(pixels: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(pixels, size=(height, width), mode="bicubic", antialias=True).clamp(0, 1)


def _covered(pixels: Tensor, shorter: int, crop: int) -> Tensor:
    """Shorter side to `shorter`, then the centre `crop` square."""
    h, w = pixels.shape[-2:]
    factor = shorter / min(h, w)
    x = _resized(pixels, max(shorter, round(h * factor)), max(shorter, round(w * factor)))
    top, left = (x.shape[-2] - crop) // 2, (x.shape[-1] - crop) // 2
    return x[..., top : top + crop, left : left + crop]


def _normalized(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    shape = (1, 3, 1, 1)
    return (pixels - torch.tensor(mean, device=pixels.device).view(shape)) / torch.tensor(
        std, device=pixels.device
    ).view(shape)


def batched(encode, pictures: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Features of many pictures, some at a time: [B,3,H,W] -> [B,F]."""
    return torch.cat([encode(batch.to(device)) for batch in pictures.split(32)])


def load_encoders(kind: str, folder: Path | None = None, device: torch.device | str = "cpu") -> Encoders:
    """The encoders named by `evaluate.encoders`: embedded, published or corrected.

    Args:
        folder: of DINO, CLIP and LPIPS, which the last two need.

    Raises:
        InputError: their weights are not on this machine.
    """
    if kind != "embedded":
        return PublishedEncoders(folder or Path(), corrected=kind == "corrected", device=device)
    from arbooth.metrics.embedded import EmbeddedEncoders

    state = {k: v.float() for k, v in read_weights(EMBEDDED / "encoders.safetensors").items()}
    encoders = EmbeddedEncoders(read_json(EMBEDDED / "encoders.json")["words"])
    encoders.load_state_dict(state)
    return encoders.to(device).eval().requires_grad_(False)
