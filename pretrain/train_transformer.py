"""Train the embedded transformer and its text encoder together on tokenized pictures."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from arbooth.model.autoencoder import Autoencoder, to_uint8
from arbooth.model.quantizer import Quantizer, SelfCorrection
from arbooth.model.sampling import Sampling, sample
from arbooth.model.text import TextEncoder
from arbooth.model.transformer import Text, Transformer, TransformerConfig
from pretrain import checkpoint
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
    "a guitar in the kitchen",
)


@torch.no_grad()
def encode_pictures(net: Autoencoder, pictures: np.ndarray, batch: int = 256) -> Tensor:
    """Raw features of every picture, float16 [N,D,H,W]: the sign decides, so half precision will do."""
    parts = [net.encode(to_pixels(np.array(pictures[i : i + batch]))).half() for i in range(0, len(pictures), batch)]
    return torch.cat(parts)


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


def scale_weights(quantizer: Quantizer) -> Tensor:
    """Weight of every token: scales count with the square root of their size, mean 1. [L]"""
    sizes = torch.tensor([end - start for start, end in quantizer.schedule.spans])
    weights = (sizes.float() ** -0.5).repeat_interleave(sizes)
    return weights / weights.mean()


def train(
    features: Tensor,
    views: list[View],
    quantizer: Quantizer,
    autoencoder: Autoencoder,
    config: TransformerConfig,
    folder: Path,
    *,
    text_layers: int,
    steps: int,
    decay: int,
    batch: int,
    rate: float,
    correction: SelfCorrection,
    seed: int,
    save_every: int = 250,
) -> None:
    """Train or go on training; the last `decay` steps bring the rate to zero, so `steps` may grow on resume.

    `folder/transformer.pt` holds everything to resume, and the running average that is shipped.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    encoder = build_encoder(tokenizer, config.text_width, text_layers)
    net = Transformer(config)
    initialize(net, generator)
    both = nn.ModuleDict({"transformer": net, "text": encoder})
    wide = [p for p in both.parameters() if p.ndim >= 2]
    narrow = [p for p in both.parameters() if p.ndim < 2]
    groups = [{"params": wide, "weight_decay": 0.02}, {"params": narrow, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    average = {k: v.detach().clone() for k, v in both.state_dict().items()}
    first, state = 0, checkpoint.load(folder / "transformer.pt")
    if state:
        both.load_state_dict(state["net"]), optimizer.load_state_dict(state["optimizer"])
        average, first = state["average"], state["step"]
    weights = scale_weights(quantizer)
    started, running = time.time(), None
    for step in range(first, steps):
        rng = np.random.default_rng([seed, step])
        flips = torch.Generator().manual_seed(seed * 1_000_003 + step)
        chosen = rng.integers(0, len(views), batch)
        tokens = quantizer.encode(features[chosen].float(), correction=correction, generator=flips)
        text = _text(rng, [views[i] for i in chosen], tokenizer, encoder, net)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 300, max(0.02, (steps - step) / decay))
        logits = net(text, tokens.inputs, quantizer.schedule)
        margin = logits[..., 1] - logits[..., 0]
        per_bit = F.binary_cross_entropy_with_logits(margin, tokens.bits.float(), reduction="none")
        loss = (per_bit.mean(-1) * weights).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            pace = 1 - min(0.995, (step + 1) / (step + 10))
            for name, value in both.state_dict().items():
                average[name].lerp_(value, pace)
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        if (step + 1) % save_every == 0 or step + 1 == steps:
            checkpoint.save(
                folder / "transformer.pt",
                net=both.state_dict(),
                optimizer=optimizer.state_dict(),
                average=average,
                step=step + 1,
            )
            speed = (step + 1 - first) * batch / (time.time() - started)
            print(
                f"step {step + 1}/{steps} samples {(step + 1) * batch} loss {running:.4f} {speed:.1f} samples/s",
                flush=True,
            )
            current = {k: v.clone() for k, v in both.state_dict().items()}
            both.load_state_dict(average)
            paint(both, tokenizer, quantizer, autoencoder, folder / "transformer.png")
            both.load_state_dict(current)
            encoder.train().requires_grad_(True)


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
    text = Text(encoder(input_ids=padded, attention_mask=mask).last_hidden_state, lengths)
    dropped = torch.from_numpy(rng.random(len(views)) < 0.1)[:, None, None]
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
        drawn = sample(both["transformer"], quantizer, Text.stack(prompts), Sampling(3.0, 0.7), generators)
        columns.append(np.concatenate(list(to_uint8(autoencoder.decode(drawn.codes)).numpy()), 1))
    Image.fromarray(np.concatenate(columns)).save(sheet)
