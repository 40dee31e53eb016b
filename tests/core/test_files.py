"""Files and folders appear whole or not at all, also on a full disk."""

import errno
import io
import json
import os
import stat

import pytest

from jaxehr.core import files
from jaxehr.core.checks import InputError

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail_full(*args, **kwargs):
    raise FULL


class FullDisk(io.BytesIO):
    """A file whose first write fills the disk."""

    write = fail_full


def names(folder):
    return sorted(path.name for path in folder.iterdir())


OURS = files.Kind("thing", ("mark", "in/*.txt"), "mark", lambda said: "text" in said)


def make(path, text="new", replaces=None):
    with files.new_folder(path, replaces=replaces) as folder:
        (folder / "mark").write_text(json.dumps({"text": text}))


def marked(path):
    return json.loads((path / "mark").read_text())["text"]


def test_new_folder_appears_at_the_end_only(tmp_path):
    target = tmp_path / "deep" / "out"
    with files.new_folder(target) as folder:
        (folder / "mark").write_text("x")
        assert not target.exists()
    assert (target / "mark").read_text() == "x"
    assert names(target.parent) == ["out"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_says_who_may_read(tmp_path, umask):
    before = os.umask(umask)
    try:
        make(tmp_path / "out")
        files.write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    mode = lambda path: stat.S_IMODE(path.stat().st_mode)
    assert mode(tmp_path / "out") == 0o777 & ~umask
    assert mode(tmp_path / "a.txt") == 0o666 & ~umask


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "out").mkdir()
    make(tmp_path / "out")
    assert names(tmp_path / "out") == ["mark"]


@pytest.mark.parametrize("content", [None, "thesis", "[]", '{"accuracy": 1}'])
def test_a_foreign_folder_stays(tmp_path, content):
    target = tmp_path / "out"
    target.mkdir()
    (target / "thesis").write_text("x")
    if content:  # a file of the marker's name is none of ours yet
        (target / "mark").write_text(content)
    before = names(target)
    with pytest.raises(InputError, match="out: already exists; choose another folder"):
        make(target)
    rule = r"out: already exists and is no thing of ours \(mark does not say so\)"
    with pytest.raises(InputError, match=rule):
        make(target, replaces=OURS)
    assert names(tmp_path) == ["out"]
    assert names(target) == before


@pytest.mark.parametrize("name", ["thesis", "in/a.txt", "in/data.csv"])
def test_what_lies_in_a_folder_of_ours_is_not_lost(tmp_path, name):
    target = tmp_path / "out"
    make(target, "old")
    (target / "in").mkdir()
    (target / name).write_text("x")
    if name == "in/a.txt":
        make(target, replaces=OURS)
        assert names(target) == ["mark"]
        return
    rule = f"out: holds {name}, which is not of a thing and would be lost; move it"
    with pytest.raises(InputError, match=rule):
        make(target, replaces=OURS)
    assert (target / name).read_text() == "x"
    assert marked(target) == "old"


def test_a_file_is_not_replaced(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(InputError, match="already exists"):
        make(tmp_path / "out", replaces=OURS)
    assert (tmp_path / "out").read_text() == "x"


def test_a_mark_at_the_start_is_no_part_of_json(tmp_path):
    (tmp_path / "a.json").write_text('{"a": "é"}', encoding="utf-8-sig")
    assert files.read_json(tmp_path / "a.json") == {"a": "é"}


def test_overwrite_replaces_ours_whole(tmp_path):
    target = tmp_path / "out"
    make(target, "old")
    with pytest.raises(InputError, match="already exists"):
        make(target)
    make(target, replaces=OURS)
    assert names(tmp_path) == ["out"]
    assert names(target) == ["mark"]
    assert marked(target) == "new"


def test_an_error_inside_leaves_nothing(tmp_path):
    def fill():
        with files.new_folder(tmp_path / "out") as folder:
            (folder / "mark").write_text("x")
            raise KeyError

    with pytest.raises(KeyError):
        fill()
    assert names(tmp_path) == []


def test_full_disk_while_filling(tmp_path):
    target = tmp_path / "out"
    make(target, "old")
    with (
        pytest.raises(InputError, match=r"out: cannot be written \(No space left"),
        files.new_folder(target, replaces=OURS),
    ):
        fail_full()
    assert names(tmp_path) == ["out"]
    assert marked(target) == "old"


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["full", "Ctrl-C"])
@pytest.mark.parametrize("failing", [1, 2])
def test_what_comes_between_the_renames(tmp_path, monkeypatch, failing, error):
    target = tmp_path / "out"
    make(target, "old")
    rename, calls = os.rename, []

    def some_fail(source, destination):
        calls.append(source)
        if len(calls) == failing:
            raise error
        rename(source, destination)

    monkeypatch.setattr(os, "rename", some_fail)
    kind = InputError if error is FULL else KeyboardInterrupt
    with pytest.raises(kind, match="out: cannot be written" if error is FULL else None):
        make(target, replaces=OURS)
    assert names(tmp_path) == ["out"]
    assert marked(target) == "old"


def test_parent_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="out: cannot be written"):
        make(tmp_path / "file" / "out")
    with pytest.raises(InputError, match="out: cannot be written"):
        files.write_text(tmp_path / "file" / "out", "x")


def test_no_space_for_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "mkdir", fail_full)
    with pytest.raises(InputError, match="No space left"):
        make(tmp_path / "out")
    assert names(tmp_path) == []


def test_write_text_replaces_whole(tmp_path):
    path = tmp_path / "sub" / "a.txt"
    files.write_text(path, "old")
    files.write_text(path, "né")
    assert path.read_bytes() == "né".encode()
    assert names(path.parent) == ["a.txt"]


@pytest.mark.parametrize("place", ["write", "replace"])
def test_full_disk_keeps_the_old_file(tmp_path, monkeypatch, place):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    if place == "replace":
        monkeypatch.setattr(os, "replace", fail_full)
    else:
        monkeypatch.setattr(files, "open", lambda *_: FullDisk(), raising=False)
    with pytest.raises(InputError, match=r"a\.txt: cannot be written \(No space left"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_json_round_trip(tmp_path):
    value = {"a": [1, 2.5, None], "é": "ü"}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value
    assert "é" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_json_refuses_nan_and_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"a": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "no such file"),
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
    ],
)
def test_read_json_refuses(tmp_path, content, match):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.json: {match}"):
        files.read_json(tmp_path / "a.json")


def test_read_json_of_a_folder(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        files.read_json(tmp_path)


def test_files_of_file_managers_and_links_are_no_matter(tmp_path):
    target = tmp_path / "out"
    make(target, "old")
    for name in (".DS_Store", "in/._a.txt", "Thumbs.db"):
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_text("")
    make(target, "newer", replaces=OURS)
    assert marked(target) == "newer"
    target.rename(tmp_path / "elsewhere")
    target.symlink_to(tmp_path / "elsewhere")
    make(target, "newest", replaces=OURS)
    assert marked(target) == "newest"
    assert marked(tmp_path / "elsewhere") == "newer"
    assert names(tmp_path) == ["elsewhere", "out"]
