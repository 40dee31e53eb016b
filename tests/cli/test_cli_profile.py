"""`--profile DIR` leaves a trace, and says when there was nothing to trace."""

import sys
import types

import jax
import jax.numpy as jnp
import pytest

import jaxehr.runs
from jaxehr.cli import main
from jaxehr.commands import sample, train
from jaxehr.devices import TRACED, Profile, quota


@pytest.fixture
def dispatch():
    """A program, compiled, that a trace should show."""
    program = jax.jit(lambda x: x @ x)
    x = jnp.ones((8, 8))
    return lambda: program(x).block_until_ready()


def test_a_trace_holds_the_dispatches_after_the_first(tmp_path, dispatch, monkeypatch):
    seen = []
    stop = jax.profiler.stop_trace
    monkeypatch.setattr(
        jax.profiler, "stop_trace", lambda: (seen.append("stop"), stop())
    )
    with Profile(tmp_path / "trace") as trace:
        for count in range(TRACED + 3):
            dispatch()
            assert trace.running == (0 < count <= TRACED)
            trace.tick()
    assert seen == ["stop"]
    (found,) = (tmp_path / "trace").rglob("perfetto_trace.json.gz")
    assert found.stat().st_size > 0
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))  # what TensorBoard reads


def test_one_dispatch_or_no_folder_is_no_trace(tmp_path, capsys):
    with Profile(tmp_path) as trace:
        pass
    assert "nothing was traced" in capsys.readouterr().err
    with Profile(None) as trace:
        trace.tick()
    assert not trace.running
    assert capsys.readouterr().err == ""
    with pytest.raises(KeyError), Profile(tmp_path):
        raise KeyError  # the error is the news, not the missing trace
    assert capsys.readouterr().err == ""


def test_train_and_sample_count_dispatches(tmp_path, monkeypatch):
    ticks = []
    monkeypatch.setattr(Profile, "tick", lambda self, *_: ticks.append(self.folder))
    run = types.SimpleNamespace(config=None, info={"patients": 1})

    def trained(*args, callbacks, **options):
        for callback in callbacks:
            callback(1, {"loss": 0.5, "steps_left": 0})
        return run

    def sampled(*args, progress, **options):
        progress(1)

    monkeypatch.setattr(jaxehr.runs, "train_run", trained, raising=False)
    monkeypatch.setattr(jaxehr.runs, "sample_run", sampled, raising=False)
    train.train("cdmt", None, tmp_path, None, profile=tmp_path / "train")
    sample.sample(None, 1, None, 0, None, tmp_path / "sample")
    assert ticks == [tmp_path / "train", tmp_path / "sample"]


def test_a_file_in_the_place_of_the_folder_is_refused(run, here, capsys):
    (here / "trace").write_text("")
    words = ["sample", str(run), "--n", "1", "--out", "few", "--profile", "trace"]
    assert main(words) == 2
    assert "trace: File exists" in capsys.readouterr().err
    assert not (here / "few").exists()


def test_the_quota_of_a_container_counts_as_cores(tmp_path):
    file = tmp_path / "cpu.max"
    for text, wanted in (
        ("200000 100000", 2),
        ("50000 100000", 1),
        ("max 100000", sys.maxsize),
        ("", sys.maxsize),
    ):
        file.write_text(text)
        assert quota(file) == wanted
    assert quota(tmp_path / "none") == sys.maxsize
