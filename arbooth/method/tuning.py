"""Kinds of tuning: how what is trained hangs on a network.

A kind is a class with the methods of `FullTuning`; `KINDS` names them, adapters carry the name, and nothing else in
the project asks which kind it deals with. Tensors are those of an adapter file, by name.

Shape suffixes: O outputs and I inputs of a matrix, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from arbooth.errors import InputError
from arbooth.method.layers import select_parameters
from arbooth.method.seeds import generator
from arbooth.model.transformer import DTYPES, Transformer, kept_type

Tensors = Mapping[str, Tensor]
# Of a matrix `NAME.weight` in a low-rank adapter: NAME.weight.down [R,I], then NAME.weight.up [O,R].
DOWN, UP = ".down", ".up"


class FullTuning:
    """The weights themselves are trained, and an adapter replaces them."""

    def attach(
        self, net: Transformer, layers: tuple[str, ...], rank: int = 0, seed: int = 0
    ) -> dict[str, nn.Parameter]:
        """Freeze the network, hang on it what is trained of these layers, and list that.

        Args:
            rank, seed: of low-rank tuning alone.

        Raises:
            ValueError: a layer is unknown, or matches nothing.
            InputError: a rank that a matrix has not.
        """
        net.requires_grad_(False)
        return {name: self._trained(net, name) for name in select_parameters(net, layers)}

    def _trained(self, net: Transformer, name: str) -> nn.Parameter:
        parameter = net.get_parameter(name)
        parameter.data = parameter.data.float()  # masters: small updates would round away in bfloat16
        parameter.requires_grad_(True)
        return parameter

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
        """The network with the tensors in effect, and afterwards without, bit for bit.

        What they replace waits on the CPU, so that the device holds one of the two.
        """
        parameters, before = dict(net.named_parameters()), {}
        try:
            for name, value in tensors.items():
                own = parameters[name].data
                before[name] = (own.cpu(), own.device)
                parameters[name].data = value.to(own.device, own.dtype)
            yield
        finally:
            for name, (own, device) in before.items():
                parameters[name].data = own.to(device)

    def merge(self, tensors: Tensors, net: Transformer) -> None:
        """Make the tensors part of the network for good.

        Raises:
            ValueError: they do not fit, or are not finite.
        """
        self.check(tensors, net)
        check_finite(tensors)
        own = dict(net.named_parameters())
        with torch.no_grad():
            for name, value in self.become(tensors, own):
                own[name].copy_(value)

    def become(self, tensors: Tensors, own: Tensors) -> Iterator[tuple[str, Tensor]]:
        """What the parameters that they change are with them; `own` holds what those are without, by name."""
        yield from tensors.items()


class LowRankTuning(FullTuning):
    """Every matrix stays, and a product of two narrow ones is added to it (Hu et al., 2021, without a scaling factor).

    The vectors of the same layers, a thousandth of all, are trained as they are.
    """

    def attach(
        self, net: Transformer, layers: tuple[str, ...], rank: int = 0, seed: int = 0
    ) -> dict[str, nn.Parameter]:
        net.requires_grad_(False)
        trained: dict[str, nn.Parameter] = {}
        for name in select_parameters(net, layers):
            weight = net.get_parameter(name)
            if not _is_matrix(name, weight):
                trained[name] = self._trained(net, name)
                continue
            outputs, inputs = _checked_rank(rank, name, weight)
            down_RI = torch.randn(rank, inputs, generator=generator(seed, "low rank", name)) / math.sqrt(inputs)
            trained[name + DOWN] = nn.Parameter(down_RI.to(weight.device))
            trained[name + UP] = nn.Parameter(torch.zeros(outputs, rank, device=weight.device))
            _hang(net, name, trained[name + DOWN], trained[name + UP])
        return trained

    def check(self, tensors: Tensors, net: Transformer) -> None:
        super().check(_vectors(tensors), net)
        for name, (down_RI, up_OR) in _factors(tensors).items():
            layer = dict(net.named_modules()).get(name.removesuffix(".weight"))
            outputs, inputs = -1, -1
            if isinstance(layer, nn.Linear) and name.endswith(".weight"):
                outputs, inputs = layer.weight.shape
            fits = down_RI.ndim == up_OR.ndim == 2 and down_RI.shape[1] == inputs and up_OR.shape[0] == outputs
            if not fits or down_RI.shape[0] != up_OR.shape[1] or {down_RI.dtype, up_OR.dtype} - {*DTYPES.values()}:
                shapes = f"{tuple(down_RI.shape)} and {tuple(up_OR.shape)}"
                raise ValueError(f"factors of {name} with shapes {shapes}, which this base lacks")

    @contextmanager
    def applied(self, tensors: Tensors, net: Transformer) -> Iterator[None]:
        # A GPU would have to give away what the sums replace, and take it back; beside a CPU both have room.
        if net.device.type != "cpu":
            with self.hung(tensors, net):
                yield
            return
        own = dict(net.named_parameters())
        sums = {name: value.to(own[name].dtype) for name, value in self.become(tensors, own)}
        with super().applied(sums, net):
            yield

    @contextmanager
    def hung(self, tensors: Tensors, net: Transformer) -> Iterator[None]:
        """`applied` without new matrices: the products are added to what the layers do."""
        with ExitStack() as stack:
            stack.enter_context(super().applied(_vectors(tensors), net))
            for name, factors in _factors(tensors).items():
                weight = net.get_parameter(name)
                handle = _hang(net, name, *(factor.to(weight.device, weight.dtype) for factor in factors))
                stack.callback(handle.remove)
            yield

    def become(self, tensors: Tensors, own: Tensors) -> Iterator[tuple[str, Tensor]]:
        yield from _vectors(tensors).items()
        for name, (down_RI, up_OR) in _factors(tensors).items():
            weight_OI = own[name].detach()
            yield name, weight_OI.float() + up_OR.to(weight_OI.device).float() @ down_RI.to(weight_OI.device).float()


def _is_matrix(name: str, value: Tensor) -> bool:
    return value.ndim == 2 and name.endswith(".weight")


def _checked_rank(rank: int, name: str, weight: Tensor) -> tuple[int, int]:
    """The matrix's outputs and inputs, where it has that rank."""
    outputs, inputs = weight.shape
    if not 0 < rank <= min(outputs, inputs):
        raise InputError(f"rank {rank} does not fit {name}, which is {outputs}x{inputs}: lower it")
    return outputs, inputs


