from dataclasses import replace

import pytest
import torch

from arbooth.data.resume import ResumeFile
from arbooth.errors import InputError, Interrupted
from arbooth.method.fit import FitSettings, fit
from arbooth.method.prior import draw_prior
from arbooth.model.sampling import Sampling
from arbooth.model.text import Prompt
from tests.conftest import make_tiny

SETTINGS = FitSettings(
    steps=6, batch=2, accumulate=1, learning_rate=1e-3, identifier_learning_rate=1e-2, weight_decay=0.005,
    betas=(0.9, 0.999), identifier_tokens=3, coarse_scales=2, coarse_weight=1.0, fine_weight=0.5, prior_weight=0.5,
    distillation="bernoulli", drop_text=0.1, correction_strength=0.3, correction_scales=13,
    recompute=False, layers=("cross_attention", "feed_forward"), scale_weights=True, prior="distill", seed=0,
)  # fmt: skip


def tuned(resume=None, **changes):
    tiny = make_tiny()
    settings = replace(SETTINGS, **changes)
    prior = draw_prior(tiny.net, tiny.quantizer, tiny.other, 4, Sampling(1.0, 0.5, 900, 0.97), 0, keep_pairs=True)
    prompt = Prompt(tiny.text, (3,))
    result = fit(
        tiny.net,
        tiny.quantizer,
        tiny.features,
        prompt,
        prior if settings.prior != "none" else None,
        settings,
        resume=resume,
    )
    return result, tiny


def same(first, second) -> bool:
    return torch.equal(first.identifier, second.identifier) and all(
        torch.equal(first.parameters[n], second.parameters[n]) for n in first.parameters
    )


def test_only_the_selected_layers_and_the_token_move():
    untouched = dict(make_tiny().net.named_parameters())
    result, tiny = tuned()
    assert result.identifier.shape == (3, 128)
    assert result.identifier.abs().max() > 0
    for name, parameter in tiny.net.named_parameters():
        assert (not torch.equal(parameter, untouched[name])) == (name in result.parameters), name


def test_the_loss_falls_on_the_photos():
    history = tuned(steps=60, drop_text=0.0, correction_strength=0.0)[0].history
    mean = lambda rows: sum(r["subject"] for r in rows) / len(rows)  # noqa: E731
    assert mean(history[-10:]) < 0.9 * mean(history[:10])
    assert [r["step"] for r in history] == list(range(1, 61))
    assert {"scale_1", "scale_2", "scale_3", "prior"} <= set(history[0])


def test_distillation_holds_the_class_prior():
    with_prior = tuned(steps=60, prior_weight=2.0)[0].history[-1]["prior"]
    without = tuned(steps=60, prior_weight=0.0)[0].history[-1]["prior"]
    assert with_prior < without


def test_a_seed_repeats_bit_for_bit_and_another_does_not():
    assert same(tuned()[0], tuned()[0])
    assert not same(tuned()[0], tuned(seed=1)[0])


class StopAfter(ResumeFile):
    """A resume file that asks to stop after some saves."""

    def __init__(self, path, steps):
        super().__init__(path, "key", seconds=0)
        self.left = steps

    def due(self):
        return True

    def save(self, state):
        super().save(state)
        self.left -= 1

    def stopping(self):
        return self.left <= 0


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_interrupted_run_ends_with_the_bits_of_an_uninterrupted_one(tmp_path, accumulate):
    whole, _ = tuned(accumulate=accumulate)
    with pytest.raises(Interrupted, match="of 6"):
        tuned(StopAfter(tmp_path / "run.pt", 4), accumulate=accumulate)
    resumed, _ = tuned(StopAfter(tmp_path / "run.pt", 99), accumulate=accumulate)
    assert same(whole, resumed)
    assert whole.history == resumed.history


def test_a_resume_file_of_another_run_is_ignored(tmp_path):
    with pytest.raises(Interrupted):
        tuned(StopAfter(tmp_path / "run.pt", 4))
    other = StopAfter(tmp_path / "run.pt", 99)
    other.key = "another"
    assert other.load() is None


def test_recompute_changes_nothing():
    assert same(tuned()[0], tuned(recompute=True)[0])


def test_the_token_alone():
    result, _ = tuned(layers=(), prior="none", scale_weights=False)
    assert result.parameters == {}
    assert result.identifier.abs().max() > 0


def test_the_token_alone_survives_a_step_without_text():
    """Nothing has a gradient where every text of the batch was dropped."""
    result, _ = tuned(layers=(), prior="none", drop_text=1.0)
    assert result.identifier.eq(0).all()


@pytest.mark.parametrize("changes", [{"prior": "data"}, {"distillation": "joint"}])
def test_the_other_options_run_and_differ(changes):
    result, _ = tuned(**changes)
    assert all(p.dtype == torch.float32 for p in result.parameters.values())
    assert not same(result, tuned()[0])


def test_weights_change_the_loss():
    plain, weighted = tuned(scale_weights=False)[0].history[0], tuned()[0].history[0]
    assert plain["scale_1"] == weighted["scale_1"]
    assert plain["subject"] > weighted["subject"]


def test_misfits_are_refused():
    tiny = make_tiny()
    with pytest.raises(ValueError, match="no class prior"):
        fit(tiny.net, tiny.quantizer, tiny.features, Prompt(tiny.text, (3,)), None, SETTINGS)
    prior = draw_prior(tiny.net, tiny.quantizer, tiny.other, 2, Sampling(1.0, 0.5, 900, 0.97), 0)
    with pytest.raises(ValueError, match="keep_pairs"):
        fit(
            tiny.net,
            tiny.quantizer,
            tiny.features,
            Prompt(tiny.text, (3,)),
            prior,
            replace(SETTINGS, distillation="joint"),
        )
    with pytest.raises(InputError, match="lower finetune.learning_rate"):
        tuned(learning_rate=1e30, steps=20)
