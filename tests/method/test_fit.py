import math
import shutil
from dataclasses import fields, replace

import pytest
import torch

from arbooth.data.resume import ResumeFile
from arbooth.errors import InputError, Interrupted
from arbooth.method.fit import Batch, FitSettings, Fitting, fit
from arbooth.method.prior import draw_prior
from arbooth.method.seeds import generator
from arbooth.model.quantizer import Tokens
from arbooth.model.sampling import Sampling
from arbooth.model.text import Prompt
from tests.conftest import make_tiny

SETTINGS = FitSettings(
    steps=6, batch=2, accumulate=1, learning_rate=1e-3, identifier_learning_rate=1e-2, weight_decay=0.005,
    betas=(0.9, 0.999), identifier_tokens=3, coarse_scales=2, coarse_weight=1.0, fine_weight=0.5, prior_weight=0.5,
    distillation="bernoulli", drop_text=0.1, correction_strength=0.3, correction_scales=13,
    recompute=False, layers=("cross_attention", "feed_forward"), scale_weights=True, prior="distill", seed=0,
)  # fmt: skip


def tuned(resume=None, compiled=False, watch=None, **changes):
    tiny = make_tiny()
    if compiled:
        tiny.net.compile_blocks()
    settings = replace(SETTINGS, **changes)
    prior = draw_prior(tiny.net, tiny.quantizer, tiny.other, 4, Sampling(1.0, 0.5, 900, 0.97), 0, keep_pairs=True)
    prompts = [Prompt(tiny.text, (3,))] * 3
    result = fit(
        tiny.net,
        tiny.quantizer,
        tiny.features,
        prompts,
        prior if settings.prior != "none" else None,
        settings,
        resume=resume,
        watch=watch,
        validation=tiny.features.roll(1, -1),
    )
    return result, tiny


def fitting(**changes):
    tiny = make_tiny()
    prior = draw_prior(tiny.net, tiny.quantizer, tiny.other, 4, Sampling(1.0, 0.5, 900, 0.97), 0)
    settings = replace(SETTINGS, **changes)
    return Fitting(tiny.net, tiny.quantizer, tiny.features, [Prompt(tiny.text, (3,))] * 3, prior, settings)


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


@pytest.fixture
def short_looks(monkeypatch):
    """A run of "auto" looks after every other step, and goes no further than 40."""
    from arbooth.method import fit as fitting_module
    from arbooth.method import stopping

    monkeypatch.setattr(stopping, "EVERY", 2)
    monkeypatch.setattr(fitting_module, "MOST", 40)


def test_auto_steps_end_where_the_crops_are_learned_no_better(short_looks, tmp_path):
    result, _ = tuned(steps="auto", learning_rate=3e-2)
    looks = {row["step"]: row["validation"] for row in result.history if "validation" in row}
    assert 4 < len(result.history) < 40 and list(looks) == list(range(2, len(result.history) + 1, 2))
    assert min(list(looks.values())[-2:]) > 0.99 * min(list(looks.values())[:-2])
    fixed, _ = tuned(steps=len(result.history), learning_rate=3e-2)
    assert same(result, fixed), "looking changes nothing of what is learned"
    assert not any("validation" in row for row in fixed.history)


def test_auto_steps_resume_to_the_same_bits(short_looks, tmp_path):
    whole, _ = tuned(steps="auto", learning_rate=3e-2)
    with pytest.raises(Interrupted):
        tuned(StopAfter(tmp_path / "run.pt", 3), steps="auto", learning_rate=3e-2)
    resumed, _ = tuned(StopAfter(tmp_path / "run.pt", 99), steps="auto", learning_rate=3e-2)
    assert same(whole, resumed) and whole.history == resumed.history


@pytest.mark.parametrize("changes", [{"prior": "none"}, {"prior": "data"}, {"distillation": "joint"}, {"drop_text": 1.0}])
def test_auto_steps_go_with_every_recipe(short_looks, changes):
    result, _ = tuned(steps="auto", learning_rate=3e-2, **changes)
    assert 4 < len(result.history) <= 40 and result.stopped


def test_auto_steps_want_a_view_of_every_photo(tiny):
    settings = replace(SETTINGS, steps="auto", prior="none")
    for views in (None, tiny.features[:2]):
        with pytest.raises(ValueError, match="every picture's middle"):
            fit(tiny.net, tiny.quantizer, tiny.features, [Prompt(tiny.text, (3,))] * 3, None, settings, validation=views)


