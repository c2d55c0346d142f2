"""The world that the base is trained on, without its art: that is fetched by npm."""

import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pretrain.art import CLASSES, HELD_OUT, STYLES, Drawing, recolour
from pretrain.scenes import SCENES
from pretrain.words import build_tokenizer, drop_words, word_list
from pretrain.world import COLOURS, FREE, PLACES, SIZES, STUDIO, THING, View, World, caption


def blob(noun="cat"):
    image = Image.new("RGBA", (80, 60))
    ImageDraw.Draw(image).ellipse((5, 5, 75, 55), fill=(200, 120, 60, 255))
    return Drawing(f"test/{noun}", noun, image)


@pytest.mark.parametrize("scene", SCENES)
def test_scenes_repeat_with_their_generator_and_vary_without(scene):
    paint = lambda seed: np.asarray(SCENES[scene](np.random.default_rng(seed), 96))  # noqa: E731
    assert paint(0).shape == (96, 96, 3)
    assert np.array_equal(paint(0), paint(0))
    if scene != "on a white background":
        assert not np.array_equal(paint(0), paint(1))


def test_scenes_differ_from_each_other():
    means = {s: np.asarray(SCENES[s](np.random.default_rng(0), 32), float).reshape(-1, 3) for s in SCENES}
    names = list(means)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert np.abs(means[a] - means[b]).mean() > 8, (a, b)


def test_the_subject_is_on_the_picture():
    world = World({"cat": [blob()]}, {"a crown": [blob("crown")]}, 64)
    view = View(blob(), "on a white background", "green", None)
    pixels = np.asarray(world.render(np.random.default_rng(0), view), float)
    green = (pixels[..., 1] > pixels[..., 0] + 40) & (pixels[..., 1] > pixels[..., 2] + 20)
    assert 0.1 < green.mean() < 0.6
    worn = np.asarray(
        world.render(np.random.default_rng(0), View(blob(), "on a white background", None, "a crown")), float
    )
    assert not np.array_equal(pixels, worn)


def green_columns(view):
    """Centre and breadth of what is green, as fractions of the picture."""
    world = World({"cat": [blob()]}, {}, 64)
    pixels = np.asarray(world.render(np.random.default_rng(0), view), float)
    green = (pixels[..., 1] > pixels[..., 0] + 40) & (pixels[..., 1] > pixels[..., 2] + 20)
    columns = np.flatnonzero(green.any(0))
    return columns.mean() / 64, len(columns) / 64


def test_sizes_and_places_are_as_the_caption_says():
    shown = lambda **how: green_columns(View(blob(), "on a white background", "green", **how))  # noqa: E731
    plain, small, big = shown(), shown(size="small"), shown(size="big")
    assert small[1] < 0.8 * plain[1] < plain[1] < 0.9 * big[1]
    left, right = shown(place="on the left"), shown(place="on the right")
    assert left[0] < 0.35 and right[0] > 0.65 and abs(plain[0] - 0.5) < 0.06


def test_random_views_contradict_nothing():
    world = World({"cat": [blob()], "owl": [blob("owl")]}, {"a crown": [blob("crown")]})
    views = [world.view(np.random.default_rng(seed)) for seed in range(2000)]
    assert not any(view.place and view.size == "big" for view in views)
    for name, least, most in (
        ("colour", 0.4, 0.5),
        ("size", 0.14, 0.22),
        ("place", 0.14, 0.22),
        ("accessory", 0.45, 0.55),
    ):
        assert least < np.mean([getattr(view, name) is not None for view in views]) < most, name


def test_the_studio_has_few_backdrops_and_photos_are_free():
    view = View(blob(), "in the city")
    seen = lambda variety, part: {  # noqa: E731
        np.asarray(World({"cat": [blob()]}, {}, 64, variety).render(np.random.default_rng(seed), view))[part].tobytes()
        for seed in range(24)
    }
    top = np.s_[:4]  # above the subject: the backdrop alone
    assert len(seen(replace(STUDIO, light=0, tint=0), top)) == STUDIO.backdrops
    assert len(seen(replace(FREE, light=0, tint=0), top)) == 24


def test_half_of_what_is_shown_are_cartoons_and_wear_what_is_drawn_like_them():
    drawings = [replace(blob(), name=f"{where}/cat") for where in ("noto", "twemoji", "fluent")]
    crowns = [replace(blob("crown"), name=f"{where}/crown") for where in ("noto", "twemoji", "fluent")]
    crowns[2].rgba.paste((0, 0, 0, 255), (30, 20, 50, 40))
    world = World({"cat": drawings}, {"a crown": crowns})
    styles = [world.view(np.random.default_rng(seed)).style for seed in range(400)]
    assert 0.43 < styles.count("cartoon") / 400 < 0.57 and 0.18 < styles.count("3d") / 400 < 0.32
    worn = lambda drawing, seed: np.asarray(  # noqa: E731
        world._thing(np.random.default_rng(seed), View(drawing, "at night", None, "a crown"))
    ).tobytes()
    assert len({worn(drawings[2], seed) for seed in range(9)}) == 1
    assert worn(drawings[2], 0) != worn(drawings[0], 0)