def _hang(net: Transformer, name: str, down_RI: Tensor, up_OR: Tensor) -> RemovableHandle:
    """Add the product of two factors to what a linear layer does."""

    def add(_module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + F.linear(F.linear(given[0], down_RI), up_OR)

    return net.get_submodule(name.removesuffix(".weight")).register_forward_hook(add)


def _vectors(tensors: Tensors) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if not name.endswith((DOWN, UP))}


def _factors(tensors: Tensors) -> dict[str, tuple[Tensor, Tensor]]:
    """Name of a matrix -> its factors.

    Raises:
        ValueError: one comes without the other.
    """
    names = {name.removesuffix(DOWN).removesuffix(UP) for name in tensors if name.endswith((DOWN, UP))}
    for name in names:
        if name + DOWN not in tensors or name + UP not in tensors:
            raise ValueError(f"one factor of {name} without the other")
    return {name: (tensors[name + DOWN], tensors[name + UP]) for name in sorted(names)}


def shrunk(tensors: Tensors, net: Transformer, rank: int, tell: Callable[[str, float], None]) -> dict[str, Tensor]:
    """Low-rank tensors nearest to full ones: the largest singular values of every matrix's change.

    Args:
        tensors: of an adapter that full tuning made.
        net: the base.
        tell: is handed every matrix's name and the share of its change, in Frobenius norm, that is lost.

    Raises:
        InputError: the rank is larger than a matrix.
    """
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        weight = net.get_parameter(name)
        if not _is_matrix(name, weight):
            found[name] = value
            continue
        _checked_rank(rank, name, weight)
        change_OI = value.to(weight.device).float() - weight.detach().float()
        left, singular, right = torch.linalg.svd(change_OI, full_matrices=False)
        root = singular[:rank].sqrt()
        found[name + DOWN] = (root[:, None] * right[:rank]).to(value.dtype).cpu().contiguous()
        found[name + UP] = (left[:, :rank] * root).to(value.dtype).cpu().contiguous()
        tell(name, float(singular[rank:].norm() / singular.norm().clamp(min=1e-12)))
    return found


KINDS = {"full": FullTuning(), "low-rank": LowRankTuning()}


def check_finite(tensors: Tensors) -> None:
    """Raises ValueError: a tensor holds a number that is not finite."""
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"numbers that are not finite in {name}")
