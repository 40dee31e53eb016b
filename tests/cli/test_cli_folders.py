"""Tables and folders that are refused, and those that work."""

import json
import os
import subprocess
import sys

import pytest
from cli_tools import SMALL, STATIC, TABLES, TEMPORAL, listing, shell

from jaxehr.cli import main

# Tables


@pytest.mark.parametrize(
    ("file", "old", "new", "texts"),
    [
        ("s.csv", "died", "dead", ["s.csv", "'died'", "missing"]),
        ("t.csv", "pid,", "id,", ["t.csv", "'pid'", "missing"]),
        ("t.csv", "1,1,81,b", "1,0,81,b", ["duplicate", "1"]),
        ("t.csv", "2,1,90", "2,1,ninety", ["t.csv", "'hr'", "ninety", "row 4"]),
        ("t.csv", "2,1,90", "2,1,inf", ["t.csv", "'hr'", "inf", "row 4"]),
        ("t.csv", "2,1,90", "2,1,nan", ["t.csv", "'hr'", "nan", "row 4"]),
        ("t.csv", "1,1,81", "1,-1,81", ["t.csv", "'hour'", "-1"]),
        ("t.csv", "4,0,75", "9,0,75", ["9"]),
        ("s.csv", "3,70,F,0", "3,70,F,", ["label", "missing"]),
        ("s.csv", None, STATIC.replace(",1\n", ",0\n"), ["label", "1 class"]),
        ("s.csv", None, "pid,age,sex,died\n", ["s.csv", "empty table"]),
        ("s.csv", None, "", ["s.csv", "empty"]),
        ("t.csv", None, "pid,hour,hr\n1,0,\n2,0,\n3,0,\n4,0,\n", ["'hr'", "missing"]),
        ("t.csv", None, "remove", ["t.csv: no such file"]),
    ],
)
def test_bad_tables_are_one_line(file, old, new, texts, here, refused):
    path = here / file
    if new == "remove":
        path.unlink()
    else:
        assert old is None or old in path.read_text()
        path.write_text(new if old is None else path.read_text().replace(old, new))
    refused(TABLES, *texts)


def test_the_schema_is_shown_and_comes_back_edited(here, capfd, refused):
    assert main(TABLES) == 0
    shown = capfd.readouterr().out
    assert "missing" in shown  # the heading
    assert "2.9%" in shown  # one of 35 heart rates
    assert "(1% missing)" in shown  # one of 70 values; padding does not count
    assert "schema.json" in shown
    schema = json.loads((here / "out" / "schema.json").read_text())
    (rate,) = [f for f in schema["temporal"] if f["name"] == "hr"]
    rate |= {"kind": "numeric", "dtype": "double", "unit": "bpm"}
    rate |= {"lower": 0.0, "upper": 300.0, "categories": []}
    rate.pop("categories")
    (here / "edited.json").write_text(json.dumps(schema))
    words = [*TABLES[:-1], "again", "--schema", "edited.json"]
    assert main(words) == 0
    assert "bpm" in capfd.readouterr().out
    again = json.loads((here / "again" / "schema.json").read_text())
    assert again == schema
    (here / "t.csv").write_text(TEMPORAL.replace(",a\n", ",z\n", 1))
    words[words.index("again")] = "third"
    refused(words, "unknown category", "'state'", "z")


def test_lists_have_commas_and_leave_paths_alone():
    from jaxehr.commands.prepare import parse

    words = ["--variables", "HR,Temp", "one", "two", "--static=", "--out", "x"]
    found = parse("physionet2012", words)
    assert found.options.variables == ("HR", "Temp")
    assert found.options.static == ()
    assert found.paths == ["one", "two"]
    found = parse("physionet2012", ["one", "--out", "x", "--static", ""])
    assert found.options.static == ()


# Folders


