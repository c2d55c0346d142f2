"""The results page: blocks are renewed from measured files, prose stays."""

import pytest

from arbooth.benchmark.page import value, write_results
from arbooth.data.files import write_json, write_table
from arbooth.errors import InputError
from tests.conftest import ROOT


def number(mean):
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "subjects": {"a": mean - 0.1, "b": mean + 0.1}}


def reversed_number(mean):
    """The same subjects in the other order."""
    own = number(mean)
    return {**own, "subjects": dict(reversed(own["subjects"].items()))}


MEASURED = {
    "naive": {"identity": number(0.5), "drift": number(0.9)},
    "arbooth": {"identity": reversed_number(0.8), "drift": number(0.1)},
    "floor": {"identity": number(0.2)},
    "ceiling": {"identity": number(0.9)},
}


@pytest.fixture
def page(tmp_path):
    rows = [{"setting": name, "metrics": metrics} for name, metrics in MEASURED.items()]
    write_json(tmp_path / "mini" / "results" / "methods.json", rows)
    page = tmp_path / "results.md"
    page.write_text(
        "# Prose\n<!-- table mini/methods: way identity, drift -->\nold\n<!-- end -->\nmore\n"
        "<!-- plot mini/methods: identity -->\n<!-- end -->\n<!-- plot mini/methods: drift -->\n<!-- end -->\nlast\n"
    )
    return page


def test_blocks_are_renewed_and_prose_stays(page):
    assert write_results(page, page.parent) == 3
    text = page.read_text()
    assert text.startswith("# Prose\n") and "\nmore\n" in text and text.endswith("last\n") and "old" not in text
    assert text.index("| naive | 0.429 (") < text.index("| arbooth | 0.857 (") < text.index("| ceiling | 1.000 (")
    assert "0.900 (0.800 to 1.000) |" in text
    for metric in ("identity", "drift"):
        assert f"![methods: {metric}](results/mini-methods-{metric}.png)" in text
        assert (page.parent / "results" / f"mini-methods-{metric}.png").read_bytes()[:4] == b"\x89PNG"
    write_results(page, page.parent)
    assert page.read_text() == text


def test_the_way_from_floor_to_ceiling():
    way = value(MEASURED, "arbooth", "way identity")
    assert way["mean"] == pytest.approx(6 / 7)
    assert way["low"] <= way["mean"] <= way["high"]
    assert value(MEASURED, "arbooth", "identity") == number(0.8)
    assert value(MEASURED, "floor", "drift") is None
    with pytest.raises(InputError, match="no way in 'drift'"):
        value(MEASURED, "naive", "way drift")


def test_the_difference_from_another_setting_is_paired():
    difference = value(MEASURED, "arbooth", "identity vs naive")
    assert difference == {"mean": pytest.approx(0.3), "low": pytest.approx(0.3), "high": pytest.approx(0.3)}
    uneven = {**MEASURED, "photos-8": {"identity": {"mean": 0.6, "subjects": {"a": 0.9, "b": 0.3}}}}
    difference = value(uneven, "photos-8", "identity vs naive")
    assert difference == {"mean": pytest.approx(0.1), "low": pytest.approx(-0.3), "high": pytest.approx(0.5)}
    way = value(MEASURED, "arbooth", "way identity vs naive")
    assert way["mean"] == pytest.approx(3 / 7)
    assert value(MEASURED, "floor", "drift vs naive") is None
    other = {**MEASURED, "late": {"identity": {"mean": 0.5, "subjects": {"c": 0.5}}}}
    with pytest.raises(InputError, match="on other subjects"):
        value(other, "late", "identity vs naive")
    with pytest.raises(InputError, match="no setting 'paper'"):
        value(MEASURED, "naive", "identity vs paper")


def test_tables_of_analyses_are_shown_by_column(page):
    write_table(
        page.parent / "mini" / "results" / "layers.csv", [{"block": 0, "kind": "feed_forward", "change": 0.123456}]
    )
    page.write_text("<!-- csv mini/layers: kind, change -->\n<!-- end -->")
    write_results(page, page.parent)
    assert "| kind | change |\n|---|---|\n| feed_forward | 0.123 |\n" in page.read_text()
    page.write_text("<!-- csv mini/layers: speed -->\n<!-- end -->")
    with pytest.raises(InputError, match="no column 'speed'"):
        write_results(page, page.parent)
    page.write_text("<!-- csv mini/scales: kind -->\n<!-- end -->")
    with pytest.raises(InputError, match="arbooth analyze scales"):
        write_results(page, page.parent)


def test_a_row_a_subject(page):
    page.write_text(
        "<!-- subjects mini/methods: identity of naive, identity of arbooth, drift of arbooth -->\n<!-- end -->"
    )
    write_results(page, page.parent)
    assert "| a | 0.400 | 0.700 | 0.000 |\n| b | 0.600 | 0.900 | 0.200 |" in page.read_text()
    page.write_text("<!-- subjects mini/methods: drift of floor -->\n<!-- end -->")
    with pytest.raises(InputError, match="'drift of floor' was not measured"):
        write_results(page, page.parent)


def test_the_page_in_the_repo_is_what_its_files_say(tmp_path):
    page, plots = tmp_path / "results.md", lambda folder: {path.name for path in (folder / "results").glob("*")}
    page.write_bytes((ROOT / "docs" / "results.md").read_bytes())
    assert write_results(page, ROOT / "benchmarks") == page.read_text().count("<!-- end -->")
    assert page.read_bytes() == (ROOT / "docs" / "results.md").read_bytes()
    assert plots(tmp_path) == plots(ROOT / "docs")


def test_a_block_without_its_end_is_refused_and_nothing_is_lost(page):
    page.write_text(page.read_text().replace("old\n<!-- end -->\n", ""))
    before = page.read_text()
    with pytest.raises(InputError, match="without its"):
        write_results(page, page.parent)
    assert page.read_text() == before


@pytest.mark.parametrize("mark", ["<!-- table methods: identity -->", "<!-- tabel mini/methods: identity -->"])
def test_a_misspelt_mark_is_refused(page, mark):
    page.write_text(f"{mark}\nold\n<!-- end -->\n")
    with pytest.raises(InputError, match="which is none of table"):
        write_results(page, page.parent)


def test_what_was_not_measured_is_named(page):
    page.write_text("<!-- table mini/layers: drift -->\n<!-- end -->")
    with pytest.raises(InputError, match="layers.json is not there: run `arbooth benchmark"):
        write_results(page, page.parent)
    page.write_text("<!-- table mini/methods: speed -->\n<!-- end -->")
    with pytest.raises(InputError, match="no setting has the metric 'speed'"):
        write_results(page, page.parent)
    with pytest.raises(InputError, match="is not there"):
        write_results(page.parent / "nothing.md", page.parent)
