import torch

from arbooth.method.seeds import generator


def test_draws_depend_on_seed_and_names_alone():
    draw = lambda *names: torch.rand(3, generator=generator(*names)).tolist()  # noqa: E731
    assert draw(1, "paint", "a cat", 0) == draw(1, "paint", "a cat", 0)
    assert len({tuple(draw(*n)) for n in [(1, "a", 0), (2, "a", 0), (1, "b", 0), (1, "a", 1), (1, "a0")]}) == 5
