"""One mesh axis `data`: patients are split over devices, parameters are copied.

The devices are those of all processes of a job (`jaxehr train --distributed`), of which
each has the same data and runs the same program. A lone process is a job of one.
"""

import functools
import pathlib
import pickle
import time
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxehr.core.checks import InputError

AXIS = "data"
Found = TypeVar("Found")
SHARED_SECONDS = 90.0  # a host of NFS remembers for up to 60 that a file is not there


def make_mesh(devices: int | None = None) -> Mesh:
    """A mesh over the first `devices` devices, all of them by default."""
    chosen = jax.devices()[: devices or len(jax.devices())]
    # Explicit axes, the default since jax 0.10, refuse indexing of sharded arrays.
    return jax.make_mesh((len(chosen),), (AXIS,), (AxisType.Auto,), devices=chosen)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """A copy of every array on every device of the mesh; each process has its own."""
    whole = NamedSharding(mesh, PartitionSpec())
    if jax.process_count() == 1:
        return jax.device_put(tree, whole)

    def copied(leaf: Any) -> jax.Array:
        # `device_put` would gather every process's copy on every device to compare.
        found = np.asarray(leaf)
        found = found.astype(jax.dtypes.canonicalize_dtype(found.dtype), copy=False)
        return jax.make_array_from_callback(found.shape, whole, lambda at: found[at])

    return jax.tree.map(copied, tree)


def replicate_checked(tree: Any, mesh: Mesh) -> Any:
    """`replicate`, of what has to be the same in every process: see `computed_once`.

    Raises:
      InputError: it is not.
    """
    if jax.process_count() > 1:
        leaves = map(np.asarray, jax.tree.leaves(tree))
        sums = [zlib.crc32(np.ascontiguousarray(x).data) for x in leaves]
        told = agreed(np.array(sums, np.uint32))
        if (told != told[0]).any():
            raise InputError(
                "the processes of this job do not hold the same patients or "
                "parameters; give all of them the same folder, versions and processor."
            )
    return replicate(tree, mesh)


def at_home(tree: Any) -> Any:
    """The arrays of `replicate` on this process's own device."""
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), tree)


def per_device(
    function: Callable[..., Any], mesh: Mesh, **specs: Any
) -> Callable[..., Any]:
    """`function` on each device; inputs and outputs are copied unless specs differ."""
    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=specs.get("in_specs", PartitionSpec()),
        out_specs=specs.get("out_specs", PartitionSpec()),
        check_vma=False,
    )


def split_rows(
    function: Callable[..., Any], mesh: Mesh, copied: int = 1
) -> Callable[..., Any]:
    """`function` with its arguments after the first `copied` ones split by rows."""

    def run(*args: Any) -> Any:
        specs = tuple(
            PartitionSpec() if i < copied else PartitionSpec(AXIS)
            for i in range(len(args))
        )
        return per_device(
            function, mesh, in_specs=specs, out_specs=PartitionSpec(AXIS)
        )(*args)

    return run


def compiled_rows(
    function: Callable[..., Any], devices: int, copied: int = 1
) -> Callable[..., Any]:
    """`split_rows` over the first `devices` devices, compiled.

    Every process of the job gets all rows.
    """
    if devices == 1:
        return jax.jit(function)
    mesh = make_mesh(devices)
    whole = NamedSharding(mesh, PartitionSpec()) if jax.process_count() > 1 else None
    return jax.jit(split_rows(function, mesh, copied), out_shardings=whole)


def leads() -> bool:
    """Whether this process writes what the job makes."""
    return jax.process_index() == 0


def agreed(values: Any) -> np.ndarray:
    """[processes, ...]: the values of every process, the same in all of them."""
    mine = np.asarray(values)
    if jax.process_count() == 1:
        return mine[None]
    return np.asarray(multihost_utils.process_allgather(mine))


def led(work: Callable[[], None]) -> None:
    """Does `work` in the process that leads; the others wait.

    Raises:
      InputError: in the others too, where it was refused.
    """
    failed: Exception | None = None
    if leads():
        try:
            work()
        except Exception as error:  # the others have to hear of it
            failed = error
    refused = bool(agreed(failed is not None)[0])
    if failed:
        raise failed
    if refused:
        raise InputError("process 0 of this job refused; its line says why.")


def computed_once(function: Callable[..., Found]) -> Callable[..., Found]:
    """`function` computed in the process that leads, whose result all processes get.

    For programs of one device whose result a job has to share: each process would
    compile its own, and on GPUs take the kernels that were fastest just then, which
    round differently.
    """

    @functools.wraps(function)
    def shared(*args: Any, **options: Any) -> Found:
        if jax.process_count() == 1:
            return function(*args, **options)
        found = b""

        def compute() -> None:
            nonlocal found
            found = pickle.dumps(function(*args, **options))

        led(compute)
        size = int(agreed(len(found))[0])
        mine = np.frombuffer(found or bytes(size), np.uint8)
        return pickle.loads(multihost_utils.broadcast_one_to_all(mine).tobytes())

    return shared


def seen_by_all(path: pathlib.Path) -> None:
    """Waits until every process of the job sees what process 0 has made.

    Raises:
      InputError: one of them does not within `SHARED_SECONDS`.
    """
    end = time.monotonic() + SHARED_SECONDS
    while not (seen := path.exists()) and time.monotonic() < end:
        time.sleep(0.5)
    if not agreed(seen).all():
        raise InputError(
            f"{path.parent}: is not on one disk for all processes of this job; choose "
            "a folder that all hosts share."
        )
