"""Scale schedules: the coarse-to-fine list of token maps that one picture is painted on.

Source: Infinity (Han et al., 2024), section 3.1, and the table of its release.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

Map = tuple[int, int]

# Height over width -> the 13 maps (h, w) of about one million pixels at stride 16.
_ONE_MEGAPIXEL: dict[float, str] = {
    1.000: "1,1 2,2 4,4 6,6 8,8 12,12 16,16 20,20 24,24 32,32 40,40 48,48 64,64",
    1.250: "1,1 2,2 3,3 5,4 10,8 15,12 20,16 25,20 30,24 35,28 45,36 55,44 70,56",
    1.333: "1,1 2,2 4,3 8,6 12,9 16,12 20,15 24,18 28,21 36,27 48,36 60,45 72,54",
    1.500: "1,1 2,2 3,2 6,4 9,6 15,10 21,14 27,18 33,22 39,26 48,32 63,42 78,52",
    1.750: "1,1 2,2 3,3 7,4 11,6 14,8 21,12 28,16 35,20 42,24 56,32 70,40 84,48",
    2.000: "1,1 2,2 4,2 6,3 10,5 16,8 22,11 30,15 38,19 46,23 60,30 74,37 90,45",
    2.500: "1,1 2,2 5,2 10,4 15,6 20,8 25,10 30,12 40,16 50,20 65,26 80,32 100,40",
    3.000: "1,1 2,2 6,2 9,3 15,5 21,7 27,9 36,12 45,15 54,18 72,24 90,30 111,37",
}
# Name of a pixel count -> how many of the 13 maps it uses.
PIXEL_COUNTS = {"0.06M": 7, "0.25M": 10, "0.60M": 12, "1M": 13}


def _maps(ratio: float) -> tuple[Map, ...]:
    if ratio >= 1:
        rows = _ONE_MEGAPIXEL[ratio].split()
        return tuple((int(h), int(w)) for h, w in (row.split(",") for row in rows))
    return tuple((w, h) for h, w in _maps(round_ratio(1 / ratio)))


def round_ratio(ratio: float) -> float:
    """The listed height/width ratio nearest to `ratio`, inverse ratios included."""
    if ratio <= 0:
        raise ValueError(f"an aspect ratio must be positive, got {ratio}")
    listed = [r for tall in _ONE_MEGAPIXEL for r in ((tall,) if tall == 1 else (tall, 1 / tall))]
    return min(listed, key=lambda r: max(r / ratio, ratio / r))


@dataclass(frozen=True)
class Schedule:
    """Token maps (h, w), coarse to fine, and the grid that rotary positions are measured on.

    Args:
        maps: the token maps in the order in which they are painted.
        reference: (H, W) of the last map of the 1M schedule with the same aspect ratio; positions
            of every map are stretched to it, so that a model sees one coordinate system at any
            resolution.

    Raises:
        ValueError: a map is empty or smaller than the one before it.
    """

    maps: tuple[Map, ...]
    reference: Map

    def __post_init__(self) -> None:
        if not self.maps:
            raise ValueError("a schedule needs at least one token map")
        for before, after in zip(((1, 1), *self.maps), self.maps):
            if after[0] < before[0] or after[1] < before[1]:
                raise ValueError(f"token maps must grow from 1x1: {after} follows {before}")

    @classmethod
    def named(cls, ratio: float = 1.0, pixels: str = "1M") -> Schedule:
        """The released schedule for a height/width ratio and a pixel count (0.06M to 1M)."""
        if pixels not in PIXEL_COUNTS:
            raise ValueError(f"unknown pixel count {pixels!r}: one of {', '.join(PIXEL_COUNTS)}")
        maps = _maps(round_ratio(ratio))
        return cls(maps[: PIXEL_COUNTS[pixels]], maps[-1])

    @classmethod
    def custom(cls, maps: list[list[int]] | tuple[Map, ...]) -> Schedule:
        """A schedule of one's own; positions refer to the 1M grid of the nearest listed ratio."""
        sizes = tuple((int(h), int(w)) for h, w in maps)
        if not sizes:
            raise ValueError("a schedule needs at least one token map")
        return cls(sizes, _maps(round_ratio(sizes[-1][0] / sizes[-1][1]))[-1])

    def __len__(self) -> int:
        return len(self.maps)

    @property
    def last(self) -> Map:
        """(h, w) of the finest map."""
        return self.maps[-1]

    @cached_property
    def length(self) -> int:
        """L, the number of tokens over all scales."""
        return sum(h * w for h, w in self.maps)

    @cached_property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """(start, end) of each scale in the token sequence."""
        spans, start = [], 0
        for h, w in self.maps:
            spans.append((start, start + h * w))
            start += h * w
        return tuple(spans)

    def first(self, scales: int) -> Schedule:
        """The coarsest `scales` maps: no token sees a finer one, so what they give is the same."""
        return Schedule(self.maps[:scales], self.reference)

    def doubled(self) -> Schedule:
        """The tokenizer's schedule under spatial patchify: 2x2 codes to a token."""
        (rows, columns) = self.reference
        return Schedule(tuple((2 * h, 2 * w) for h, w in self.maps), (2 * rows, 2 * columns))
