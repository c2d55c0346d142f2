import pytest
import torch

from arbooth.model import names
from arbooth.model.config import RELEASED, TransformerConfig
from arbooth.model.transformer import Text, Transformer


def test_a_token_sees_its_own_and_coarser_scales_only(tiny):
    tokens = tiny.quantizer.encode(tiny.features[:1])
    text = Text.stack([tiny.text])
    before = tiny.net(text, tokens.inputs, tiny.quantizer.schedule)
    changed = tokens.inputs.clone()
    changed[:, 4:] += 1  # inputs of the third scale
    after = tiny.net(text, changed, tiny.quantizer.schedule)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_padding_does_not_change_a_sample(tiny):
    tokens = tiny.quantizer.encode(tiny.features[:1])
    alone = tiny.net(Text.stack([tiny.text]), tokens.inputs, tiny.quantizer.schedule)
    both = tiny.net(Text.stack([tiny.text, tiny.other]), tokens.inputs.repeat(2, 1, 1), tiny.quantizer.schedule)
    assert torch.allclose(alone[0], both[0], atol=1e-5)


def test_recompute_gives_the_same_gradients(tiny):
    tokens = tiny.quantizer.encode(tiny.features)
    text = Text.stack([tiny.text] * 3)
    weight = tiny.net.blocks[0].feed_forward.expand.weight.requires_grad_(True)
    plain, again = (
        torch.autograd.grad(
            tiny.net(text, tokens.inputs, tiny.quantizer.schedule, recompute=recompute).square().mean(), weight
        )[0]
        for recompute in (False, True)
    )
    assert torch.equal(plain, again)


def test_bfloat16_autocast_stays_close_and_keeps_logits_in_float32(tiny):
    tokens, text = tiny.quantizer.encode(tiny.features), Text.stack([tiny.text] * 3)
    exact = tiny.net(text, tokens.inputs, tiny.quantizer.schedule)
    tiny.net.compute = "bfloat16"
    rough = tiny.net(text, tokens.inputs, tiny.quantizer.schedule)
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() / exact.norm() < 0.05


def test_level_embedding_is_added_before_every_chunk_when_asked(tiny):
    every = Transformer(TransformerConfig(**{**tiny.net.config.as_dict(), "level_embedding_first_only": False}))
    every.load_state_dict(tiny.net.state_dict())
    tokens, text = tiny.quantizer.encode(tiny.features[:1]), Text.stack([tiny.text])
    assert not torch.allclose(
        every(text, tokens.inputs, tiny.quantizer.schedule), tiny.net(text, tokens.inputs, tiny.quantizer.schedule)
    )


@pytest.mark.parametrize("shape, words", [((1, 600, 128), "512"), ((1, 3, 64), "64 wide")])
def test_unfit_text_is_refused(tiny, shape, words):
    with pytest.raises(ValueError, match=words):
        tiny.net.condition(Text(torch.zeros(shape), [shape[1]]))


@pytest.mark.parametrize("wrong", [{"heads": 3}, {"chunks": 5}, {"text_width": 128 * 3}])
def test_sizes_that_do_not_divide_are_refused(wrong):
    with pytest.raises(ValueError, match="divisible"):
        TransformerConfig(**{"depth": 4, "width": 128, "heads": 2, "bits": 8, "text_width": 128, **wrong})


@pytest.mark.parametrize(
    "name, millions, shapes",
    [
        (
            "infinity-125m",
            (110, 140),
            {
                "word_embed.weight": (768, 16),
                "block_chunks.3.module.2.sa.mat_qkv.weight": (2304, 768),
                "text_proj_for_sos.ca.mat_q": (1, 16, 48),
                "head.weight": (32, 768),
            },
        ),
        (
            "infinity-2b",
            (1900, 2300),
            {
                "word_embed.weight": (2048, 32),
                "cfg_uncond": (512, 2048),
                "block_chunks.7.module.3.ffn.fc1.weight": (8192, 2048),
                "block_chunks.0.module.0.ca.mat_kv.weight": (4096, 2048),
                "text_proj_for_sos.ca.mat_q": (1, 16, 128),
                "lvl_embed.weight": (15, 2048),
                "head.weight": (64, 2048),
            },
        ),
        (
            "infinity-8b",
            (7900, 8900),
            {
                "word_embed.weight": (3584, 56),
                "block_chunks.7.module.4.ffn.fc1.weight": (14336, 3584),
                "block_chunks.0.module.0.sa.scale_mul_1H11": (1, 28, 1, 1),
                "shared_ada_lin.1.weight": (6 * 3584, 3584),
                "head.weight": (112, 3584),
            },
        ),
    ],
)
def test_released_sizes_on_the_meta_device(name, millions, shapes):
    config, _ = RELEASED[name]
    with torch.device("meta"):
        net = Transformer(config)
    own, public = net.state_dict(), names.public_transformer_names(config)
    assert sorted(public.values()) == sorted(own)
    assert len(public) == 21 + 19 * config.depth
    for key, shape in shapes.items():
        assert tuple(own[public[key]].shape) == shape, key
    assert millions[0] < sum(p.numel() for p in net.parameters()) / 1e6 < millions[1]
