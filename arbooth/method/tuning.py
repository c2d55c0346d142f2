"""Kinds of tuning: how what is trained hangs on a network. Full tuning is the one kind so far.

A kind is a class with the methods of `FullTuning`; `KINDS` names them, adapters carry the name, and nothing else in
the project asks which kind it deals with. Tensors are those of an adapter file, by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from arbooth.method.layers import select_parameters
from arbooth.model.transformer import DTYPES, Transformer, kept_type

Tensors = Mapping[str, Tensor]


class FullTuning:
    """The weights themselves are trained, and an adapter replaces them."""

    def attach(self, net: Transformer, layers: tuple[str, ...]) -> dict[str, nn.Parameter]:
        """Freeze the network, hang on it what is trained of these layers, and list that.

        Raises:
            ValueError: a layer is unknown, or matches nothing.
        """
        net.requires_grad_(False)
        trained: dict[str, nn.Parameter] = {}
        for name in select_parameters(net, layers):
            parameter = net.get_parameter(name)
            parameter.data = parameter.data.float()  # masters: small updates would round away in bfloat16
            trained[name] = parameter
        for parameter in trained.values():
            parameter.requires_grad_(True)
        return trained

    def saved(self, trained: Tensors, compute: str) -> dict[str, Tensor]:
        """What an adapter holds of trained values, on the CPU, in the types in which they are used."""
        return {name: value.to(kept_type(name, value, compute)).cpu() for name, value in trained.items()}

    def check(self, tensors: Tensors, net: Transformer) -> None:
        """Raises ValueError: names or shapes that the network lacks."""
        shapes = {name: parameter.shape for name, parameter in net.named_parameters()}
        for name, value in tensors.items():
            if shapes.get(name) != value.shape or value.dtype not in DTYPES.values():
                raise ValueError(f"{name} {tuple(value.shape)} of {value.dtype}, which this base lacks")

    @contextmanager
    def applied(self, tensors: Tensors, net: Transformer) -> Iterator[None]:
        """The network with the tensors in effect, and afterwards without, bit for bit."""
        parameters = dict(net.named_parameters())
        before = {name: parameters[name].data for name in tensors}
        try:
            for name, value in tensors.items():
                parameters[name].data = value.to(before[name].device, before[name].dtype)
            yield
        finally:
            for name, value in before.items():
                parameters[name].data = value

    def merge(self, tensors: Tensors, net: Transformer) -> None:
        """Make the tensors part of the network for good.

        Raises:
            ValueError: they do not fit, or are not finite.
        """
        self.check(tensors, net)
        check_finite(tensors)
        with torch.no_grad():
            for name, value in tensors.items():
                net.get_parameter(name).copy_(value)


KINDS = {"full": FullTuning()}


def check_finite(tensors: Tensors) -> None:
    """Raises ValueError: a tensor holds a number that is not finite."""
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"numbers that are not finite in {name}")
