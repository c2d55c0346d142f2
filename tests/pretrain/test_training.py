"""Every training of the recipe takes a few real steps on a toy world, and the check paints and judges."""

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from arbooth.data.files import EMBEDDED
from arbooth.model.autoencoder import Autoencoder
from arbooth.model.config import AutoencoderConfig, TransformerConfig
from arbooth.model.quantizer import Quantizer, SelfCorrection
from arbooth.model.schedule import Schedule
from pretrain import checkpoint, train_encoders, train_tokenizer, train_transformer
from pretrain.art import Drawing
from pretrain.check import check
from pretrain.world import World

QUANTIZER = Quantizer(Schedule.custom([[1, 1], [2, 2], [8, 8]]), 16)
CONFIG = AutoencoderConfig(16, base=8, multipliers=(1, 1, 2, 2), blocks=1, groups=4)


@pytest.fixture(scope="module")
def toy():
    """96 pictures of two drawings, with their views."""
    drawings = {}
    for noun, colour in (("cat", (200, 120, 60, 255)), ("dog", (60, 120, 200, 255))):
        image = Image.new("RGBA", (80, 60))
        ImageDraw.Draw(image).ellipse((5, 5, 75, 55), fill=colour)
        drawings[noun] = [Drawing(f"noto/{noun}", noun, image)]
    world = World(drawings, {"a crown": [Drawing("noto/crown", "a crown", image)]})
    rng = np.random.default_rng(0)
    views = [world.view(rng) for _ in range(96)]
    return np.stack([np.asarray(world.render(rng, view)) for view in views]), views


def test_the_tokenizer_learns_and_shows(toy, tmp_path):
    torch.manual_seed(0)
    net = Autoencoder(CONFIG)
    held = train_tokenizer.to_pixels(toy[0][:64])
    before = train_tokenizer.evaluate(net, QUANTIZER, held)
    train_tokenizer.train(
        toy[0],
        toy[0],
        net,
        QUANTIZER,
        torch.nn.MSELoss(),
        tmp_path,
        steps=30,
        decay=10,
        batch=8,
        rate=2e-3,
        photo_share=0.25,
        seed=0,
    )
    assert train_tokenizer.evaluate(net, QUANTIZER, held) > before + 1
    with Image.open(tmp_path / "tokenizer.png") as sheet:
        assert sheet.size == (12 * 64, 2 * 64)
    assert checkpoint.load(tmp_path / "tokenizer.pt")["step"] == 30


def test_the_transformer_trains_on_whole_and_coarse_schedules(toy, tmp_path):
    net = Autoencoder(CONFIG).eval().requires_grad_(False)
    features = train_transformer.encode_pictures(net, toy[0], tmp_path / "f.pt", "a")
    assert features.shape == (96, 16, 8, 8)
    assert torch.equal(features, train_transformer.encode_pictures(net, toy[0] * 0, tmp_path / "f.pt", "a"))
    assert not torch.equal(features, train_transformer.encode_pictures(net, toy[0] * 0, tmp_path / "f.pt", "b"))
    config = TransformerConfig(2, 64, 2, 16, 64)
    for scales in (2, 3):
        folder = tmp_path / str(scales)
        both = train_transformer.new_networks(config, 1, 0)
        before = both["transformer"].head.weight.clone()
        train_transformer.train(
            features,
            toy[1],
            QUANTIZER,
            net,
            both,
            folder,
            steps=3,
            decay=1,
            batch=4,
            rate=1e-3,
            show_every=2,
            ends={scales: 1.0},
            correction=SelfCorrection(0.2, 3),
            seed=0,
        )
        assert not torch.equal(before, both["transformer"].head.weight)
        assert (folder / "transformer.png").exists()


def test_encoders_and_judge_learn_together(toy, tmp_path):
    losses = []

    class Ledger:
        def log(self, step, values):
            losses.append(values["loss"])

    for steps in (1, 40):
        train_encoders.train(*toy, *toy, tmp_path, steps=steps, decay=1, batch=16, rate=2e-3, seed=0, ledger=Ledger())
    assert losses[-1] < 0.8 * losses[0]
    names = checkpoint.load(tmp_path / "encoders.pt")["average"]
    assert {name.partition(".")[0] for name in names} == {"encoders", "judge", "centres", "sharpness"}


def test_the_check_paints_and_judges_the_packed_base(tmp_path):
    (tmp_path / "unseen").mkdir()
    Image.new("RGB", (90, 70), (180, 120, 60)).save(tmp_path / "unseen" / "plain.jpg")
    shares = check(tmp_path, 48, 0)
    assert shares["psnr_photos"] > 24
    assert json.loads((tmp_path / "check.json").read_text()) == shares
    assert {"class", "scene", "colour", "accessory", "size", "place", "beside"} <= set(shares)
    assert shares["scene"] > 0.5, EMBEDDED
    with Image.open(tmp_path / "check.png") as sheet:
        assert sheet.size == (16 * 128, 3 * 128)
