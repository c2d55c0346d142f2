"""Train the embedded transformer and its text encoder together on tokenized pictures."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from arbooth.method.muon import has_bfloat16
from arbooth.model.autoencoder import Autoencoder, to_uint8
from arbooth.model.config import TransformerConfig
from arbooth.model.quantizer import Quantizer, SelfCorrection
from arbooth.model.sampling import Sampling, sample
from arbooth.model.schedule import Schedule
from arbooth.model.text import TextEncoder
from arbooth.model.transformer import Text, Transformer
from arbooth.progress import track
from arbooth.settings import torch_device
from pretrain import checkpoint
from pretrain.ledger import Ledger
from pretrain.optimize import optimizers, run
from pretrain.train_tokenizer import to_pixels
from pretrain.words import build_encoder, build_tokenizer, drop_words
from pretrain.world import View, caption

SHOWN = (
    "a photo of cat in the snow",
    "a photo of a purple cat on the grass",
    "a teapot on a red rug",
    "a photo of a dog on the beach",
    "a robot wearing a crown in space",
    "a photo of an owl in the forest",
    "a yellow car in the city",
    "a photo of teddy bear on a wooden table",
    "a penguin wearing sunglasses in the desert",
    "a photo of an alarm clock at night",
    "a green elephant underwater",
    "a photo of my teapot in the kitchen",
)


@torch.no_grad()
def encode_pictures(net: Autoencoder, pictures: np.ndarray, cache: Path, key: str) -> Tensor:
    """Raw features of pictures, float16 [N,D,H,W]: the sign decides, so half precision will do.

    They are kept in the file `cache`, and made anew when `key` (of the tokenizer and the pictures) differs.
    """
    kept = checkpoint.load(cache)
    if kept and kept["key"] == key:
        return kept["features"]
    # A few at a time, channels last: convolutions of large pictures stay in a CPU's caches.
    device = torch_device()
    parts = np.array_split(pictures, max(1, len(pictures) // (16 if device.type == "cpu" else 512)))
    net.to(device, memory_format=torch.channels_last)
    made = []
    for part in track(parts, "encoding", len(parts)):
        pixels = to_pixels(part, device).contiguous(memory_format=torch.channels_last)
        made.append(net.encode(pixels).half().contiguous().cpu())
    checkpoint.save(cache, key=key, features=torch.cat(made))
    return torch.cat(made)


def initialize(net: Transformer, generator: torch.Generator) -> None:
    """Normal weights of 0.02, smaller on the residual branches; gates open, heads silent."""
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear):
            std = 0.02 / math.sqrt(2 * net.config.depth) if name.endswith(("output", "contract")) else 0.02
            nn.init.normal_(module.weight, std=std, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for parameter in (net.no_text, net.start, net.level.weight, net.text_pooling.query):
        nn.init.normal_(parameter, std=0.1, generator=generator)
    for module in (net.modulation, net.head_modulation, net.head):
        nn.init.zeros_(module.weight)
    for block in net.blocks:
        with torch.no_grad():
            block.modulation[..., :2, :] = 1.0


def even_weights(schedule: Schedule) -> Tensor:
    """Weight of every token: scales count with the square root of their size, mean 1. [L]"""
    sizes = torch.tensor([end - start for start, end in schedule.spans])
    weights = (sizes.float() ** -0.5).repeat_interleave(sizes)
    return weights / weights.mean()


def is_hidden(name: str, parameter: Tensor) -> bool:
    """The matrices between tokens and logits; tables, adaLN, the head and the text encoder are not."""
    return parameter.ndim == 2 and name.startswith(("transformer.blocks", "transformer.text_memory"))


def new_networks(config: TransformerConfig, text_layers: int, seed: int) -> nn.ModuleDict:
    """Transformer and text encoder, untrained."""
    torch.manual_seed(seed)
    both = nn.ModuleDict(
        {
            "transformer": Transformer(config),
            "text": build_encoder(build_tokenizer(), config.text_width, text_layers),
        }
    )
    initialize(both["transformer"], torch.Generator().manual_seed(seed))
    return both


def train(
    features: Tensor,
    views: list[View],
    quantizer: Quantizer,
    autoencoder: Autoencoder,
    both: nn.ModuleDict,
    folder: Path,
    *,
    steps: int,
    decay: int,
    batch: int,
    rate: float,
    show_every: int,
    ends: dict[int, float],
    correction: SelfCorrection,
    seed: int,
    ledger: Ledger | None = None,
) -> None:
    """Train or go on training; the resume file and a sheet of samples lie in `folder`.

    Args:
        features: what the tokenizer's encoder makes of every view's picture.
        ends: after how many scales a step stops -> share of the steps. The finest scales have most of the
            tokens, while what a picture shows is settled on the scales before them.
    """
    tokenizer, whole = build_tokenizer(), quantizer.schedule
    device = torch_device()
    both.to(device), autoencoder.to(device)
    net, encoder = both["transformer"], both["text"]
    features = features.to(device)
    net.compute = "bfloat16" if has_bfloat16(device) else "float32"

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng([seed, step])
        flips = torch.Generator(device).manual_seed(seed * 1_000_003 + step)
        schedule = whole.first(int(rng.choice(list(ends), p=list(ends.values()))))
        chosen = rng.integers(0, len(views), batch)
        tokens = quantizer.encode(features[chosen].float(), correction=correction, generator=flips)
        inputs, bits = tokens.inputs[:, : schedule.length - 1], tokens.bits[:, : schedule.length]
        text = _text(rng, [views[i] for i in chosen], tokenizer, encoder, net)
        with _attention_kernel(device):
            logits = net(text, inputs, schedule)
        per_bit = F.binary_cross_entropy_with_logits(logits[..., 1] - logits[..., 0], bits.float(), reduction="none")
        return (per_bit.mean(-1) * even_weights(schedule).to(device)).mean()

    def show() -> dict[str, float]:
        paint(both, tokenizer, quantizer, autoencoder, folder / "transformer.png")
        encoder.train().requires_grad_(True)
        return {}

    run(
        both,
        optimizers(both, rate, is_hidden),
        loss_at,
        folder / "transformer.pt",
        steps=steps,
        decay=decay,
        batch=batch,
        average=0.995,
        save_every=show_every,
        show=show,
        ledger=ledger,
    )


def _attention_kernel(device: torch.device):
    """Plain products on a CPU: with this few tokens its fused kernel is the slower one, far so in bfloat16."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def _text(rng, views: list[View], tokenizer, encoder, net: Transformer) -> Text:
    """Captions through the text encoder; one in ten is replaced by the learned "no text"."""
    captions = [caption(rng, view, rng.random() > 1 / 6) for view in views]
    unknown = tokenizer.unk_token_id
    ids = [drop_words(rng, row, unknown, 0.02) for row in tokenizer(captions).input_ids]
    lengths = [len(row) for row in ids]
    padded = nn.utils.rnn.pad_sequence(
        [torch.tensor(row) for row in ids], batch_first=True, padding_value=tokenizer.pad_token_id
    )
    mask = (torch.arange(padded.shape[1])[None] < torch.tensor(lengths)[:, None]).long()
    read = encoder(input_ids=padded.to(net.device), attention_mask=mask.to(net.device))
    text = Text(read.last_hidden_state, lengths)
    dropped = torch.from_numpy(rng.random(len(views)) < 0.1)[:, None, None].to(net.device)
    return Text(torch.where(dropped, net.unconditional(text).features, text.features), lengths)


@torch.no_grad()
def paint(
    both: nn.ModuleDict, tokenizer, quantizer: Quantizer, autoencoder: Autoencoder, sheet: Path, rows: int = 3
) -> None:
    """A sheet of the shown prompts, one column each, with guidance 3."""
    encoder = TextEncoder(both["text"], tokenizer)
    prompts = [encoder.encode(p).features for p in SHOWN]
    columns = []
    for row in range(rows):
        generators = [torch.Generator().manual_seed(1000 * row + i) for i in range(len(prompts))]
        drawn = sample(both["transformer"], quantizer, Text.stack(prompts), Sampling(3.0, 0.7, 0, 1.0), generators)
        columns.append(np.concatenate(list(to_uint8(autoencoder.decode(drawn.codes)).cpu().numpy()), 1))
    Image.fromarray(np.concatenate(columns)).save(sheet)
