"""What a run folder keeps, and what goes when a training fails."""

import pytest

from jaxehr.core.checks import InputError
from jaxehr.runs import folder
from jaxehr.runs.folder import opened


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
