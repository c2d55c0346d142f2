"""What a GPU makes of a published network, without its weights: python -m benchmarks.card [--size infinity-2b] [--pixels 1M].

Random weights, one photo and one class sample a step with recomputation, one picture with guidance on every scale. Beside
the seconds: the peak of the device's memory and what `arbooth bench --memory` tells of it, and the share of what the card
reaches on one large product of matrices (operations as they are run, recomputed ones included).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from arbooth.memory import (
    GIB,
    Peak,
    Shape,
    Undrawn,
    autoencoder_of,
    features_of,
    finetune_peak,
    generate_peak,
    network,
    painted,
    prior_of,
    prompt_of,
    released,
)  # fmt: skip
from arbooth.method.fit import FitSettings
from arbooth.model.autoencoder import to_uint8
from arbooth.model.sampling import Sampling
from arbooth.params import load_params
from arbooth.recipes import params_of

SIDE = 8192
COMPUTE = "bfloat16"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.card", description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="infinity-2b")
    parser.add_argument("--pixels", default="1M")
    parser.add_argument("--runs", type=int, default=3, help="timed ones, after one that warms up")
    parser.add_argument("--compile", action="store_true", help="compiled blocks and FlexAttention too: minutes")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device here")
    shape, params = released(given.size, 1.0, given.pixels), load_params("recipe", text=params_of("infinity-2b"))
    whole = replace(FitSettings(**params.recipe), batch=1, optimizer="adamw", rank=0)
    low = replace(whole, rank=16)
    best = reached()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}: {best / 1e12:.0f} TFLOP/s of {COMPUTE} products")
    height, width = shape.picture
    print(f"{given.size} at {width}x{height}, {shape.schedule.length} tokens, median of {given.runs}\n")
    print("| | seconds | the first | peak GiB | told | TFLOP | of the card's own |\n|---|---|---|---|---|---|---|", flush=True)
    line("a step, whole matrices", step_of(shape, whole), finetune_peak(shape, whole, COMPUTE), best, given.runs)
    told = finetune_peak(shape, low, COMPUTE)
    line("a step, rank 16", step_of(shape, low), told, best, given.runs)
    if given.compile:
        line("a step, rank 16, FlexAttention", step_of(shape, low, attention="flex"), told, None, given.runs)
        line("a step, rank 16, compiled", step_of(shape, low, compiled=True), told, None, given.runs)
    sampling = Sampling(4.0, 0.5, 900, 0.97)
    picture = lambda: picture_of(shape, sampling)  # noqa: E731
    line("a picture", picture(), generate_peak(replace(shape, text_bytes=0), COMPUTE, sampling, 1), best, given.runs)
    line("its decoder alone", decoder_of(shape), None, best, given.runs)


def reached() -> float:
    """Operations a second of one product of matrices."""
    left, right = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    seconds = statistics.median(timed(lambda: left @ right) for _ in range(10))
    return 2 * SIDE**3 / seconds


def line(name: str, run: Callable[[], object], told: Peak | None, best: float | None, runs: int) -> None:
    torch.cuda.reset_peak_memory_stats()
    first = timed(run)
    seconds = statistics.median(timed(run) for _ in range(runs))
    peak, tera, share = torch.cuda.max_memory_allocated() / GIB, "", ""
    if best is not None:
        with FlopCounterMode(display=False) as counter:
            run()
        tera, share = f"{counter.get_total_flops() / 1e12:.0f}", f"{counter.get_total_flops() / seconds / best:.0%}"
    guess = f"{told.total / GIB:.1f}" if told else ""
    print(f"| {name} | {seconds:.3f} | {first:.1f} | {peak:.1f} | {guess} | {tera} | {share} |", flush=True)


def timed(run: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def step_of(shape: Shape, recipe: FitSettings, attention: str = "scales", compiled: bool = False) -> Callable[[], object]:
    net = valued(network(shape, COMPUTE, "cuda"))
    if compiled:
        net.compile_blocks()
    parts = features_of(shape), [prompt_of(shape)], prior_of(shape, recipe), recipe, attention
    return Undrawn(net, shape.quantizer, *parts).step


def picture_of(shape: Shape, sampling: Sampling) -> Callable[[], object]:
    net, decoder = valued(network(shape, COMPUTE, "cuda")), valued(autoencoder_of(shape, "decoder", COMPUTE, "cuda"))

    @torch.no_grad()
    def paint() -> object:
        return to_uint8(decoder.decode(painted(shape, net, sampling, 1)))

    return paint


def decoder_of(shape: Shape) -> Callable[[], object]:
    decoder = valued(autoencoder_of(shape, "decoder", COMPUTE, "cuda"))
    codes = torch.zeros(1, shape.autoencoder.bits, *shape.quantizer.maps[-1], device="cuda")

    @torch.no_grad()
    def decode() -> object:
        return to_uint8(decoder.decode(codes))

    return decode


def valued(net):
    """Random weights; the memory under a network is what lay there."""
    draw = torch.Generator("cuda").manual_seed(0)
    for value in net.parameters():
        value.data.copy_(torch.randn(value.shape, generator=draw, device="cuda") * 0.02)
    return net


if __name__ == "__main__":
    main()
