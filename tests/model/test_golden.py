"""Every tensor of the golden files in float64 and float32: a small one in the repository, large ones of an independent
implementation where they lie beside the checkout."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from arbooth.method import losses
from arbooth.model import names
from arbooth.model.autoencoder import Autoencoder, to_uint8
from arbooth.model.config import AutoencoderConfig, TransformerConfig
from arbooth.model.quantizer import Quantizer
from arbooth.model.sampling import Sampling, sample
from arbooth.model.schedule import Schedule
from arbooth.model.transformer import Text, Transformer
from tests.conftest import ROOT, SHARED

SMALL, LARGE = ROOT / "tests" / "golden", SHARED / "golden"
away = pytest.mark.skipif(not LARGE.is_dir(), reason="the large golden files are not beside this checkout")
# Relative norm of the difference: bits decide exactly, floats to rounding.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}


def distance(own: Tensor, golden: Tensor) -> float:
    return float((own.double() - golden.double()).norm() / golden.double().norm())


@pytest.fixture(
    scope="module",
    params=[
        SMALL / "small",
        pytest.param(LARGE / "square", marks=away),
        pytest.param(LARGE / "wide_patchify", marks=away),
    ],
    ids=lambda path: path.name,
)
def files(request):
    from safetensors.torch import load_file

    sizes = json.loads(request.param.with_suffix(".json").read_text())
    return sizes, load_file(request.param.with_suffix(".safetensors"))


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def case(files, request):
    sizes, tensors = files
    vae, own, dtype = sizes["vae"], sizes["transformer"], request.param
    schedule = Schedule(tuple(map(tuple, sizes["schedule"])), tuple(sizes["rope_reference"][-1]))
    quantizer = Quantizer(schedule, vae["bits"], own["spatial_patchify"])
    config = TransformerConfig(
        own["depth"], own["dim"], own["heads"], quantizer.token_bits, own["text_dim"],
        own["block_chunks"], own["mlp_ratio"], own["level_embedding_only_first_block"],
    )  # fmt: skip
    net = Transformer(config)
    state = {k.removeprefix("transformer."): v for k, v in tensors.items() if k.startswith("transformer.")}
    public = names.public_transformer_names(config)
    net.load_state_dict(names.from_public(state, public))
    autoencoder = Autoencoder(
        AutoencoderConfig(vae["bits"], vae["base_channels"], tuple(vae["channel_multipliers"]), vae["res_blocks"])
    )
    state = {k.removeprefix("vae."): v for k, v in tensors.items() if k.startswith("vae.")}
    own_names = names.public_autoencoder_names(list(autoencoder.state_dict()))
    autoencoder.load_state_dict(names.from_public(state, own_names))
    text = Text.stack(list(tensors["text_features"].to(dtype).split(sizes["text_lengths"])))
    return SimpleNamespace(
        sizes=sizes, golden=tensors, dtype=dtype, tolerance=TOLERANCE[dtype], quantizer=quantizer, schedule=schedule,
        net=net.to(dtype), autoencoder=autoencoder.to(dtype), text=text, public=public,
    )  # fmt: skip


def test_encoder(case):
    with torch.inference_mode():
        features = case.autoencoder.encode(case.golden["image"].to(case.dtype))
    features = features - features.mean((0, 2, 3), keepdim=True)
    assert distance(features, case.golden["raw_features"]) < case.tolerance


def test_bits_and_inputs(case):
    tokens = case.quantizer.encode(case.golden["raw_features"].to(case.dtype))
    assert torch.equal(tokens.bits, case.golden["bits"].bool())
    assert distance(tokens.inputs, case.golden["teacher_forcing_inputs"]) < case.tolerance


def test_self_correction_with_a_given_mask(case):
    features = case.golden["raw_features"].to(case.dtype)
    tokens = case.quantizer.encode(features, flips_BLP=case.golden["flip_mask"])
    assert torch.equal(tokens.bits, case.golden["flipped_target_bits"].bool())
    assert distance(tokens.inputs, case.golden["flipped_inputs"]) < case.tolerance


def test_logits_losses_and_gradients(case):
    inputs = case.golden["teacher_forcing_inputs"].to(case.dtype)
    logits = case.net(case.text, inputs, case.schedule)
    assert distance(logits.flatten(2), case.golden["logits"]) < case.tolerance
    token_loss = losses.cross_entropy(logits, case.golden["bits"])
    assert distance(token_loss, case.golden["ce_per_token"]) < case.tolerance
    weights = case.sizes["weights"]
    per_token = losses.token_weights(case.schedule, case.sizes["coarse_scales"], weights["coarse"], weights["fine"])
    loss = losses.weighted_loss(token_loss, per_token.to(case.dtype))
    assert distance(loss, case.golden["weighted_loss"][0]) < case.tolerance
    loss.backward()
    gradients = {name: p.grad for name, p in case.net.named_parameters()}
    assert set(case.sizes["grad_norms"]) == set(case.public)
    for public, norm in case.sizes["grad_norms"].items():
        gradient = gradients[case.public[public]]
        own = 0.0 if gradient is None else float(gradient.double().norm())
        assert own == pytest.approx(norm, rel=10 * case.tolerance, abs=1e-7), public


def test_distillation(case):
    inputs = case.golden["teacher_forcing_inputs"].to(case.dtype)
    teacher = case.golden["logits"].to(case.dtype).unflatten(-1, (-1, 2))
    deltas = {k.removeprefix("student_delta."): v for k, v in case.golden.items() if k.startswith("student_delta.")}
    with torch.no_grad():
        for public, delta in deltas.items():
            case.net.get_parameter(case.public[public]).add_(delta)
        student = case.net(case.text, inputs, case.schedule)
    assert distance(student.flatten(2), case.golden["student_logits"]) < case.tolerance
    divergence = losses.bernoulli_distillation(student, teacher[..., 1] - teacher[..., 0]).mean()
    assert float(divergence) == pytest.approx(float(case.golden["kl_per_bit_mean"]), rel=10 * case.tolerance)


def test_greedy_generation(case):
    sampling = Sampling(tuple(case.sizes["cfg"]), case.sizes["tau"], top_k=1, top_p=1.0)
    drawn = sample(case.net, case.quantizer, case.text, sampling)
    wrong = int((drawn.bits != case.golden["greedy_bits"].bool()).sum())
    assert wrong == 0
    assert distance(drawn.codes, case.golden["greedy_codes"]) < case.tolerance
    with torch.inference_mode():
        pixels = case.autoencoder.decode(drawn.codes)
    # The golden decoder output is not clamped to [-1, 1].
    assert distance(pixels, case.golden["greedy_decoded"].clamp(-1, 1)) < 10 * case.tolerance
    own = to_uint8(pixels).flip(-1).int()
    off = (own - case.golden["greedy_image_bgr_u8"].int()).abs()
    assert off.max() <= 1
    assert (off > 0).float().mean() < 1e-4
