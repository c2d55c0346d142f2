"""Names, nouns, prompts and values of params.yaml."""

import pytest
import yaml

from tests.faults.harness import check, drawn, seeds

HOSTILE = (
    "x; touch pwned; true", "$(touch pwned)", "`touch pwned`", "a&b", "a\nb", "../../precious", "..", "/etc/passwd", "-rf", "--help",
    "A", "", " ", "a b", "x" * 65, "x" * 100_000, "\u00e9", "\u202e", "\x1b[31m", "no", "on", "null", "~", "1e5", "${x}", "{class}",
    "<S*>", "<S *>", "<s*>", "%s%n", "CON", "a.b", "a/b", "a\\b", "\udcff",
)  # fmt: skip
VALUES = (
    float("nan"), float("inf"), -float("inf"), -1, 0, 1e308, -1e308, 10**30, "", "x" * 10_000, "../..", "$(touch pwned)", None,
    [], {}, [[]], True, "nan", ".inf", "<S *>", "{class} {subject}", "{subject", [0.0], [float("nan")], {"a": {"b": 1}}, "\u0000",
)  # fmt: skip


@pytest.mark.parametrize("number", seeds("names"))
def test_any_name_on_the_command_line(case, number):
    rng = drawn("names", number)
    word = rng.choice(HOSTILE)
    photos = str(case / "photos" / "poodle")
    arguments = rng.choice([
        ("subject", "add", word, "--class", "dog", "--photos", photos),
        ("subject", "add", "mine", "--class", word, "--photos", photos),
        ("subject", "add", "mine", "--class", "dog", "--photos", word),
        ("subject", "add", "mine", "--class", "dog", "--photos", photos, "--prompts", word),
        ("subject", "remove", word), ("stage", word, "poodle"), ("stage", "finetune", word), ("stage", "prior", word),
        ("generate", word, "a <S*> dog", "-n", "1"), ("generate", "poodle", word, "-n", "1"),
        ("generate", f"models:/{word}@champion", "a dog"), ("generate", "poodle", "a <S*> dog", "--temperature", word),
        ("generate", "poodle", "a <S*> dog", "-n", "1", "--guidance", word), ("params", f"finetune.steps={word}"),
        ("params", word), ("base", "import", word, "--name", "mine"), ("base", "import", photos, "--name", word),
        ("results", "--page", word), ("analyze", "layers", word), ("benchmark", word), ("init", "new", "--recipe", word),
    ])  # fmt: skip
    if any("\x00" in argument for argument in arguments):
        return
    done = check(case, *arguments)
    if done.code == 0 and arguments[:2] == ("subject", "add"):
        assert check(case, "subject", "remove", arguments[2]).code == 0
    assert check(case, "params").code == 0


def leaves(tree, path=()):
    for key, value in tree.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))


@pytest.mark.parametrize("number", seeds("values"))
def test_any_value_in_params(case, number):
    """Refused by the stage that runs before all others, or valid for all of them."""
    rng = drawn("values", number)
    tree = yaml.safe_load((case / "params.yaml").read_text())
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        *parents, last = rng.choice(list(leaves(tree)))
        node = tree
        for parent in parents:
            node = node[parent] if isinstance(node, dict) and parent in node else {}
        if isinstance(node, dict):
            node[rng.choice([last, last, last, rng.choice(HOSTILE[:-1])])] = rng.choice(VALUES)
    (case / "params.yaml").write_text(yaml.safe_dump(tree, allow_unicode=True))
    done = check(case, "stage", "stamp", may_write=True)
    if done.code == 2:
        assert "params.yaml" in done.err or "base" in done.err or "dvc.yaml" in done.err


@pytest.mark.parametrize("text", [
    "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "# " + "x" * 2_000_000, "\ufeff" + "a: 1", "a: !!python/object/apply:os.system ['touch pwned']",
    "\x00", "a:\n\tb: 1", "- " * 2000, "{" * 500, "? ? ?",
])  # fmt: skip
def test_files_that_are_no_parameters(case, text):
    (case / "params.yaml").write_text(text)
    assert check(case, "params").code == 2
    (case / "params.yaml").write_bytes(text.encode("utf-16"))
    assert check(case, "params").code == 2


def test_numbers_per_scale_are_counted_before_the_first_stage(case):
    text = (case / "params.yaml").read_text()
    (case / "params.yaml").write_text(text.replace("guidance: 2.0", "guidance: [1.0, 2.0]"))
    done = check(case, "stage", "stamp", may_write=True)
    assert done.code == 2 and "generate.guidance has 2 values, the base paints in 8 scales" in done.err


def test_an_identifier_that_would_be_cut_off_is_refused(case):
    text = (case / "params.yaml").read_text()
    template = "subject: " + "very " * 10_000 + "<S*> {class}"
    (case / "params.yaml").write_text(text.replace("subject: a photo of <S*> {class}", template))
    done = check(case, "params")
    assert done.code == 2 and "at most 400 characters" in done.err


def test_pictures_of_different_prompts_do_not_overwrite_each_other(case):
    out = ("--out", "outputs/x", "-n", "1")
    long = "a <S*> dog on the grass " + "and on the grass " * 10
    asked = [
        (long + "a",),
        (long + "b",),
        ("\u732b",),
        ("\u72ac",),
        ("a <S*> dog", "--guidance", "1.5"),
        ("a <S*> dog",),
    ]
    for prompt, *more in asked:
        assert check(case, "generate", "poodle", prompt, *more, *out).code == 0
    pictures = list((case / "outputs" / "x").glob("*-0.png"))
    assert len(pictures) == len(asked) and not any(p.name.startswith("-") for p in pictures)


def test_unknown_words_are_told(case):
    done = check(case, "generate", "poodle", "a <S*> dog with a zeppelin", "-n", "1")
    assert done.code == 0 and "does not know the words zeppelin" in done.err
    done = check(case, "subject", "add", "zep", "--class", "zeppelin", "--photos", str(case / "photos" / "poodle"))
    assert done.code == 0 and "does not know the word zeppelin" in done.out


def test_a_refused_subject_leaves_nothing_and_the_retry_works(case):
    photos = str(case / "photos" / "poodle")
    for noun in ("x" * 61, "${x}", "<S*> dog", "{class}"):
        assert check(case, "subject", "add", "mine", "--class", noun, "--photos", photos).code == 2
    (case / "photos" / "mine").mkdir()  # as a kill between copying and declaring leaves it
    for path in (case / "photos" / "poodle").iterdir():
        (case / "photos" / "mine" / path.name).write_bytes(path.read_bytes())
    assert check(case, "subject", "add", "mine", "--class", "dog", "--photos", photos).code == 0


def test_commands_write_inside_the_project(case):
    outside = case.parent / "precious.txt"
    done = check(case, "results", "--page", "../precious.txt")
    assert done.code == 2 and "outside the project" in done.err and outside.read_text() == "mine"