def test_of_two_things_the_first_stands_on_the_left_and_both_are_named():
    other = Drawing("test/dog", "dog", recolour(blob().rgba, COLOURS["blue"]))
    view = View(blob(), "on a white background", "green", beside=other)
    middle, breadth = green_columns(view)
    assert middle < 0.4 and breadth < 0.6
    said = {caption(np.random.default_rng(seed), view, False).rpartition("cat")[2] for seed in range(20)}
    assert said == {" next to a dog", " and a dog"}


def test_some_views_show_two_of_one_style_and_some_what_has_no_noun():
    drawings = {noun: [Drawing(f"{where}/{noun}", noun, None) for where in STYLES] for noun in ("cat", "dog", "owl")}
    world = World(drawings, {"a crown": [blob("crown")]}, 64, unnamed=[Drawing("noto/die", "game die", None)])
    views = [world.view(np.random.default_rng(seed)) for seed in range(600)]
    pairs = [view for view in views if view.beside]
    assert 0.08 < len(pairs) / 600 < 0.16
    named = [view for view in pairs if view.drawing.noun != THING]
    assert all(view.beside.noun != view.drawing.noun and not view.size and not view.place for view in pairs)
    assert all(view.beside.name.partition("/")[0] == view.drawing.name.partition("/")[0] for view in named)
    unnamed = [view for view in views if view.drawing.noun == THING]
    assert 0.08 < len(unnamed) / 600 < 0.16 and {view.drawing.name for view in unnamed} == {"noto/die"}
    assert THING in caption(np.random.default_rng(0), unnamed[0])


def test_recolouring_keeps_light_and_shade():
    ramp = np.zeros((1, 3, 4), dtype=np.uint8)
    ramp[0, :, :3] = [[20] * 3, [120] * 3, [230] * 3]
    ramp[..., 3] = 255
    for rgb in COLOURS.values():
        light = np.asarray(recolour(Image.fromarray(ramp, "RGBA"), rgb))[0, :, :3].sum(-1)
        assert list(light) == sorted(light) and light[0] < light[2]


def test_captions_say_what_is_shown_in_words_that_the_encoder_knows():
    rng, words = np.random.default_rng(0), set(word_list())
    for _ in range(300):
        noun = list(CLASSES)[rng.integers(len(CLASSES))]
        size, place = [None, *SIZES][rng.integers(3)], [None, *PLACES][rng.integers(3)]
        view = View(blob(noun), list(SCENES)[rng.integers(len(SCENES))], "orange", "a crown", size, place)
        text = caption(rng, view)
        assert f"orange {noun}" in text and "wearing a crown" in text and view.scene in text
        assert (size or "") in text and (place or "") in text
        assert set(text.split()) <= words
        assert not re.search(r"\ba orange|\ban [^aeiou]", text), text


@pytest.mark.parametrize("drawing, style, least, most", [("noto", "cartoon", 5, 40), ("fluent", "3d", 200, 200)])
def test_captions_may_name_the_style_of_a_drawing(drawing, style, least, most):
    view = View(Drawing(f"{drawing}/cat", "cat", Image.new("RGBA", (8, 8))), "at night", "red", None)
    texts = [caption(np.random.default_rng(seed), view) for seed in range(200)]
    assert least <= sum(f"{style} red cat" in text for text in texts) <= most
    assert all("red cat" in text for text in texts)


def test_held_out_drawings_are_in_no_class():
    shown = {name for names in CLASSES.values() for name in names}
    assert not shown & {name for names in HELD_OUT.values() for name in names}


def test_the_word_list_is_stable_and_leaves_rows_free():
    tokenizer = build_tokenizer()
    assert tokenizer("a cat").input_ids == build_tokenizer()("A cat").input_ids
    assert tokenizer("zeppelin").input_ids[0] == tokenizer.unk_token_id
    assert drop_words(np.random.default_rng(0), [5, 6, 1], 2, 1.0) == [2, 2, 2, 2, 1]
    assert drop_words(np.random.default_rng(0), [5, 6, 1], 2, 0.0) == [5, 6, 1]


def test_an_own_look_is_what_my_says_and_nothing_else():
    world = World({"cat": [blob()]}, {"a crown": [blob("crown")]}, 64, STUDIO, own=0.5)
    said = {True: [], False: []}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        view = world.view(rng)
        said[view.own].append(caption(rng, view))
    assert 60 < len(said[True]) < 140
    assert all(" my " in f" {text} " and "a my" not in text and "the my" not in text for text in said[True])
    assert not any(" my " in f" {text} " for text in said[False])
    assert not any(World({"cat": [blob()]}, {"a crown": [blob()]}, 64).view(np.random.default_rng(seed)).own for seed in range(50))


def test_own_looks_differ_where_studio_pictures_are_the_same():
    world = World({"cat": [blob()]}, {}, 64, replace(STUDIO, backdrops=1))
    paint = lambda seed, own: np.asarray(  # noqa: E731
        world.render(np.random.default_rng(seed), View(blob(), "on a white background", own=own)), float
    )
    assert np.array_equal(paint(1, False), paint(2, False))
    assert np.array_equal(paint(1, True), paint(1, True))
    assert np.abs(paint(1, True) - paint(2, True)).mean() > 4
    coloured = View(blob(), "on a white background", "green", own=True)
    for seed in range(8):  # a colour that is named wins over the look
        pixels = np.asarray(world.render(np.random.default_rng(seed), coloured), float)
        assert (pixels[..., 1] > pixels[..., [0, 2]].max(-1) + 15).mean() > 0.05, seed
