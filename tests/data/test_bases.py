"""Official files in every layout that they come in, made small by the same rules."""

import json

import pytest
import torch
from safetensors.torch import save_file

from arbooth.data.bases import load_base, read_record
from arbooth.data.checkpoints import read_weights
from arbooth.data.files import EMBEDDED
from arbooth.data.importing import import_base
from arbooth.data.networks import load_autoencoder, load_text_encoder, load_transformer, quantizer_of
from arbooth.errors import InputError
from arbooth.method.seeds import generator
from arbooth.model import names
from arbooth.model.autoencoder import Autoencoder, to_uint8
from arbooth.model.config import AutoencoderConfig, TransformerConfig
from arbooth.model.sampling import Sampling, sample
from arbooth.model.transformer import Text, Transformer

CONFIG = TransformerConfig(4, 128, 2, 16, 128, chunks=2)


def public_transformer(config=CONFIG, style="chunks"):
    torch.manual_seed(0)
    net = Transformer(config)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    own = net.state_dict()
    state = {public: own[ours].clone() for public, ours in names.public_transformer_names(config, style).items()}
    first = "blocks.0" if style == "flat" else "block_chunks.0.module.0"
    return net, {**state, f"{first}.sa.zero_k_bias": torch.zeros(config.width)}


def public_autoencoder(bits=16, multipliers=(1, 1, 2, 2, 2)):
    torch.manual_seed(1)
    net = Autoencoder(AutoencoderConfig(bits, 32, multipliers, 2))
    own = net.state_dict()
    state = {p: own[ours].clone() for p, ours in names.public_autoencoder_names(list(own)).items()}
    return net, {**state, "quantizer.lfq.mask": torch.zeros(bits, dtype=torch.long)}


def text_folder(where, width=128):
    from transformers import T5EncoderModel

    from pretrain.words import build_encoder, build_tokenizer

    tokenizer = build_tokenizer()
    torch.manual_seed(2)
    encoder: T5EncoderModel = build_encoder(tokenizer, width, 1)
    encoder.save_pretrained(where)
    tokenizer.save_pretrained(where)
    return where


@pytest.fixture
def folder(tmp_path):
    """An official-looking folder: plain transformer, nested tokenizer, T5."""
    where = tmp_path / "official"
    where.mkdir()
    net, state = public_transformer()
    torch.save(state, where / "infinity_2b_reg.pth")
    autoencoder, vae = public_autoencoder()
    torch.save({"vae": vae, "step": 3}, where / "infinity_vae_d32reg.pth")
    text_folder(where / "flan-t5-xl")
    return where, net, autoencoder


def imported(where, tmp_path, name="mine"):
    return import_base(where, name, tmp_path / "bases", tmp_path / "weights")


def agree(base, net):
    own = load_transformer(base)
    assert all(torch.equal(p, net.get_parameter(n)) for n, p in own.named_parameters())
    assert not any(p.requires_grad for p in own.parameters())


def test_plain_files_are_recorded_and_load(folder, tmp_path):
    where, net, autoencoder = folder
    base = imported(where, tmp_path)
    agree(base, net)
    assert all(torch.equal(v, autoencoder.state_dict()[k]) for k, v in load_autoencoder(base).state_dict().items())
    assert base.config == CONFIG
    assert quantizer_of(base).schedule.length == 10521
    small = load_base("mine", tmp_path / "bases", tmp_path / "weights", 1.5, "0.06M")
    assert small.schedule.last == (21, 14)
    assert base.picture_size == (1024, 1024)
    assert load_text_encoder(base).encode("a photo of <S*> cat").identifier_rows == (3,)
    record = json.loads((tmp_path / "bases" / "mine.json").read_text())
    assert record["files"]["transformer"]["bytes"] == (where / "infinity_2b_reg.pth").stat().st_size
    assert str(tmp_path) not in json.dumps(record)
    assert load_base("mine", tmp_path / "bases", tmp_path / "weights").hash == base.hash


def nested(where, state):
    torch.save({"trainer": {"gpt_fsdp": state}, "epoch": 1}, where / "infinity_2b_reg.pth")


def safetensors(where, state):
    (where / "infinity_2b_reg.pth").unlink()
    save_file(state, where / "transformer.safetensors")


