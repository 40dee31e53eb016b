"""A job of two processes: what one process makes, and what a death leaves."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from jaxehr.cli import main
from jaxehr.data.store import load_cohort
from jaxehr.jobs import own_gpus
from jaxehr.training import sharding

TRAIN = ["--preset", "small", "--steps", "30", "--batch-size", "32"]
TRAIN += ["--checkpoint-every", "5", "--eval-every", "5"]
CPU = {"JAX_PLATFORMS": "cpu"}
LOST = "another process of this job has ended; start the job again"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(words, devices, limit=None, **more) -> subprocess.Popen:
    """One process with some devices of its own, whose files are at most `limit`."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    confine = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return subprocess.Popen(
        [sys.executable, "-m", "jaxehr.cli", *map(str, words)],
        env=os.environ | CPU | {"XLA_FLAGS": flags} | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=confine if limit else None,
    )


def job(words, limit=None) -> list[subprocess.Popen]:
    """Two processes of one device each."""
    common = {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}",
        "JAX_NUM_PROCESSES": "2",
    }
    words = [*words, "--distributed"]
    return [start(words, 1, limit, JAX_PROCESS_ID=str(n), **common) for n in range(2)]


def ended(processes) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each."""
    told = [process.communicate(timeout=180) for process in processes]
    return [(p.returncode, *t) for p, t in zip(processes, told, strict=True)]


def whole(processes) -> list[str]:
    """The outputs of processes that ended well."""
    found = ended(processes)
    assert all(code == 0 for code, *_ in found), found
    return [out for _, out, _ in found]


@pytest.fixture(scope="module")
def runs(made, tmp_path_factory):
    """A run of one process, and one of a job whose second process was killed."""
    folder = tmp_path_factory.mktemp("job")
    # The loop is that of every model; this one is compiled soon.
    words = ["train", "vae", made / "cohort", *TRAIN, "--out"]
    whole([start([*words, folder / "one"], 2)])
    processes = job([*words, folder / "job"])
    lines, end = folder / "job" / "metrics.jsonl", time.monotonic() + 180
    while not (lines.is_file() and len(lines.read_text().splitlines()) >= 2):
        assert processes[0].poll() is None, processes[0].communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGKILL)
    died = ended(processes)
    again = whole(job([*words, folder / "job"]))
    return folder, died, again


def test_a_process_that_dies_ends_the_job_with_one_line(runs):
    (code, _, errors), (killed, *_) = runs[1]
    assert killed == -signal.SIGKILL
    assert code == 1, errors
    assert "Traceback" not in errors, errors
    assert LOST in errors.splitlines()[-1]


def test_the_job_goes_on_and_ends_in_the_parameters_of_one_process(runs):
    folder = runs[0]
    # The sum of two devices has one order only, so the bits are the same.
    one, other = (folder / name / "params.npz" for name in ("one", "job"))
    assert one.read_bytes() == other.read_bytes()
    lines = (folder / "job" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == sorted(set(steps))
    assert steps[-1] == 30


def test_only_the_first_process_speaks(runs):
    first, second = runs[2]
    assert "trained, 30 steps of 32 patients" in first
    assert second == ""


def test_the_job_draws_the_patients_of_one_process(runs, tmp_path):
    words = ["sample", runs[0] / "one", "--n", "70", "--out"]
    whole([start([*words, tmp_path / "one"], 2)])
    whole(job([*words, tmp_path / "job"]))
    one, other = load_cohort(tmp_path / "one"), load_cohort(tmp_path / "job")
    assert one.schema == other.schema
    for a, b in zip(one.cohort.temporal, other.cohort.temporal, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(one.cohort.label, other.cohort.label)


def test_the_job_measures_what_one_process_does(runs, made, tmp_path):
    words = ["evaluate", "--real", made / "cohort", "--synthetic", made / "cohort"]
    words += ["--quick", "--metrics", "c2st_mlp,mmd", "--out"]
    whole([start([*words, tmp_path / "one"], 2)])
    first, second = whole(job([*words, tmp_path / "job"]))
    one, other = (tmp_path / name / "metrics.json" for name in ("one", "job"))
    assert (
        json.loads(one.read_text())["metrics"]
        == json.loads(other.read_text())["metrics"]
    )
    assert "c2st_mlp" in first
    assert second == ""


@pytest.mark.slow
def test_a_full_disk_ends_a_job_at_once(made, tmp_path):
    words = ["train", "vae", made / "cohort", *TRAIN, "--out", tmp_path / "run"]
    found = ended(job(words, limit=30_000))
    full = [errors for code, _, errors in found if code == 2]
    assert full, found
    assert all("cannot be written (File too large)" in errors for errors in full)


@pytest.mark.slow
def test_sigterm_ends_a_job_that_draws_at_once(runs, tmp_path):
    words = ["sample", runs[0] / "one", "--n", "5000000", "--out", tmp_path / "many"]
    processes, heard = job(words), ""
    while "sampling: " not in heard:  # at work, behind the start of JAX
        letter = processes[0].stderr.read(1)
        assert letter, heard
        heard += letter
    for process in processes:
        process.send_signal(signal.SIGTERM)
    found = ended(processes)
    assert [code for code, *_ in found] == [128 + signal.SIGTERM] * 2, found
    assert "terminated" in found[0][2].splitlines()[-1]
    assert not (tmp_path / "many").exists()


@pytest.mark.parametrize(
    "words",
    [
        "sample {0}/run --n 5 --out s",
        "evaluate --real {0}/cohort --synthetic {0}/cohort --metrics tvd --out e",
    ],
)
def test_all_wait_for_process_0_to_write(words, made, here, monkeypatch, capsys):
    """Else JAX would end it while it writes."""
    monkeypatch.setattr(sharding, "leads", lambda: False)
    monkeypatch.setattr(sharding, "agreed", lambda mine: np.array([True, mine]))
    assert main(words.format(made).split()) == 2
    assert "process 0 of this job refused" in capsys.readouterr().err


def test_who_has_no_partners_is_told(refused, here, made, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    words = ["train", "cdmt", made / "cohort", "--out", "run", "--distributed"]
    refused(words, "--distributed: cannot join", "JAX_COORDINATOR_ADDRESS")
    # Else JAX would take SIGTERM from `sample` and `evaluate`, and not end them.
    assert not jax.config.jax_enable_preemption_service
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    refused(words, "JAX_NUM_PROCESSES=two: is not a whole number")


@pytest.mark.parametrize(
    ("environment", "gpus"),
    [
        ({}, None),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2"}, []),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2"}, None),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, []),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, None),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4", "CUDA_VISIBLE_DEVICES": "3"}, []),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "1", "JAX_LOCAL_DEVICE_IDS": "1,2"}, None),
    ],
)
def test_one_process_on_a_host_takes_all_of_its_gpus(environment, gpus, monkeypatch):
    for name in ("JAX_LOCAL_DEVICE_IDS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert own_gpus() == gpus
