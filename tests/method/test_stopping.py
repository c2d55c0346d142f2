"""When a run without a number of steps ends."""

import pytest

from arbooth.method.stopping import ALIKE, DRIFT, DRIFTS, PATIENCE, SOUND, Stopping


def ends(validation, prior=()):
    """The look, from 1, at which a run ends and why; None if it does not."""
    stopping = Stopping(None)
    for k, loss in enumerate(validation, 1):
        stopping.validation[k] = loss
        if prior:
            stopping.prior[k] = prior[k - 1]
        if reason := stopping.verdict():
            return k, reason.split()[-1]
    return None


def test_it_goes_on_while_the_views_are_learned():
    assert ends([0.9**k for k in range(40)]) is None
    assert ends([1.0, 0.9]) is None


@pytest.mark.parametrize("last", [0.5, 0.499, 0.7])
def test_it_ends_where_they_are_not_learned_any_more(last):
    assert ends([1.0, 0.7, 0.5, *[last] * 9]) == (3 + PATIENCE, "alike")


def test_one_good_look_among_bad_ones_is_waited_for():
    assert ends([1.0, 0.7, 0.71, 0.6, 0.61, 0.5, 0.51, 0.4]) is None


def test_it_ends_where_the_class_begins_to_drift():
    falling = [0.9**k for k in range(8)]
    sound = [0.06, 0.04, 0.03, 0.03, 0.035, 0.03, 0.04, 0.03]
    assert ends(falling, sound) is None
    assert ends(falling, [*sound[:5], DRIFT * 0.03 + 0.001, 0.2, 0.2]) == (6, "drift")
    assert ends(falling, [0.001, *[SOUND] * 7]) is None  # far from drifting, however it compares


def test_a_run_that_ends_soon_is_ended_at_once_where_it_drifts():
    stopping = Stopping(None)
    stopping.validation, stopping.prior = dict.fromkeys(range(PATIENCE + 1), 1.0), {0: SOUND}
    assert stopping.verdict() == ALIKE
    stopping.validation[9] = 0.5  # better after all, but it was said
    assert stopping.verdict(ALIKE) == ALIKE
    stopping.prior[9] = 9 * SOUND
    assert stopping.verdict(ALIKE) == DRIFTS == stopping.verdict()
