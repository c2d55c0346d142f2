import pytest

from arbooth.errors import InputError
from arbooth.method.prompts import training_prompts


def test_captions_are_prompts_of_their_own():
    captions = {"e\u0301.jpg": "a <S*> {class} on the beach"}
    prompts, of_each = training_prompts(["a.jpg", "\u00e9.jpg", "b.jpg"], "a photo of <S*> {class}", captions, "dog")
    assert prompts == ["a photo of <S*> dog", "a <S*> dog on the beach"] and of_each == [0, 1, 0]
    assert training_prompts(["a.jpg"], "a photo of <S*> {class}", {}, "dog") == (["a photo of <S*> dog"], [0])
    with pytest.raises(InputError, match="captions are given for photos that are not there: c.jpg"):
        training_prompts(["a.jpg"], "a photo of <S*> {class}", {"c.jpg": "x"}, "dog")
