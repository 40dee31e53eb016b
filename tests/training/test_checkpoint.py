"""Checkpoints come back bit for bit; foreign and damaged ones are refused."""

import shutil

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from objectives import same_bits

from jaxehr.core.checks import InputError
from jaxehr.training.checkpoint import Checkpoints


def state(fill=1.5, width=3):
    return {
        "w": jnp.full((2, width), fill, jnp.float32),
        "none": jnp.zeros((0, 4)),
        "step": jnp.int32(7),
        "loss": jnp.float32(jnp.inf),
        "deep": [jnp.arange(4, dtype=jnp.int8), (jnp.array([True, False]),)],
    }


def store(folder, saved, keep=2):
    checkpoints = Checkpoints(folder, keep)
    for step, fill in saved:
        checkpoints.save(step, state(fill), {"seconds": float(step)})
    checkpoints.close()


def restore(folder, like):
    checkpoints = Checkpoints(folder, 2)
    try:
        return checkpoints.restore(like)
    finally:
        checkpoints.close()


def numbers(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_nothing_to_restore(tmp_path):
    assert restore(tmp_path / "c", state()) is None


def test_the_newest_comes_back(tmp_path):
    store(tmp_path, [(1, 0.1), (5, 0.2), (9, 1 / 3)])
    found, extra = restore(tmp_path, state(0.0))
    same_bits(found, state(1 / 3))
    assert extra == {"seconds": 9.0}
    assert isinstance(found["deep"][1], tuple)


@pytest.mark.parametrize("keep", [1, 2])
def test_the_last_few_are_kept(tmp_path, keep):
    store(tmp_path, [(1, 0.1), (5, 0.2), (9, 0.3)], keep)
    assert numbers(tmp_path) == [1, 5, 9][-keep:]


def test_a_step_is_saved_once(tmp_path):
    store(tmp_path, [(3, 0.1)])
    store(tmp_path, [(3, 0.2)])
    same_bits(restore(tmp_path, state())[0], state(0.1))


def test_a_half_written_one_is_ignored(tmp_path):
    store(tmp_path, [(3, 0.1)])
    half = tmp_path / "6.orbax-checkpoint-tmp"
    (half / "state").mkdir(parents=True)
    (half / "state" / "junk").write_text("x")
    same_bits(restore(tmp_path, state())[0], state(0.1))


def test_the_copy_is_taken_at_once(tmp_path):
    """The training loop gives the arrays away right after `save`."""
    checkpoints = Checkpoints(tmp_path, 2)
    given = state(0.5)
    checkpoints.save(1, given, {})
    given["w"].delete()
    checkpoints.close()
    same_bits(restore(tmp_path, state())[0], state(0.5))


def test_of_another_shape(tmp_path):
    store(tmp_path, [(3, 0.1)])
    with pytest.raises(InputError, match="3: the checkpoint does not belong to this"):
        restore(tmp_path, state(width=4))


@pytest.mark.parametrize("change", [{"x": jnp.zeros(2)}, {"a": jnp.zeros(2)}, None])
def test_of_another_structure(tmp_path, change):
    store(tmp_path, [(3, 0.1)])
    like = state() | (change or {})
    if change is None:
        like.pop("w")  # the last leaf: the others keep their numbers
    with pytest.raises(InputError, match="3: the checkpoint does not belong to this"):
        restore(tmp_path, like)


def damage(folder, what):
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        if what == "empty":
            path.write_bytes(b"")
        elif what == "removed" and "state" in path.parts:
            path.unlink()
        elif what == "noise" and path.stat().st_size > 0:
            rng = np.random.default_rng(0)
            path.write_bytes(rng.bytes(path.stat().st_size))


@pytest.mark.parametrize("what", ["empty", "removed", "noise"])
def test_damaged(tmp_path, what):
    store(tmp_path, [(3, 0.1)])
    damage(tmp_path / "3", what)
    text = "3: the checkpoint does not belong to this model or is damaged"
    with pytest.raises(InputError, match=rf"{text} \(.+\)\. Train into another folder"):
        restore(tmp_path, state())


def test_the_one_before_the_damaged_one(tmp_path):
    store(tmp_path, [(3, 0.1), (5, 0.2)])
    damage(tmp_path / "5", "removed")
    with pytest.raises(InputError, match=r"5: .* remove this folder, .* from step 3;"):
        restore(tmp_path, state())
    shutil.rmtree(tmp_path / "5")
    same_bits(restore(tmp_path, state())[0], state(0.1))


def test_damaged_arrays(tmp_path, monkeypatch):
    """Of which Orbax says it with `Exception` itself."""
    store(tmp_path, [(3, 0.1)])

    def damaged(*args, **options):
        raise Exception("Encountered error while reading. See full details: <...>.")

    monkeypatch.setattr(ocp.CheckpointManager, "restore", damaged)
    text = r"3: .* or is damaged \(Encountered error while reading\)\. Train into"
    with pytest.raises(InputError, match=text):
        restore(tmp_path, state())


def test_a_full_disk_is_no_damage(tmp_path):
    checkpoints = Checkpoints(tmp_path, 2)
    full = ValueError("x: No space left on device [os_error_code='28'] [source...]")
    with (
        pytest.raises(
            InputError, match=r"cannot be written \(No space left on device\)"
        ),
        checkpoints.storage(),
    ):
        raise full
    checkpoints.close()
