"""Selective layer tuning: which parameters of the transformer are trained (ARBooth, section 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arbooth.model.transformer import Transformer

# Layer -> prefixes of parameter names inside a block. Norms, embeddings and heads have none.
LAYERS = {
    "self_attention": ("self_attention.",),
    "cross_attention": ("cross_attention.",),
    "feed_forward": ("feed_forward.",),
    "cross_attention.key_value": ("cross_attention.key_value.", "cross_attention.value_bias"),
}


# The layers that make up a block, without parts of one.
WHOLE_LAYERS = ("self_attention", "cross_attention", "feed_forward")


def select_parameters(net: Transformer, layers: tuple[str, ...]) -> list[str]:
    """Names of the parameters of the given layers, in the network's order.

    Args:
        layers: any subset of `LAYERS`; empty means that the identifier alone is trained.

    Raises:
        ValueError: a layer is unknown, or matches no parameter of this network.
    """
    chosen: set[str] = set()
    for layer in layers:
        if layer not in LAYERS:
            raise ValueError(f"unknown layer {layer!r}: one of {', '.join(LAYERS)}")
        matching = {name for name, _ in net.named_parameters() if _matches(name, layer)}
        if not matching:
            raise ValueError(f"layer {layer!r} matches no parameter of this network")
        chosen |= matching
    return [name for name, _ in net.named_parameters() if name in chosen]


def _matches(name: str, layer: str) -> bool:
    parts = name.split(".", 2)
    return parts[0] == "blocks" and parts[2].startswith(LAYERS[layer])
