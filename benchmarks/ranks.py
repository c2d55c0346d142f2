"""What an adapter's rank costs: python -m benchmarks.ranks [--steps 10].

For each rank, whole matrices first: the size of an adapter and what fine-tuning holds of a device, told without weights for Infinity-2B
at 1024x1024 and its recipe with one photo a step; and a step of the embedded base with the defaults of params.yaml, the ranks in turn in
one process. What a rank is worth: `arbooth benchmark mini --study ranks`.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from arbooth.benchmark.timing import Bench, Clock
from arbooth.memory import GIB, Shape, features_of, finetune_peak, network, prior_of, prompt_of, released
from arbooth.method.fit import FitSettings, Fitting
from arbooth.method.tuning import KINDS
from arbooth.params import Params, load_params
from arbooth.progress import track
from arbooth.recipes import params_of
from arbooth.terminal import project_here

RANKS = (0, 2, 4, 8, 16, 32)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranks", description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10, help="timed ones of each rank")
    given = parser.parse_args()
    shape, params = released("infinity-2b", 1.0, "1M"), load_params("recipe", text=params_of("infinity-2b"))
    recipe = replace(FitSettings(**params.recipe), batch=1)
    seconds = step_seconds(given.steps)
    print(f"{torch.get_num_threads()} threads, mean of {given.steps} steps\n")
    print("| rank | adapter of 2B, MB | fine-tuning 2B, GiB | a step of the embedded base, ms |\n|---|---|---|---|")
    for rank in RANKS:
        ranked = replace(recipe, rank=rank)
        size, peak = adapter_bytes(shape, ranked, params), finetune_peak(shape, ranked, params.compute).total
        print(f"| {rank or 'whole'} | {size / 1e6:.1f} | {peak / GIB:.1f} | {1000 * seconds[rank]:.0f} |")


def adapter_bytes(shape: Shape, recipe: FitSettings, params: Params) -> int:
    """Of the tensors that an adapter's file holds; what stands around them is small."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        net, parts = network(shape, params.compute), (features_of(shape), [prompt_of(shape)], prior_of(shape, recipe))
        fitting = Fitting(net, shape.quantizer, *parts, recipe)
        saved = KINDS[recipe.kind].saved(fitting.parameters, params.compute).values()
        return sum(value.numel() * value.element_size() for value in [*saved, fitting.identifier])


def step_seconds(steps: int) -> dict[int, float]:
    project = project_here()
    params, device = project.params(), project.device
    base, recipe, clocks = project.base(params), FitSettings(**params.recipe), {rank: Clock(device) for rank in RANKS}
    benches = {rank: Bench(base, replace(recipe, rank=rank), params, device) for rank in RANKS}
    for number in track(range(steps + 1), "ranks"):
        for rank, clock in clocks.items():
            with clock.part("step"):
                benches[rank].cached_step(clock, number)
    return {rank: statistics.mean(clock.parts["step"][1:]) for rank, clock in clocks.items()}  # the first warms up


if __name__ == "__main__":
    main()
