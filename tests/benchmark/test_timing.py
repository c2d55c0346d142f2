import json

import pytest

from tests.conftest import arbooth

pytestmark = pytest.mark.heavy


def test_both_ways_are_timed_side_by_side_with_their_parts(project):
    done = arbooth("bench", "--steps", "2", "--json", "bench.json", cwd=project)
    numbers = json.loads((project / "bench.json").read_text())
    assert set(numbers["cached"]) == {"forward", "backward", "optimizer", "step"}
    assert set(numbers["published"]) >= {
        "encode photos",
        "encode prompts",
        "sample the teacher",
        "forward",
        "backward",
        "step",
    }
    for kind in ("cached", "published"):
        parts = sum(v for k, v in numbers[kind].items() if k != "step")
        assert parts <= 1.5 * numbers[kind]["step"]
    assert numbers["speedup"] == pytest.approx(numbers["published"]["step"] / numbers["cached"]["step"])
    assert f"{numbers['speedup']:.2f} times faster" in done.stdout
    images = [numbers[name] for name in ("seconds_per_image", "seconds_per_class_image", "seconds_per_image_published")]
    assert images[0] > 1.2 * images[1]  # prompt guidance computes two rows more
