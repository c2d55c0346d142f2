import pytest

from arbooth.model.schedule import PIXEL_COUNTS, Schedule, round_ratio


def test_square_megapixel_has_13_scales_and_10521_tokens():
    schedule = Schedule.named()
    assert len(schedule) == 13
    assert schedule.length == 10521
    assert schedule.last == schedule.reference == (64, 64)


@pytest.mark.parametrize("pixels", PIXEL_COUNTS)
@pytest.mark.parametrize("ratio", [1, 1.25, 1.333, 1.5, 1.75, 2, 2.5, 3])
def test_tall_and_wide_are_mirrors(ratio, pixels):
    tall, wide = Schedule.named(ratio, pixels), Schedule.named(1 / ratio, pixels)
    assert len(tall) == PIXEL_COUNTS[pixels]
    assert tall.maps == tuple((h, w) for w, h in wide.maps)
    assert tall.reference == wide.reference[::-1]


def test_smaller_pixel_counts_keep_the_megapixel_reference():
    assert Schedule.named(2.0, "0.06M").reference == (90, 45)


def test_ratio_is_rounded_to_the_nearest_listed_one():
    assert round_ratio(1.3) == 1.333
    assert round_ratio(0.34) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="positive"):
        round_ratio(0)


def test_spans_cover_the_sequence():
    schedule = Schedule.custom([[1, 1], [2, 2], [4, 4]])
    assert schedule.spans == ((0, 1), (1, 5), (5, 21))
    assert schedule.reference == (64, 64)
    assert schedule.doubled().maps == ((2, 2), (4, 4), (8, 8))


@pytest.mark.parametrize("maps", [[], [[2, 2], [1, 1]], [[0, 1]]])
def test_broken_schedules_are_refused(maps):
    with pytest.raises(ValueError):
        Schedule.custom(maps)


def test_unknown_pixel_count_is_named():
    with pytest.raises(ValueError, match="2M"):
        Schedule.named(1.0, "2M")
