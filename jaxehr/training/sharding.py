"""One mesh axis `data`: patients are split over devices, parameters are copied."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"


def make_mesh(devices: int | None = None) -> Mesh:
    """A mesh over the first `devices` devices, all of them by default."""
    chosen = jax.devices()[: devices or len(jax.devices())]
    # Explicit axes, the default since jax 0.10, refuse indexing of sharded arrays.
    return jax.make_mesh((len(chosen),), (AXIS,), (AxisType.Auto,), devices=chosen)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """A copy of every array on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


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
