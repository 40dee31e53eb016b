"""What the processes of a job agree on. A job of two is in tests/cli."""

import pickle
import threading

import jax
import numpy as np
import pytest

from jaxehr.core.checks import InputError
from jaxehr.training import sharding, stages
from jaxehr.training.sharding import computed_once, seen_by_all
from jaxehr.training.stages import Stages


def test_a_file_that_is_seen_late(tmp_path, monkeypatch):
    """As by a host of NFS, which remembers that it was not there."""
    path = tmp_path / "run.json"
    timer = threading.Timer(0.2, path.touch)
    timer.start()
    seen_by_all(path)
    assert path.exists()
    timer.join()


@pytest.mark.parametrize("seen", [[False, False], [True, False]])
def test_a_folder_that_is_not_shared(seen, tmp_path, monkeypatch):
    monkeypatch.setattr(sharding, "SHARED_SECONDS", 0.0)
    monkeypatch.setattr(sharding, "agreed", lambda mine: np.array(seen))
    with pytest.raises(InputError, match="deep: is not on one disk for all processes"):
        seen_by_all(tmp_path / "deep" / "run.json")


@pytest.mark.parametrize("first", [False, True])
def test_process_0_says_whether_a_later_stage_began(first, tmp_path, monkeypatch):
    """What another process sees in the folder may be a minute old."""
    monkeypatch.setattr(stages, "leads", lambda: False)
    monkeypatch.setattr(stages, "agreed", lambda mine: np.array([first, mine]))
    (tmp_path / "second" / "5").mkdir(parents=True)
    run = Stages({"first": 1, "second": 1}, checkpoint=str(tmp_path))
    assert run.continued("first") == first


def test_another_process_takes_what_process_0_computed(monkeypatch):
    """Its own program may round in another way."""
    first = {"z": np.array([-0.0, np.nan, 0.1]), "used": "ridge"}
    told = pickle.dumps(first)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(sharding, "leads", lambda: False)
    size = lambda mine: np.array([mine if isinstance(mine, bool) else len(told)])
    monkeypatch.setattr(sharding, "agreed", size)
    broadcast = lambda mine: np.frombuffer(told, np.uint8) | mine
    monkeypatch.setattr(sharding.multihost_utils, "broadcast_one_to_all", broadcast)
    found = computed_once(lambda: pytest.fail("computed again"))()
    assert found["used"] == "ridge"
    assert found["z"].tobytes() == first["z"].tobytes()
