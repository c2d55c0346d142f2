"""Selective layer tuning: which parameters of the transformer are trained (ARBooth, section 3.2)."""

from __future__ import annotations

from torch import nn

from arbooth.model.transformer import Transformer

# Layer kind -> prefixes of parameter names inside a block. Norms, embeddings and heads have none.
KINDS = {
    "self_attention": ("self_attention.",),
    "cross_attention": ("cross_attention.",),
    "feed_forward": ("feed_forward.",),
    "cross_attention.key_value": ("cross_attention.key_value.", "cross_attention.value_bias"),
}


def select_parameters(net: Transformer, kinds: tuple[str, ...]) -> list[str]:
    """Names of the parameters of the given layer kinds, in the network's order.

    Args:
        kinds: any subset of `KINDS`; empty means that the subject token alone is trained.

    Raises:
        ValueError: a kind is unknown, or matches no parameter of this network.
    """
    chosen: set[str] = set()
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"unknown layer kind {kind!r}: one of {', '.join(KINDS)}")
        own = {name for name, _ in net.named_parameters() if _kind_matches(name, kind)}
        if not own:
            raise ValueError(f"layer kind {kind!r} matches no parameter of this network")
        chosen |= own
    return [name for name, _ in net.named_parameters() if name in chosen]


def _kind_matches(name: str, kind: str) -> bool:
    parts = name.split(".", 2)
    return parts[0] == "blocks" and parts[2].startswith(KINDS[kind])


def prepare(net: Transformer, names: list[str]) -> dict[str, nn.Parameter]:
    """Freeze the network but for `names`, which become float32 master weights. Returns those."""
    net.requires_grad_(False)
    trained = {}
    for name in names:
        parameter = net.get_parameter(name)
        parameter.data = parameter.data.float()
        trained[name] = parameter.requires_grad_(True)
    return trained
