"""Write the small golden case: python -m tests.golden.make. Run it only where the large ones are beside the checkout, and pass."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from arbooth.method import losses
from arbooth.model import names
from arbooth.model.autoencoder import Autoencoder, to_uint8
from arbooth.model.config import AutoencoderConfig, TransformerConfig
from arbooth.model.quantizer import Quantizer, SelfCorrection
from arbooth.model.sampling import Sampling, sample
from arbooth.model.schedule import Schedule
from arbooth.model.transformer import Text, Transformer

HERE = Path(__file__).resolve().parent
MAPS, LENGTHS, GUIDANCE, TAU = [[1, 1], [2, 2], [3, 3], [4, 4]], [5, 3], [1.0, 2.0, 3.0, 3.0], 0.7


def random(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Weights that half precision holds exactly, large enough for every path to count."""
    draw = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        scale = 0.1 if parameter.ndim > 1 else 0.3
        parameter.data = (torch.randn(parameter.shape, generator=draw) * scale).half().double()
    return module


def main() -> None:
    torch.set_default_dtype(torch.float64)
    draw = torch.Generator().manual_seed(7)
    schedule = Schedule.custom(MAPS)
    config = TransformerConfig(2, 64, 2, 8, 128, chunks=2)
    net = random(Transformer(config), 1)
    autoencoder = random(Autoencoder(AutoencoderConfig(8, 24, (1, 1), 1)), 2).requires_grad_(False)
    quantizer = Quantizer(schedule, 8)
    tensors = {}
    for prefix, module, public in (
        ("transformer.", net, names.public_transformer_names(config)),
        ("vae.", autoencoder, names.public_autoencoder_names(list(autoencoder.state_dict()))),
    ):
        state = module.state_dict()
        tensors |= {prefix + theirs: state[ours].half() for theirs, ours in public.items()}
    image = (torch.rand(2, 3, 8, 8, generator=draw) * 2 - 1).float().double()
    features = autoencoder.encode(image)
    # As the large ones: bits of random features are balanced then. Rounded first: what is stored is what is quantised.
    features = (features - features.mean((0, 2, 3), keepdim=True)).float().double()
    tokens = quantizer.encode(features)
    flips = quantizer.draw_flips(2, SelfCorrection(0.3, 4), draw)
    flipped = quantizer.encode(features, flips_BLP=flips)
    prompts = [torch.randn(length, 128, generator=draw).float().double() for length in LENGTHS]
    text, inputs = Text.stack(prompts), tokens.inputs.float().double()
    logits = net(text, inputs, schedule)
    token_loss = losses.cross_entropy(logits, tokens.bits)
    loss = losses.weighted_loss(token_loss, losses.token_weights(schedule, 2, 1.0, 0.5).double())
    loss.backward()
    public = names.public_transformer_names(config)
    norms = {
        theirs: 0.0 if (grad := net.get_parameter(ours).grad) is None else float(grad.norm())
        for theirs, ours in public.items()
    }
    drawn = sample(net, quantizer, text, Sampling(tuple(GUIDANCE), TAU, 1, 1.0))
    decoded = autoencoder.decode(drawn.codes)
    deltas = {
        name: (torch.randn(net.get_parameter(public[name]).shape, generator=draw) * 0.02).half()
        for name in public
        if ".ca.proj" in name
    }
    with torch.no_grad():
        for name, delta in deltas.items():
            net.get_parameter(public[name]).add_(delta)
        student = net(text, inputs, schedule)
    divergence = losses.bernoulli_distillation(student, logits[..., 1] - logits[..., 0]).mean()
    tensors |= {
        "image": image, "raw_features": features, "bits": tokens.bits.to(torch.uint8), "teacher_forcing_inputs": inputs,
        "flip_mask": flips.to(torch.uint8), "flipped_inputs": flipped.inputs,
        "flipped_target_bits": flipped.bits.to(torch.uint8), "text_features": torch.cat(prompts),
        "logits": logits.flatten(2), "ce_per_token": token_loss, "weighted_loss": loss[None],
        **{f"student_delta.{name}": delta for name, delta in deltas.items()},
        "student_logits": student.flatten(2), "kl_per_bit_mean": divergence[None],
        "greedy_bits": drawn.bits.to(torch.uint8), "greedy_codes": drawn.codes, "greedy_decoded": decoded,
        "greedy_image_bgr_u8": to_uint8(decoded).flip(-1).contiguous(),
    }  # fmt: skip
    kept = {
        k: (v.detach().float() if v.dtype == torch.float64 else v.detach()).contiguous() for k, v in tensors.items()
    }
    save_file(kept, HERE / "small.safetensors")
    sizes = {
        "vae": {"bits": 8, "base_channels": 24, "channel_multipliers": [1, 1], "res_blocks": 1},
        "transformer": {
            "depth": 2, "dim": 64, "heads": 2, "text_dim": 128, "block_chunks": 2, "mlp_ratio": 4.0,
            "spatial_patchify": False, "level_embedding_only_first_block": True,
        },
        "schedule": MAPS, "rope_reference": [list(schedule.reference)], "text_lengths": LENGTHS,
        "cfg": GUIDANCE, "tau": TAU, "coarse_scales": 2, "weights": {"coarse": 1.0, "fine": 0.5}, "grad_norms": norms,
    }  # fmt: skip
    (HERE / "small.json").write_text(json.dumps(sizes, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
