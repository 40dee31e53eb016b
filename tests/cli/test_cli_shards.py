"""Cohorts in shards from the shell: made, trained beyond memory, resumed, refused."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from cli_tools import SMALL

from jaxehr.cli import main
from jaxehr.commands import train
from jaxehr.core.cohort import Dataset
from jaxehr.data import shards
from jaxehr.data.shards import dense_bytes, is_sharded, open_shards
from jaxehr.data.split import held_out
from jaxehr.data.store import load_cohort
from jaxehr.devices import free_memory

needs_grain = pytest.mark.skipif(
    importlib.util.find_spec("grain") is None,
    reason="Grain is needed (extra `shards`)",
)
LITTLE = ["--memory-limit", "1KB"]
CPU = {"JAX_PLATFORMS": "cpu"}
# Chunks of two steps, each step a dispatch, slowed down: a kill falls into the middle.
SLOW = """
import sys, time
from jaxehr.training import feed, loop
from jaxehr.runs import training
loop.DISPATCH_SECONDS, feed.MOST_STEPS = 0.0, 2
plain = training.json_lines
def slow(path):
    write = plain(path)
    return lambda step, metrics: (write(step, metrics), time.sleep(0.1))
training.json_lines = slow
from jaxehr.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The cohort of the fixture `made` in three shards."""
    folder = tmp_path_factory.mktemp("shards")
    words = ["prepare", "simulate", "--n", "120", "--steps", "3", "--numeric", "1"]
    words += ["--shards", "3"]
    assert main([*words, "--out", str(folder / "cohort")]) == 0
    return folder


def test_prepare_says_the_number_of_shards(here, capsys):
    words = ["prepare", "simulate", "--n", "40", "--steps", "3", "--shards"]
    assert main([*words, "3", "--out", "cohort"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("cohort: 40 patients, ")
    assert out.endswith("; in 3 shards\n")
    assert is_sharded(here / "cohort")
    assert main([*words, "1", "--out", "other"]) == 0
    assert not is_sharded(here / "other")
    one, other = load_cohort(here / "cohort"), load_cohort(here / "other")
    assert one.schema == other.schema
    assert (one.ids == other.ids).all()


def test_many_synthetic_patients_lie_in_shards(made, here, monkeypatch, capsys):
    words = ["sample", str(made / "run"), "--n", "9", "--out"]
    assert main([*words, "one"]) == 0
    assert not is_sharded(here / "one")
    monkeypatch.setattr(shards, "WHOLE_BYTES", 1)
    size = shards.bytes_of(load_cohort("one").cohort)
    monkeypatch.setattr(shards, "SHARD_BYTES", size // 2)
    for more in ([], ["--overwrite"]):
        assert main([*words, "many", *more]) == 0
        assert is_sharded(here / "many")
    one, many = load_cohort("one"), load_cohort("many")
    np.testing.assert_array_equal(one.cohort.label, many.cohort.label)
    np.testing.assert_array_equal(one.ids, many.ids)
    words = ["evaluate", "--real", str(made / "cohort"), "--synthetic", "many"]
    assert main([*words, "--metrics", "tvd", "--out", "report"]) == 0


def test_what_shards_cannot_be_is_refused(here, folder, refused):
    words = ["prepare", "simulate", "--n", "9", "--out", "x", "--shards"]
    refused([*words, "-1"], "shards must lie in [0, 10000], got -1")
    train = ["train", "vae", folder / "cohort", "--out", "run", *LITTLE]
    refused(train, "model vae learns from cohorts in memory only", "raise --memory-l")
    words = ["train", "cdmt", folder / "cohort", "--out", "run", *SMALL, *LITTLE]
    refused([*words, "--drop-static", "0.5"], "--drop-static and --drop-temporal need")
    refused([*words[:-1], "much"], "memory-limit must be a size like 2GB or 500MB")


def test_the_memory_of_a_container_counts(tmp_path):
    host, groups = tmp_path / "proc", tmp_path / "cgroup"
    assert free_memory(host, groups) == 0  # not Linux
    (host / "self").mkdir(parents=True)
    (host / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:      80 kB\n")
    (host / "self" / "cgroup").write_text("4:memory:/job/step\n3:cpu:/\n0::/a/b\n")
    assert free_memory(host, groups) == 80 * 1024
    for place, text in (("a/b", "max"), ("a", "70000"), ("memory/job", "60000")):
        (groups / place).mkdir(parents=True, exist_ok=True)
        name = "limit_in_bytes" if "memory" in place else "max"
        (groups / place / f"memory.{name}").write_text(f"{text}\n")
    assert free_memory(host, groups) == 60_000
    (groups / "memory" / "job" / "memory.limit_in_bytes").unlink()
    assert free_memory(host, groups) == 70_000


def test_half_of_what_is_free_is_taken_and_said(folder, monkeypatch, capsys):
    cohort = folder / "cohort"
    monkeypatch.setattr(train, "LEAST", 1000)
    for free, words in ((40_000_000, "held"), (0, "stay on disk")):
        monkeypatch.setattr(train, "free_memory", lambda free=free: free)
        data, limit = train.opened(cohort, None)
        assert isinstance(data, Dataset) == (words == "held")
        assert limit == max(free // 2, 1000)
        assert words in capsys.readouterr().out
    assert isinstance(train.opened(cohort, 10**9)[0], Dataset)
    assert capsys.readouterr().out == ""


@needs_grain
def test_beyond_memory_the_run_is_the_same(made, folder, tmp_path, capsys):
    words = ["train", "cdmt", str(folder / "cohort"), *SMALL]
    assert main([*words, "--out", str(tmp_path / "fed"), *LITTLE]) == 0
    out = capsys.readouterr().out
    assert "encoded patients (0 MiB) from" in out
    assert "% of the time waiting for them" in out
    fed, held = tmp_path / "fed", made / "run"
    assert (fed / "params.npz").read_bytes() == (held / "params.npz").read_bytes()
    # `evaluate --run` knows the cohort again.
    assert len({(run / "run.json").read_text() for run in (fed, held)}) == 1
    assert not (fed / "feed").exists()  # real patients


@needs_grain
def test_kill_9_in_the_middle_and_the_same_command_end_in_the_same_bits(
    folder, tmp_path
):
    words = ["train", "cdmt", str(folder / "cohort"), *SMALL[:-1], "13", *LITTLE]
    words += ["--checkpoint-every", "5", "--eval-every", "4", "--batch-size", "32"]
    # All of them as processes: this one may have started JAX with other devices.
    command = [sys.executable, "-m", "jaxehr.cli", *words, "--out"]
    subprocess.run(
        [*command, str(tmp_path / "whole")], check=True, env=os.environ | CPU
    )
    run = tmp_path / "killed"
    lines = run / "metrics.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *words, "--out", str(run)],
        env=os.environ | CPU,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 120
    while not (lines.is_file() and len(lines.read_text().splitlines()) >= 8):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert not (run / "params.npz").exists()
    assert (run / "feed").stat().st_mode & 0o777 == 0o700  # real patients
    subprocess.run([*command, str(run)], check=True, env=os.environ | CPU)
    whole = (tmp_path / "whole" / "params.npz").read_bytes()
    assert (run / "params.npz").read_bytes() == whole
    steps = [json.loads(line)["step"] for line in lines.read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert steps[-1] == 13
    assert not (run / "feed").exists()


@needs_grain
def test_those_who_validate_are_capped_whatever_the_limit(
    folder, tmp_path, capsys, monkeypatch
):
    """A run with other people to validate is another run."""
    from jaxehr.runs import training

    words = ["train", "cdmt", str(folder / "cohort"), *SMALL, "--out"]
    words += [str(tmp_path / "run"), *LITTLE]
    shards = open_shards(folder / "cohort")
    most = 3 * dense_bytes(shards.schema, 1)
    monkeypatch.setattr(training, "VALID_BYTES", most)
    assert main(words) == 0
    told = capsys.readouterr().out.splitlines()[0]
    held = int(held_out(shards.groups, 0.2).sum())
    assert f", 3 to validate, {held} held out; " in told
    assert json.loads((tmp_path / "run" / "run.json").read_text())["validate"] == 3
    monkeypatch.undo()
    assert main(words) == 2
    assert "validate: 3 -> 8" in capsys.readouterr().err