def test_names_with_spaces_and_other_scripts(here):
    out = here / "Kohorte ä 群" / "1 [x]"
    assert main([*TABLES[:-1], str(out)]) == 0
    assert (out / "schema.json").is_file()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(here, refused):
    (here / "locked").mkdir(mode=0o500)
    refused([*TABLES[:-1], "locked/out"], "locked/out", "not writable")


def test_networks_that_cannot_be_kept(here, refused, monkeypatch):
    words = ["evaluate", "--real", "c", "--synthetic", "c", "--out", "x", "--remember"]
    refused([*words, "s.csv/kept"], "--remember s.csv/kept", "s.csv is a file")
    (here / "locked").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "locked")
    for place in ("locked", "locked/deep/kept"):
        refused([*words, place], f"--remember {place}: ", "locked is not writable")


def test_a_folder_that_cannot_be_made(here, refused):
    refused([*TABLES[:-1], "/proc/none/out"], "/proc/none/out", "cannot be written")


def test_nothing_is_replaced_unasked(here, refused):
    assert main(TABLES) == 0
    refused(TABLES, "out: already exists; choose another folder")


def test_a_full_disk(here):
    before = listing(here)
    words = ["prepare", "simulate", "--n", "2000", "--out", "deep/out"]
    found = shell(*words, limit=20_000, cwd=here)
    assert found.returncode == 2
    (line,) = found.stderr.splitlines()
    assert line.startswith("jaxehr: error: deep/out: cannot be written (")
    assert "File too large" in line
    left = [path for path in listing(here) if path not in before]
    assert left in ([], [str(here / "deep")])


def test_a_disk_that_fills_up_in_training(made, here):
    before = listing(here)
    words = ["train", "cdmt", made / "cohort", "--out", "deep/run", *SMALL]
    found = shell(*words, limit=30_000, cwd=here)
    assert found.returncode == 2, found.stderr
    *shown, line = found.stderr.splitlines()
    assert all(text.startswith("training: ") for text in shown), found.stderr
    assert line.startswith("jaxehr: error: deep/run/checkpoints: cannot be written (")
    assert "File too large" in line
    assert listing(here) == before


@pytest.mark.parametrize("quiet", [False, True])
def test_a_write_that_was_cut_off_says_nothing_at_the_end(quiet):
    """What Orbax left unawaited is found when the interpreter ends."""
    code = """
import sys
if sys.argv[1] == "True":
    from jaxehr.devices import quiet_orbax
    quiet_orbax()
async def async_serialize_from_host(): pass
sys.modules["kept"] = [async_serialize_from_host()]
"""
    command = [sys.executable, "-c", code, str(quiet)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ("never awaited" in found.stderr) != quiet


def test_output_that_nobody_reads():
    read, write = os.pipe()
    os.close(read)
    found = shell(
        "list", "sources", stdout=write, stderr=subprocess.PIPE, capture_output=False
    )
    os.close(write)
    assert found.returncode == 141  # as `cat` and `ls` end
    assert found.stderr == ""


@pytest.mark.skipif(os.name != "posix", reason="a shell is needed")
def test_output_to_nowhere_and_in_few_letters(here):
    table = "pid,x\n" + "".join(f"{i},{'≥65' if i % 2 else '<65'}\n" for i in range(9))
    (here / "s.csv").write_text(table, encoding="utf-8")
    words = "prepare tables --static s.csv --id pid --out"
    start = f"{sys.executable} -m jaxehr.cli {words}"
    options = {"capture_output": True, "shell": True, "timeout": 120}
    found = subprocess.run(f"{start} a >&-", **options)
    assert (found.returncode, found.stderr) == (0, b"")
    few = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    found = subprocess.run(f"{start} b", env=few, **options)
    assert (found.returncode, found.stderr) == (0, b"")
    assert rb"\u226565" in found.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_output_to_a_full_device():
    with open("/dev/full", "w") as full:
        found = shell(
            "list", "sources", stdout=full, stderr=subprocess.PIPE, capture_output=False
        )
    assert found.returncode == 2
    (line,) = found.stderr.splitlines()
    assert "No space left on device" in line
