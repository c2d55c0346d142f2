"""Our parameter names to those of the public checkpoints, and back.

Every rule is a pair of names; a name that no rule knows is an error where it is met.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from arbooth.model.config import TransformerConfig

# Ours -> public, outside the blocks.
_TRANSFORMER = {
    "no_text": "cfg_uncond",
    "text_norm.weight": "text_norm.weight",
    "text_pooling.query": "text_proj_for_sos.ca.mat_q",
    "text_pooling.key_value.weight": "text_proj_for_sos.ca.mat_kv.weight",
    "text_pooling.value_bias": "text_proj_for_sos.ca.v_bias",
    "text_pooling.output.weight": "text_proj_for_sos.ca.proj.weight",
    "text_pooling.output.bias": "text_proj_for_sos.ca.proj.bias",
    "text_memory.0.weight": "text_proj_for_ca.0.weight",
    "text_memory.0.bias": "text_proj_for_ca.0.bias",
    "text_memory.2.weight": "text_proj_for_ca.2.weight",
    "text_memory.2.bias": "text_proj_for_ca.2.bias",
    "start": "pos_start",
    "level.weight": "lvl_embed.weight",
    "token.weight": "word_embed.weight",
    "token.bias": "word_embed.bias",
    "modulation.weight": "shared_ada_lin.1.weight",
    "modulation.bias": "shared_ada_lin.1.bias",
    "head_modulation.weight": "head_nm.ada_lin.1.weight",
    "head_modulation.bias": "head_nm.ada_lin.1.bias",
    "head.weight": "head.weight",
    "head.bias": "head.bias",
}
# Ours -> public, inside a block.
_BLOCK = {
    "modulation": "ada_gss",
    "self_attention.query_key_value.weight": "sa.mat_qkv.weight",
    "self_attention.query_bias": "sa.q_bias",
    "self_attention.value_bias": "sa.v_bias",
    "self_attention.log_temperature": "sa.scale_mul_1H11",
    "self_attention.output.weight": "sa.proj.weight",
    "self_attention.output.bias": "sa.proj.bias",
    "cross_norm.weight": "ca_norm.weight",
    "cross_norm.bias": "ca_norm.bias",
    "cross_attention.query.weight": "ca.mat_q.weight",
    "cross_attention.query.bias": "ca.mat_q.bias",
    "cross_attention.key_value.weight": "ca.mat_kv.weight",
    "cross_attention.value_bias": "ca.v_bias",
    "cross_attention.output.weight": "ca.proj.weight",
    "cross_attention.output.bias": "ca.proj.bias",
    "feed_forward.expand.weight": "ffn.fc1.weight",
    "feed_forward.expand.bias": "ffn.fc1.bias",
    "feed_forward.contract.weight": "ffn.fc2.weight",
    "feed_forward.contract.bias": "ffn.fc2.bias",
}
# Constant buffers that carry no information: the zero bias of keys, the quantiser's powers of two.
_CONSTANT = re.compile(r"(zero_k_bias|lfq\.mask|lfq\.codebook|attn_bias_for_masking|lvl_1L)$")


def public_transformer_names(config: TransformerConfig, blocks: str = "chunks") -> dict[str, str]:
    """Public name -> our name, for `chunks` (block_chunks.i.module.j) or `flat` (blocks.i) files."""
    per_chunk = config.depth // config.chunks
    names = {public: ours for ours, public in _TRANSFORMER.items()}
    for index in range(config.depth):
        where = f"block_chunks.{index // per_chunk}.module.{index % per_chunk}"
        prefix = where if blocks == "chunks" else f"blocks.{index}"
        names.update({f"{prefix}.{public}": f"blocks.{index}.{ours}" for ours, public in _BLOCK.items()})
    return names


def public_autoencoder_names(ours: list[str]) -> dict[str, str]:
    """Public name -> our name of every autoencoder parameter."""
    return {_autoencoder_name(name): name for name in ours}


def _autoencoder_name(name: str) -> str:
    side, rest = name.split(".", 1)
    rest = re.sub(r"^levels\.(\d+)\.blocks\.", "down.\\1.block." if side == "encoder" else "up.\\1.block.", rest)
    rest = re.sub(r"^levels\.(\d+)\.resize\.conv", r"down.\1.downsample.conv.conv", rest)
    if side == "decoder":
        rest = rest.replace("down.", "up.").replace("downsample", "upsample")
    rest = re.sub(r"^middle\.(\d)\.", lambda m: f"mid.block_{int(m[1]) + 1}.", rest)
    rest = rest.replace("shortcut.", "nin_shortcut.conv.")
    rest = re.sub(r"(^|\.)(norm\d|norm_out)\.", r"\1\2.norm.", rest)
    rest = re.sub(r"(^|\.)(conv\d|conv_in|conv_out)\.", r"\1\2.conv.", rest)
    return f"{side}.{rest}"


def is_constant(public_name: str) -> bool:
    """Whether a public name is a buffer that the network can do without."""
    return bool(_CONSTANT.search(public_name))


def from_public(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """Rename a public state dict; constants are dropped.

    Raises:
        ValueError: a key is missing or unknown (the first few are named).
    """
    present = {key for key in state if not is_constant(key)}
    missing, unknown = sorted(set(names) - present), sorted(present - set(names))
    if missing or unknown:
        parts = [
            f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            for kind, keys in (("missing", missing), ("unknown", unknown))
            if keys
        ]
        raise ValueError(f"the weights do not fit this network: keys {' and '.join(parts)}")
    return {ours: state[public] for public, ours in names.items()}
