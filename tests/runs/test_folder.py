"""What a run folder keeps, and what goes when a training fails."""

import os
import types

import pytest

from jaxehr.core.checks import InputError
from jaxehr.models.cdmt.config import CdmtConfig
from jaxehr.runs import folder, training
from jaxehr.runs.folder import opened
from jaxehr.training import sharding


@pytest.mark.parametrize("error", [InputError, FloatingPointError, TypeError])
@pytest.mark.parametrize("saved", [False, True])
def test_a_failure_before_the_first_checkpoint_leaves_nothing(
    tmp_path, monkeypatch, error, saved
):
    """So that the same command may follow with other options."""
    monkeypatch.setattr(folder, "WAITS", 1)
    run = tmp_path / "deep" / "run"

    def fail():
        with opened(run, {"model": "cdmt"}):
            (run / "metrics.jsonl").write_text("{}")
            (run / "checkpoints" / ("5" if saved else "5.tmp")).mkdir(parents=True)
            raise error("no")

    with pytest.raises(error, match="no"):
        fail()
    assert (run / "run.json").exists() == saved
    assert list(tmp_path.iterdir()) == ([tmp_path / "deep"] if saved else [])


@pytest.fixture
def partner(monkeypatch):
    """Process 1 of a job whose host, by NFS, remembers what was not there."""
    look, gone = os.stat, set()

    def stat(path, *args, **options):
        if str(path) in gone:
            raise FileNotFoundError(str(path))
        try:
            return look(path, *args, **options)
        except FileNotFoundError:
            gone.add(str(path))
            raise

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(sharding, "SHARED_SECONDS", 0.0)
    for module in (folder, training):
        monkeypatch.setattr(module, "leads", lambda: False)


def test_nobody_looks_before_process_0_has_made_the_folder(
    tmp_path, monkeypatch, partner
):
    run = tmp_path / "run"

    def make(work):
        run.mkdir()
        (run / "run.json").write_text("{}")

    schema = types.SimpleNamespace(num_steps=24)
    monkeypatch.setattr(training, "led", lambda work: None)
    config = training.settle(run, "cdmt", CdmtConfig(), 1000, schema)[0]
    assert config.train.steps > 0
    monkeypatch.setattr(folder, "led", make)
    with opened(run, {"model": "cdmt"}):
        assert (run / "run.json").exists()