def sharded(where, state):
    (where / "infinity_2b_reg.pth").unlink()
    shards = where / "infinity_8b_weights"
    shards.mkdir()
    keys = sorted(state)
    halves = {"a.safetensors": keys[::2], "b.safetensors": keys[1::2]}
    for name, half in halves.items():
        save_file({k: state[k] for k in half}, shards / name)
    index = {"weight_map": {k: name for name, half in halves.items() for k in half}}
    (shards / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("layout", [nested, safetensors, sharded])
def test_other_layouts_load_the_same(folder, tmp_path, layout):
    where, net, _ = folder
    layout(where, public_transformer()[1])
    agree(imported(where, tmp_path), net)


def test_blocks_of_a_single_chunk_are_known_by_their_flat_names(folder, tmp_path):
    where = folder[0]
    net, state = public_transformer(TransformerConfig(4, 128, 2, 16, 128), "flat")
    torch.save(state, where / "infinity_2b_reg.pth")
    agree(imported(where, tmp_path), net)


def test_patchify_is_seen_by_its_bits(folder, tmp_path):
    where = folder[0]
    config = TransformerConfig(4, 128, 2, 56, 128, chunks=2)
    torch.save(public_transformer(config)[1], where / "infinity_2b_reg.pth")
    torch.save(public_autoencoder(14, (1, 1, 2, 2))[1], where / "infinity_vae_d32reg.pth")
    base = imported(where, tmp_path)
    assert base.patchify
    assert quantizer_of(base).maps[-1] == (128, 128)
    assert base.picture_size == (1024, 1024)


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def missing(where):
    state = public_transformer()[1]
    del state["lvl_embed.weight"]
    torch.save(state, where / "infinity_2b_reg.pth")


def unknown(where):
    torch.save({**public_transformer()[1], "surprise": torch.zeros(1)}, where / "infinity_2b_reg.pth")


def misshapen(where):
    torch.save({**public_transformer()[1], "head.bias": torch.zeros(7)}, where / "infinity_2b_reg.pth")


def truncated(where):
    path = where / "infinity_2b_reg.pth"
    path.write_bytes(path.read_bytes()[:-2000])


def garbage(where):
    (where / "infinity_2b_reg.pth").write_bytes(b"hello")


def evil(where):
    torch.save({"weights": Evil()}, where / "infinity_2b_reg.pth")


def wrong(where):
    torch.save({"conv.weight": torch.zeros(3)}, where / "infinity_2b_reg.pth")


def unfit(where):
    torch.save(public_autoencoder(24)[1], where / "infinity_vae_d32reg.pth")


def no_tokenizer(where):
    (where / "infinity_vae_d32reg.pth").unlink()


def no_text(where):
    (where / "flan-t5-xl" / "config.json").write_text('{"model_type": "t5", "d_model": 64}')


def two(where):
    torch.save({}, where / "another.pth")


@pytest.mark.parametrize(
    "damage, words",
    [
        (missing, r"1 missing \(lvl_embed.weight\)"),
        (unknown, r"1 unknown \(surprise\)"),
        (misshapen, r"head.bias is \(7,\), where its other sizes ask for \(32,\)"),
        (truncated, "truncated"),
        (garbage, "infinity_2b_reg.pth"),
        (evil, "holds more than weights"),
        (wrong, "not an Infinity transformer"),
        (unfit, "do not belong together"),
        (no_text, "64 wide, the transformer reads 128"),
        (no_tokenizer, "must hold one of a tokenizer"),
        (two, "it holds 2: another.pth"),
    ],
)
def test_damage_is_one_clear_error_and_nothing_is_recorded(folder, tmp_path, capsys, damage, words):
    damage(folder[0])
    with pytest.raises(InputError, match=words):
        imported(folder[0], tmp_path)
    assert not (tmp_path / "bases").exists()
    assert "code ran" not in capsys.readouterr().out


def test_a_changed_or_lost_file_is_refused_when_it_is_used(folder, tmp_path):
    where = folder[0]
    base = imported(where, tmp_path)
    nested(where, public_transformer()[1])
    with pytest.raises(InputError, match="not the file that base 'mine' was recorded with"):
        load_transformer(base)
    (where / "infinity_2b_reg.pth").unlink()
    with pytest.raises(InputError, match="not on this machine"):
        load_transformer(base)


def test_what_a_download_tool_leaves_beside_the_text_encoder_does_not_count(folder, tmp_path):
    first = imported(folder[0], tmp_path).hash
    (folder[0] / "flan-t5-xl" / ".cache").mkdir()
    (folder[0] / "flan-t5-xl" / ".cache" / "when").write_text("now")
    assert imported(folder[0], tmp_path).hash == first


def test_files_of_before_torch_1_6_load(folder, tmp_path):
    where, net, _ = folder
    torch.save(public_transformer()[1], where / "infinity_2b_reg.pth", _use_new_zipfile_serialization=False)
    agree(imported(where, tmp_path), net)


def test_importing_files_that_lie_under_weights_already_keeps_them(folder, tmp_path):
    where = tmp_path / "weights" / "mine"
    where.parent.mkdir()
    folder[0].rename(where)
    (where / "infinity_2b_reg.pth").rename(where / "transformer.pth")
    agree(imported(where, tmp_path), folder[1])
    assert (where / "transformer.pth").is_file() and not (where / "transformer.pth").is_symlink()


@pytest.mark.parametrize("name", ["embedded", "../up", "A", ""])
def test_names_stay_in_their_folder(folder, tmp_path, name):
    with pytest.raises(InputError, match="can't be named"):
        imported(folder[0], tmp_path, name)


@pytest.mark.parametrize("text", ["{", "{}", '{"transformer": {"depth": 1}}'])
def test_a_broken_record_is_one_sentence(tmp_path, text):
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases" / "x.json").write_text(text)
    with pytest.raises(InputError, match="not a record of a base|not readable as JSON"):
        load_base("x", tmp_path / "bases", tmp_path)
    with pytest.raises(InputError, match="no base"):
        load_base("../bases/x", tmp_path / "bases", tmp_path)


def test_records_of_before_are_read_and_of_later_refused(folder, tmp_path):
    imported(folder[0], tmp_path)
    path = tmp_path / "bases" / "mine.json"
    record = json.loads(path.read_text())
    assert (record["format"], record["family"]) == (2, "infinity")
    before = {k: v for k, v in record.items() if k not in ("format", "family")}
    path.write_text(json.dumps({**before, "sampling": {"guidance": 4.0, "temperature": 0.5}}))
    assert load_base("mine", tmp_path / "bases", tmp_path / "weights").config == CONFIG
    for newer in ({"format": 3}, {"family": "other"}):
        path.write_text(json.dumps({**record, **newer}))
        with pytest.raises(InputError, match="update arbooth"):
            read_record(path)


def test_an_unknown_base_says_how_to_get_it(tmp_path):
    with pytest.raises(InputError, match="arbooth base import PATH --name infinity-2b"):
        load_base("infinity-2b", tmp_path / "bases", tmp_path)


def test_weights_are_memory_mapped_not_copied(tmp_path):
    import os

    torch.save({"w": torch.zeros(64, 2**18)}, tmp_path / "big.pth")  # 64 MiB
    resident = lambda: int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")  # noqa: E731, SIM115
    before = resident()
    state = read_weights(tmp_path / "big.pth")
    assert resident() - before < 16 * 2**20
    assert state["w"].shape == (64, 2**18)


def test_git_leaves_the_embedded_files_line_ends_alone():
    import subprocess

    asked = ["git", "check-attr", "text", "arbooth/embedded/base.json", "arbooth/embedded/text/tokenizer.json"]
    done = subprocess.run(asked, cwd=EMBEDDED.parent.parent, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("this is no git checkout")
    assert done.stdout.count("text: unset") == 2


def test_the_embedded_base_is_whole_and_small(tmp_path):
    base = load_base("embedded")
    for part in ("transformer", "autoencoder", "text"):
        base.verified(part)
    assert sum(p.stat().st_size for p in EMBEDDED.rglob("*") if p.is_file()) < 60e6
    encoder = load_text_encoder(base)
    assert encoder.width == base.config.text_width
    assert encoder.unknown_words("a <S*> zeppelin on the beach") == ["zeppelin"]


def test_a_level_embedding_before_every_chunk_is_another_network_of_the_same_files(folder, tmp_path):
    where = folder[0]
    plain = import_base(where, "plain", tmp_path / "bases", tmp_path / "weights")
    every = import_base(where, "every", tmp_path / "bases", tmp_path / "weights", level_embedding="every-chunk")
    assert every.hash != plain.hash and not load_transformer(every).config.level_embedding_first_only
    assert load_base("every", tmp_path / "bases", tmp_path / "weights").hash == every.hash
    with pytest.raises(InputError, match="first-block or every-chunk"):
        import_base(where, "odd", tmp_path / "bases", tmp_path / "weights", level_embedding="some")


def test_the_decoder_in_bfloat16_is_within_one_step_of_a_byte_almost_everywhere():
    """On drawings of every kind of scene, painted by the base itself."""
    base = load_base("embedded")
    net, encoder, quantizer = load_transformer(base), load_text_encoder(base), quantizer_of(base)
    prompts = ["a photo of dog in the snow", "a car on the beach", "a cat at night", "a photo of cup in the city"]
    codes = []
    for index, prompt in enumerate(prompts * 2):
        features = encoder.encode(prompt).features
        text = Text(features[None], [len(features)])
        codes.append(sample(net, quantizer, text, Sampling(3.0, 0.5, 900, 0.97), [generator(0, index)]).codes)
    whole, exact, half = (
        load_autoencoder(base),
        load_autoencoder(base, only="decoder"),
        load_autoencoder(base, compute="bfloat16", only="decoder"),
    )
    with torch.no_grad():
        expected, same, near = (to_uint8(net.decode(torch.cat(codes))).int() for net in (whole, exact, half))
    assert (same - expected).abs().max() <= 1
    assert ((near - expected).abs() > 1).float().mean() < 0.0015 and (near - expected).abs().max() <= 6
