import pytest

from arbooth.errors import InputError
from arbooth.method.prompts import View, training_prompts


def of(*photos):
    return [View(photo) for photo in photos]


TEMPLATES = ("a photo of <S*> {class} on a white background", "a photo of <S*> {class}")


def test_captions_are_prompts_of_their_own():
    captions = {"e\u0301.jpg": "a <S*> {class} on the beach"}
    prompts, of_each = training_prompts(of("a.jpg", "\u00e9.jpg", "b.jpg"), *TEMPLATES, captions, "dog", "rex")
    assert prompts == ["a photo of <S*> dog on a white background", "a <S*> dog on the beach"] and of_each == [0, 1, 0]
    assert training_prompts(of("a.jpg"), *TEMPLATES[1:] * 2, {}, "dog", "rex") == (["a photo of <S*> dog"], [0])
    with pytest.raises(InputError, match="subjects.rex.captions names photos that are not there: c.jpg"):
        training_prompts(of("a.jpg"), *TEMPLATES, {"c.jpg": "x"}, "dog", "rex")


def test_a_ground_is_named_behind_the_subject():
    views = [*of("a.jpg", "b.jpg"), View("a.jpg", "on the grass"), View("b.jpg", "at night")]
    prompts, of_each = training_prompts(views, *TEMPLATES, {"b.jpg": "my {class}"}, "cat", "tom")
    assert prompts == [
        "a photo of <S*> cat on a white background", "my cat", "a photo of <S*> cat on the grass", "a photo of <S*> cat at night",
    ] and of_each == [0, 1, 2, 3]  # fmt: skip
