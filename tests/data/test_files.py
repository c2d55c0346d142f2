import pytest

from arbooth.data.files import read_json, sha256, whole_file, whole_folder, write_json
from arbooth.errors import InputError


def test_a_failed_block_leaves_what_was_there(tmp_path):
    path, folder = tmp_path / "a.json", tmp_path / "folder"
    write_json(path, {"x": 1})
    with whole_folder(folder) as part:
        (part / "old").write_text("old")
    with pytest.raises(RuntimeError), whole_file(path) as part:
        part.write_text("half")
        raise RuntimeError
    with pytest.raises(RuntimeError), whole_folder(folder) as part:
        (part / "new").write_text("half")
        raise RuntimeError
    assert read_json(path) == {"x": 1}
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.json", "folder", "old"]


def test_a_folder_replaces_another_whole(tmp_path):
    for name in ("first", "second"):
        with whole_folder(tmp_path / "folder") as part:
            (part / name).write_text(name)
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["second"]


def test_the_hash_of_a_folder_depends_on_names_and_contents(tmp_path):
    hashes = set()
    for name, text in (("a", "1"), ("b", "1"), ("b", "2")):
        folder = tmp_path / f"{name}{text}"
        folder.mkdir()
        (folder / name).write_text(text)
        hashes.add(sha256(folder))
    assert len(hashes) == 3


def test_threads_may_write_the_same_file_at_once(tmp_path):
    import threading

    from arbooth.data.files import read_json, write_json

    errors = []

    def write(number):
        try:
            for _ in range(50):
                write_json(tmp_path / "a.json", {"number": number, "long": "x" * 10_000})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(read_json(tmp_path / "a.json")["long"]) == 10_000
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_where_a_file_should_be_is_one_sentence(tmp_path):
    (tmp_path / "x.json").mkdir()
    with pytest.raises(InputError, match="x.json can't be read"):
        read_json(tmp_path / "x.json")
