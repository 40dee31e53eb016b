"""Orbax checkpoints of a training state: asynchronous, atomic, the last few kept."""

import os
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxehr.core.checks import InputError


class Checkpoints:
    """A folder of numbered checkpoints; `extra` is JSON (elapsed seconds)."""

    def __init__(self, folder: str | os.PathLike[str], keep: int) -> None:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, enable_async_checkpointing=True
        )
        self.folder = pathlib.Path(folder).absolute()
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, step: int, state: Any, extra: dict[str, Any]) -> None:
        """Starts writing; returns as soon as the arrays are copied off the device."""
        if self._manager.latest_step() == step:
            return
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(whole(state)), extra=ocp.args.JsonSave(extra)
        )
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
        except (ValueError, KeyError, TypeError, OSError) as error:
            reason = str(error).strip().splitlines()[0][:200]
            raise InputError(
                f"{self.folder / str(step)}: the checkpoint does not belong to this "
                f"model or is damaged ({reason}). Train into another folder."
            ) from error
        leaves, form = jax.tree.flatten(like)
        kept = found["state"]
        leaves = [kept.get(str(i), leaf) for i, leaf in enumerate(leaves)]
        return jax.tree.unflatten(form, leaves), dict(found["extra"])

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()


def whole(state: Any) -> dict[str, Any]:
    """The leaves of a state by number; Orbax refuses arrays without elements."""
    leaves = enumerate(jax.tree.leaves(state))
    return {str(i): leaf for i, leaf in leaves if leaf.size}
