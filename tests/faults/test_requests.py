"""What clients of the served model send."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbooth.errors import InputError
from arbooth.registry.served import MOST, Request, read_requests
from tests.faults.harness import CASES

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=50), st.lists(st.floats(), max_size=3)
)
NAMES = st.one_of(st.sampled_from(list(Request.model_fields)), st.text(max_size=10))
ROWS = st.one_of(st.dictionaries(NAMES, VALUES, max_size=6), VALUES)


@settings(max_examples=5 * CASES, deadline=None)
@given(st.one_of(st.lists(ROWS, max_size=5), ROWS))
def test_any_request_is_valid_or_refused_in_one_short_sentence(body):
    try:
        requests = read_requests(body)
    except InputError as error:
        assert len(str(error)) < 300 and "\n" not in str(error)
        return
    assert 1 <= sum(request.n for request in requests) <= MOST
    assert all(isinstance(request.prompt, str) for request in requests)


def test_many_bad_requests_cost_nothing():
    with pytest.raises(InputError, match="100000 requests"):
        read_requests([{"prompt": 3}] * 100_000)
