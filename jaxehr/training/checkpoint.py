"""Orbax checkpoints of a training state: atomic, the last few kept, and written while
training goes on, but in a job of several processes."""

import os
import pathlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxehr.core.checks import InputError
from jaxehr.training.sharding import led, seen_by_all

# What reading raises; Orbax also `Exception` itself, for arrays.
UNREADABLE = (ValueError, KeyError, TypeError, OSError)


class Checkpoints:
    """A folder of numbered checkpoints; `extra` is JSON (elapsed seconds)."""

    def __init__(self, folder: str | os.PathLike[str], keep: int) -> None:
        self.folder = pathlib.Path(folder)
        led(lambda: self.folder.mkdir(parents=True, exist_ok=True))
        seen_by_all(self.folder)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            # Hosts of NFS list a folder as it was up to a minute ago.
            single_host_load_and_broadcast=True,
            # Of several writers in the background all would wait 20 minutes for one
            # that failed, and blame the others.
            enable_async_checkpointing=jax.process_count() == 1,
        )
        self._manager = ocp.CheckpointManager(self.folder.absolute(), options=options)

    def save(self, step: int, state: Any, extra: dict[str, Any]) -> None:
        """Writes; a lone process goes on as soon as the arrays are off the device."""
        if self._manager.latest_step() == step:
            return
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(whole(state)), extra=ocp.args.JsonSave(extra)
        )
        with self.storage():
            self._manager.save(step, args=arguments)

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest whole checkpoint in the form of `like`, or None."""
        step = self._manager.latest_step()
        if step is None:
            return None
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, whole(like))
        arguments = ocp.args.Composite(
            state=ocp.args.StandardRestore(shapes), extra=ocp.args.JsonRestore()
        )
        try:
            found = self._manager.restore(step, args=arguments)
        except Exception as error:
            if not isinstance(error, UNREADABLE) and type(error) is not Exception:
                raise
            raise InputError(self.unreadable(step, error)) from error
        leaves, form = jax.tree.flatten(like)
        kept = found["state"]
        leaves = [kept.get(str(i), leaf) for i, leaf in enumerate(leaves)]
        return jax.tree.unflatten(form, leaves), dict(found["extra"])

    def unreadable(self, step: int, error: Exception) -> str:
        """What is wrong with a checkpoint, and what can be done."""
        reason = str(error).strip().partition(". See")[0].partition("\n")[0][:200]
        older = [other for other in self._manager.all_steps() if other < step]
        way_out = "Train into another folder."
        if older:
            way_out = (
                "If it is damaged, remove this folder, and training goes on from step "
                f"{max(older)}; else train into another folder."
            )
        return (
            f"{self.folder / str(step)}: the checkpoint does not belong to this model "
            f"or is damaged ({reason}). {way_out}"
        )

    def close(self) -> None:
        """Waits until everything is on disk; ends the writing threads in any case."""
        with self.storage():
            try:
                self._manager.wait_until_finished()
            finally:
                self._manager.close()

    @contextmanager
    def storage(self) -> Iterator[None]:
        """An error of Orbax or TensorStore about the disk becomes one line."""
        try:
            yield
        except Exception as error:
            reason = storage_reason(error)
            if not reason:
                raise
            raise InputError(f"{self.folder}: {reason}") from None


def whole(state: Any) -> dict[str, Any]:
    """The leaves of a state by number; Orbax refuses arrays without elements."""
    leaves = enumerate(jax.tree.leaves(state))
    return {str(i): leaf for i, leaf in leaves if leaf.size}


def storage_reason(error: Exception) -> str:
    """What went wrong on disk if `error` is one of Orbax's or TensorStore's; or ""."""
    text = str(error)
    if found := re.search(r"([^:\[\]]+) \[os_error_code", text):
        return (
            f"cannot be written ({found[1].strip()}); make room, then repeat the "
            "command, which goes on from the last checkpoint."
        )
    return ""