def test_the_rates_fall_to_nothing_over_the_last_steps(tiny):
    settings = replace(SETTINGS, steps=8, decay=0.5, prior="none")
    run = Fitting(tiny.net, tiny.quantizer, tiny.features, [Prompt(tiny.text, (3,))] * 3, None, settings)
    shares = []
    for _ in range(8):
        shares.append(run.share_of_rates)
        run.step()
    assert shares == [1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert [group["lr"] for group in run.optimizer.groups] == [0.25 * 1e-2, 0.25 * 1e-3]


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adamw-8bit"])
def test_falling_rates_resume_to_the_same_bits(optimizer, tmp_path):
    if optimizer == "adamw-8bit":
        pytest.importorskip("torchao")
    chosen = {"optimizer": optimizer, "decay": 0.5, "steps": 8}
    with pytest.raises(Interrupted):
        tuned(StopAfter(tmp_path / "run.pt", 6), **chosen)
    falling = tuned(**chosen)[0]
    assert same(falling, tuned(StopAfter(tmp_path / "run.pt", 99), **chosen)[0])
    assert not same(falling, tuned(**{**chosen, "decay": 0.0})[0])


def test_auto_steps_let_the_rates_fall_where_they_would_end(short_looks, tmp_path):
    at_once = len(tuned(steps="auto", learning_rate=3e-2)[0].history)
    chosen = {"steps": "auto", "learning_rate": 3e-2, "decay": 0.25}
    result, _ = tuned(**chosen)
    assert len(result.history) == math.ceil(at_once / 0.75) and result.stopped
    with pytest.raises(Interrupted):
        tuned(StopAfter(tmp_path / "run.pt", at_once + 1), **chosen)  # the rates are falling
    assert same(result, tuned(StopAfter(tmp_path / "run.pt", 99), **chosen)[0])


def test_a_run_whose_class_drifts_ends_at_once(short_looks, tmp_path, monkeypatch):
    from arbooth.method import stopping

    monkeypatch.setattr(stopping, "SOUND", 0.0)
    monkeypatch.setattr(stopping, "DRIFT", 0.0)  # whatever the prior's loss is
    result, _ = tuned(steps="auto", learning_rate=3e-2, decay=0.5)
    assert len(result.history) == 2 and result.stopped == "its class begins to drift"


def test_a_run_that_drifts_while_its_rates_fall_ends_at_once(short_looks, monkeypatch):
    from arbooth.method import stopping

    at_once = len(tuned(steps="auto", learning_rate=3e-2)[0].history)

    def drifting(step, _identifier):
        if step > at_once:
            monkeypatch.setattr(stopping, "SOUND", 0.0)
            monkeypatch.setattr(stopping, "DRIFT", 0.0)

    result, _ = tuned(watch=drifting, steps="auto", learning_rate=3e-2, decay=0.5)
    assert len(result.history) == at_once + 2 and result.stopped == stopping.DRIFTS


def test_a_resume_file_of_another_run_is_ignored(tmp_path):
    with pytest.raises(Interrupted):
        tuned(StopAfter(tmp_path / "run.pt", 4))
    other = StopAfter(tmp_path / "run.pt", 99)
    other.key = "another"
    assert other.load() is None


@pytest.mark.heavy
@pytest.mark.parametrize("kind", [{}, {"rank": 2, "recompute": True, "last_scale_chance": 0.5}])
def test_compiled_blocks_give_the_same_losses(kind):
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler here")
    plain, compiled = tuned(**kind)[0].history, tuned(compiled=True, **kind)[0].history
    for one, other in zip(plain, compiled, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)


def test_recompute_changes_nothing():
    assert same(tuned()[0], tuned(recompute=True)[0])


@pytest.mark.parametrize("kind", [{}, {"rank": 2}])
@pytest.mark.parametrize("size", [1, 3])
def test_micro_batches_add_up_to_the_whole_step(kind, size):
    """One sample a pass, or a pass that holds photos and class samples: the same gradients but for rounding."""
    whole, parts = tuned(steps=1, **kind)[0], tuned(steps=1, micro_batch=size, **kind)[0]
    for name, value in whole.history[0].items():
        assert parts.history[0][name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    gradients = []
    for micro_batch in (0, size):
        run = fitting(micro_batch=micro_batch, **kind)
        for loss, _ in run.losses(run.draw_batch(generator(0, "fit", 0, 0))):
            loss.backward()
        gradients.append([p.grad for p in (run.identifier, *run.parameters.values())])
    for one, other in zip(*gradients):
        assert (one - other).norm() <= 1e-4 * one.norm() + 1e-9


def test_steps_without_the_last_scale_keep_the_gradient_unbiased():
    """The two kinds of step, weighted by how often they come, are the full one."""
    found = {}
    for chance in (1.0, 0.25):
        for number in range(40):
            run = fitting(last_scale_chance=chance)
            scales = len(run.draw_batch(generator(0, "fit", number, 0)).schedule)
            if (chance, scales) in found:
                continue
            run.settings = replace(run.settings, batch=1)
            batch = run.draw_batch(generator(0, "fit", 0, 0))
            batch.schedule = run.quantizer.schedule.first(scales)
            loss, row = run._part(batch, slice(0, 1), slice(0, 1))
            loss.backward()
            found[chance, scales] = (loss.detach(), [p.grad for p in (run.identifier, *run.parameters.values())], row)
    scales = len(make_tiny().quantizer.schedule)
    whole, full, cut = found[1.0, scales], found[0.25, scales], found[0.25, scales - 1]
    assert (1.0, scales - 1) not in found
    torch.testing.assert_close(0.25 * full[0] + 0.75 * cut[0], whole[0], rtol=1e-5, atol=1e-6)
    for one, other, expected in zip(full[1], cut[1], whole[1]):
        assert (0.25 * one + 0.75 * other - expected).norm() <= 1e-4 * expected.norm() + 1e-9
    assert cut[2][:2].isfinite().all() and cut[2][-2].isnan() and whole[2].isfinite().all()


def test_what_a_step_leaves_out_is_not_in_its_row():
    history = tuned(steps=12, last_scale_chance=0.3)[0].history
    last = ["scale_3" in row for row in history]
    assert any(last) and not all(last) and all("scale_2" in row for row in history)


def test_low_rank_learns_the_photos_and_leaves_the_matrices():
    before = dict(make_tiny().net.named_parameters())
    result, tiny = tuned(steps=60, rank=4, drop_text=0.0, correction_strength=0.0, learning_rate=3e-3)
    mean = lambda rows: sum(r["subject"] for r in rows) / len(rows)  # noqa: E731
    assert mean(result.history[-10:]) < 0.9 * mean(result.history[:10])
    assert all(torch.equal(p, before[n]) for n, p in tiny.net.named_parameters() if p.ndim == 2)


def test_moments_in_eight_bits_learn_as_well(tmp_path):
    pytest.importorskip("torchao")
    plain, small = (tuned(steps=20, optimizer=name)[0].history for name in ("adamw", "adamw-8bit"))
    assert small[-1]["loss"] == pytest.approx(plain[-1]["loss"], rel=0.1)
    with pytest.raises(Interrupted):
        tuned(StopAfter(tmp_path / "run.pt", 4), optimizer="adamw-8bit")
    assert same(tuned(optimizer="adamw-8bit")[0], tuned(StopAfter(tmp_path / "run.pt", 99), optimizer="adamw-8bit")[0])


@pytest.mark.parametrize("rank", [0, 4])
def test_muon_learns_and_resumes_to_the_same_bits(rank, tmp_path):
    chosen = {"optimizer": "muon", "learning_rate": 3e-3, "rank": rank}
    history = tuned(steps=60, drop_text=0.0, correction_strength=0.0, **chosen)[0].history
    mean = lambda rows: sum(r["subject"] for r in rows) / len(rows)  # noqa: E731
    assert mean(history[-10:]) < 0.9 * mean(history[:10])
    with pytest.raises(Interrupted):
        tuned(StopAfter(tmp_path / "run.pt", 4), **chosen)
    assert same(tuned(**chosen)[0], tuned(StopAfter(tmp_path / "run.pt", 99), **chosen)[0])


def test_muon_moves_no_matrix_where_none_is_trained():
    alone = {"layers": (), "prior": "none", "scale_weights": False}
    assert same(tuned(optimizer="muon", **alone)[0], tuned(optimizer="adamw", **alone)[0])


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
        fit(tiny.net, tiny.quantizer, tiny.features, [Prompt(tiny.text, (3,))] * 3, None, SETTINGS)
    prior = draw_prior(tiny.net, tiny.quantizer, tiny.other, 2, Sampling(1.0, 0.5, 900, 0.97), 0)
    with pytest.raises(ValueError, match="keep_pairs"):
        fit(
            tiny.net,
            tiny.quantizer,
            tiny.features,
            [Prompt(tiny.text, (3,))] * 3,
            prior,
            replace(SETTINGS, distillation="joint"),
        )
    with pytest.raises(InputError, match="lower finetune.learning_rate"):
        tuned(learning_rate=1e30, steps=20)


def test_each_photo_is_learned_with_its_own_prompt(tiny):
    """A step's loss with two captions is that of the photos learned one by one."""
    prompts = [Prompt(tiny.text, (3,)), Prompt(tiny.other, (2,)), Prompt(tiny.text, (3,))]
    recipe = replace(SETTINGS, prior="none", batch=3, drop_text=0.0)
    run = Fitting(tiny.net, tiny.quantizer, tiny.features, prompts, None, recipe)
    batch = run.draw_batch(generator(0))
    assert {photo for photo in batch.texts if photo is not None} <= {0, 1, 2}
    together = sum(row[1] for _, row in run.losses(batch))
    alone = []
    for k, photo in enumerate(batch.texts):
        one = Fitting(tiny.net, tiny.quantizer, tiny.features, [prompts[photo]] * 3, None, replace(recipe, batch=1))
        part = Batch(Tokens(*(getattr(batch.tokens, f.name)[k : k + 1] for f in fields(Tokens))), [0],
                     batch.classes, batch.schedule)  # fmt: skip
        alone.append(sum(row[1] for _, row in one.losses(part)))
    assert torch.allclose(together, torch.stack(alone).mean(), atol=1e-5)
    with pytest.raises(ValueError, match="2 prompts for 3 photos"):
        Fitting(tiny.net, tiny.quantizer, tiny.features, prompts[:2], None, recipe)
