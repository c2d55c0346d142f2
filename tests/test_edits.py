"""Edits of params.yaml: every comment, blank line and quote of what is not touched stays."""

import pytest
import yaml

from arbooth.edits import add_entry, only, remove_entry, set_values
from arbooth.errors import InputError
from arbooth.recipes import params_of

ENTRY = {"class": "dog", "prompts": "scenes", "crops": {}, "background": "keep", "captions": {}, "overrides": {}}
FILES = {
    "shipped": params_of(),
    "nothing": "subjects:\nclasses: {}\n",
    "comment": "subjects: # mine\n\n# about classes\nclasses: {} # none\n",
    "commented": "# top\nsubjects: # all\n  # first\n  a: # is a\n    class: x # its class\n    n: 1\n  # end\n\nclasses:\n  x: {n: 1}\n",
    "wide": "subjects:\n    a:\n        class: x\n\n\n    b:\n        class: x\n# tail\nclasses: {}\n",
    "last": "classes: {}\nsubjects:\n  a:\n    class: x",
    "quoted": "subjects:\n  'a': {class: \"x\"}   # why\n  b: {class: y}\nclasses: {}\n",
}


def comments(text):
    return [line.partition("#")[2] for line in text.splitlines() if "#" in line]


@pytest.mark.parametrize("name", FILES)
def test_what_is_added_and_removed_leaves_the_file_as_it_was(name):
    text = FILES[name]
    added = add_entry(text, "subjects", "new", ENTRY)
    before, after = yaml.safe_load(text), yaml.safe_load(added)
    assert after["subjects"] == {**(before["subjects"] or {}), "new": ENTRY}
    assert comments(added) == comments(text)
    again = remove_entry(added, "subjects", "new")
    assert yaml.safe_load(again)["subjects"] == (before["subjects"] or {})
    assert again.replace("subjects: {}", "subjects:").split() == text.replace("subjects: {}", "subjects:").split()
    assert add_entry(again, "subjects", "new", ENTRY) == added


@pytest.mark.parametrize("name", ["commented", "wide", "last", "quoted"])
def test_the_last_entry_can_go(name):
    text = FILES[name]
    gone = only(text, "subjects", set())
    assert yaml.safe_load(gone)["subjects"] == {}
    kept = [c for c in comments(text) if c.strip() in ("top", "all", "first", "end", "tail")]
    assert [c for c in comments(gone) if c in kept] == kept
    assert yaml.safe_load(add_entry(gone, "subjects", "a", ENTRY))["subjects"] == {"a": ENTRY}


@pytest.mark.parametrize("word", ["no", "on", "off", "null", "1", "1e5", "0x1f", "~", "y", "2026-11-25"])
def test_words_that_yaml_takes_for_something_else_stay_words(word):
    text = add_entry(FILES["shipped"], "classes", word, {"noun": word})
    assert yaml.safe_load(text)["classes"] == {word: {"noun": word}}
    from ruamel.yaml import YAML  # what DVC reads with

    assert YAML(typ="safe").load(text)["classes"] == {word: {"noun": word}}


def test_values_are_put_in_place():
    text = set_values(FILES["shipped"], {"finetune.steps": 7, "generate.guidance": [1.0, 2.0], "compute": "bfloat16"})
    tree = yaml.safe_load(text)
    assert (tree["finetune"]["steps"], tree["generate"]["guidance"], tree["compute"]) == (7, [1.0, 2.0], "bfloat16")
    assert comments(text) == comments(FILES["shipped"])
    with pytest.raises(InputError, match=r"no finetune\.stepz"):
        set_values(text, {"finetune.stepz": 7})
    with pytest.raises(InputError, match="block of lines"):
        set_values(text, {"prompt_sets.scenes": []})


def test_entries_between_braces_are_refused():
    with pytest.raises(InputError, match="between braces"):
        add_entry("subjects: {a: {n: 1}}\nclasses: {}\n", "subjects", "b", ENTRY)
