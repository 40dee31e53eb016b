"""Memory and time of the temporal autoencoder on sparse tables of FIDDLE's sizes.

    python -m experiments.flexgen_memory mimic-mortality

Generates random ones (3 % of the cells) in the shape of the named task, trains steps
of 128 patients, encodes and draws a block of patients, and prints after each part the
peak resident memory of the process so far, and the seconds of one training step.
"""

import dataclasses
import resource
import sys
import time
from typing import TYPE_CHECKING, Literal

import numpy as np
import tyro

from jaxehr.devices import configure

if TYPE_CHECKING:
    from jaxehr.core.cohort import Cohort, Schema
    from jaxehr.models.flexgen.config import FlexgenConfig

# Patients, steps, temporal and static columns [flexgen2024, Table 1].
TASKS = {
    "mimic-mortality": (8_577, 48, 7_307, 96),
    "mimic-arf": (15_873, 4, 4_045, 98),
    "eicu-mortality": (77_066, 48, 2_382, 146),
    "eicu-arf": (138_840, 4, 5_854, 717),
}
AT_ONCE = 512  # patients generated at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Measure one shape."""

    task: tyro.conf.Positional[
        Literal["mimic-mortality", "mimic-arf", "eicu-mortality", "eicu-arf"]
    ]
    """The FIDDLE task whose shape is generated."""
    density: float = 0.03
    """Share of ones among the cells."""
    encoder: Literal["lstm", "cnn1d", "sum"] = "lstm"
    """Temporal encoder."""
    batch_size: int = 128
    """Patients of one step."""
    steps: int = 4
    """Steps that are timed."""
    patients: int = 0
    """Fewer patients than the task has; 0 = all."""


def main(arguments: Memory) -> None:
    """Generates, prepares, trains, encodes, draws."""
    from jaxehr.models.flexgen import preprocessing
    from jaxehr.models.flexgen.config import FlexgenConfig
    from jaxehr.models.flexgen.layout import make_layout

    shape = TASKS[arguments.task]
    shape = (arguments.patients or shape[0], *shape[1:])
    print(f"{arguments.task}: {' x '.join(map(str, shape[:3]))}", flush=True)
    schema, cohort = generate(shape, arguments.density)
    note(f"generated, {cohort.temporal.cells.nbytes / 2**30:.2f} GiB of ones")
    config = FlexgenConfig(encoder=arguments.encoder)
    layout = make_layout(schema, config, sparse=True)
    fitted = preprocessing.fit(schema, layout, config, cohort)
    data = preprocessing.encode(fitted, layout, cohort)
    note("prepared")
    train_and_use(arguments, config, layout, fitted, data)


def generate(
    shape: tuple[int, int, int, int], density: float
) -> tuple["Schema", "Cohort"]:
    """Independent ones, in both parts; half of the patients have label 1."""
    from jaxehr.core.cohort import Feature, Label, Schema, Table, make_cohort
    from jaxehr.core.sparse import SparseTable

    patients, steps, temporal, static = shape
    generator = np.random.default_rng(0)
    size, cells, counts = steps * temporal, [], []
    for first in range(0, patients, AT_ONCE):
        rows = min(AT_ONCE, patients - first)
        most = int(rows * size * density * 1.1) + 1000
        # Distances between ones of independent tosses are geometric.
        place = np.cumsum(generator.geometric(density, most)) - 1
        owner, within = np.divmod(place[place < rows * size], size)
        cells.append(within.astype(np.int32))
        counts.append(np.bincount(owner, minlength=rows))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
    length = np.full(patients, steps, np.int32)
    table = SparseTable(offsets, np.concatenate(cells), length, steps, temporal)
    tossed = generator.random((patients, static)) < density
    people = Table(
        np.zeros((patients, 0)), tossed.astype(np.int32), np.ones(tossed.shape, bool)
    )
    label = np.arange(patients) % 2
    columns = lambda name, count: tuple(
        Feature(name=f"{name}_{i}", kind="binary", categories=(0, 1))
        for i in range(count)
    )
    schema = Schema(
        static=columns("s", static),
        temporal=columns("x", temporal),
        num_steps=steps,
        label=Label(name="outcome", classes=(0, 1)),
    )
    return schema, make_cohort(people, table, length, label)


def train_and_use(
    arguments: Memory,
    config: "FlexgenConfig",
    layout: object,
    fitted: dict,
    data: object,
) -> None:
    """Training steps as `jaxehr train` does them, then one block of patients."""
    import jax
    import jax.numpy as jnp

    from jaxehr.models.flexgen import preprocessing
    from jaxehr.models.flexgen.autoencoders import encode_all, make_autoencoder
    from jaxehr.training.config import TrainConfig
    from jaxehr.training.loop import train

    model = make_autoencoder(layout, config, "temporal")  # pyright: ignore
    people = preprocessing.records(data, "temporal")  # pyright: ignore
    told: list[tuple[int, float]] = []  # after each dispatch: step, seconds
    # The first step compiles and is not timed.
    settings = TrainConfig(steps=1 + arguments.steps, batch_size=arguments.batch_size)
    trained = train(
        jax.random.key(0),
        model.objective(fitted),
        people,
        config=settings,
        callbacks=[lambda step, metrics: told.append((step, metrics["seconds"]))],
    )
    each = seconds_of_step(told)
    note(f"trained, {each:.2f} s a step of {arguments.batch_size} patients")
    some = preprocessing.records(data, "temporal", np.arange(128))  # pyright: ignore
    mean, _ = encode_all(model, trained.params, some)
    label = jax.nn.one_hot(some.label, layout.num_classes)  # pyright: ignore
    draw = jax.jit(
        lambda keys, z: model.draw(keys, model.decode(trained.params, z, label))
    )
    begun = time.perf_counter()
    drawn = jax.block_until_ready(
        draw(jax.random.split(jax.random.key(1), 128), jnp.asarray(mean))
    )
    ones = float(jnp.mean(drawn.block.codes))
    note(f"encoded and drew 128, {time.perf_counter() - begun:.1f} s; ones {ones:.4f}")


def seconds_of_step(told: list[tuple[int, float]]) -> float:
    """Seconds of one step, from (step, seconds) after each dispatch.

    The first dispatch, which compiles, is left out.
    """
    (first, begun), (last, ended) = told[0], told[-1]
    return (ended - begun) / (last - first)


def note(what: str) -> None:
    """One line: what was done, and the peak of memory so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    print(f"{what}; peak {peak * unit / 2**30:.2f} GiB", flush=True)


if __name__ == "__main__":
    configure()
    main(tyro.cli(Memory))
