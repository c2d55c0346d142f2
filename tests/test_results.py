"""The results page: blocks are renewed from measured files, prose stays."""

import json

import pytest

from arbooth.errors import InputError
from arbooth.results import value, write_results


def number(mean):
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "subjects": {}}


@pytest.fixture
def page(tmp_path):
    (tmp_path / "results").mkdir()
    measured = {
        "naive": {"identity": number(0.5), "drift": number(0.9)},
        "arbooth": {"identity": number(0.8), "drift": number(0.1)},
        "floor": {"identity": number(0.2)},
        "ceiling": {"identity": number(0.9)},
    }
    (tmp_path / "results" / "methods.json").write_text(json.dumps(measured))
    page = tmp_path / "results.md"
    page.write_text(
        "# Prose\n<!-- table methods: way identity, drift -->\nold\n<!-- end -->\nmore\n"
        "<!-- plot methods: identity, drift -->\n<!-- end -->\nlast\n"
    )
    return page


def test_blocks_are_renewed_and_prose_stays(page):
    assert write_results(page, page.parent / "results") == 2
    text = page.read_text()
    assert text.startswith("# Prose\n") and "\nmore\n" in text and text.endswith("last\n") and "old" not in text
    assert "| naive | 0.429 (0.286 to 0.571) | 0.900 (0.800 to 1.000) |" in text
    assert "| ceiling | 1.000 (0.857 to 1.143) |  |" in text
    assert "![methods: identity, drift](results/methods.png)" in text
    assert (page.parent / "results" / "methods.png").read_bytes()[:4] == b"\x89PNG"
    write_results(page, page.parent / "results")
    assert page.read_text() == text


def test_the_way_from_floor_to_ceiling():
    measured = {"x": {"m": number(0.6)}, "floor": {"m": number(0.2)}, "ceiling": {"m": number(1.0)}}
    assert value(measured, "x", "way m")["mean"] == pytest.approx(0.5)
    assert value(measured, "x", "m") == number(0.6)
    assert value(measured, "x", "other") is None


def test_what_was_not_measured_is_named(page):
    page.write_text("<!-- table layers: drift -->\n<!-- end -->")
    with pytest.raises(InputError, match="study 'layers' is not measured"):
        write_results(page, page.parent / "results")
    page.write_text("<!-- table methods: speed -->\n<!-- end -->")
    with pytest.raises(InputError, match="no setting has the metric 'speed'"):
        write_results(page, page.parent / "results")
    with pytest.raises(InputError, match="is not there"):
        write_results(page.parent / "nothing.md", page.parent / "results")
