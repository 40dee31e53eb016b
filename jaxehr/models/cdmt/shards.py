"""CDMT-EHR learned from a cohort in shards that does not fit into memory.

Shards are read twice. The first time what preprocessing reads off the training patients
is counted; counts add up, so they are exact and the same for any number of shards. The
second time patients are encoded into a file of records, from which training reads its
batches in the order that it would have in memory. Between, some of them, evenly spread,
teach what gaps look like.
"""

import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxehr.core import arrays
from jaxehr.core.cohort import (
    Cohort,
    Schema,
    coded_features,
    concatenate,
    numeric_features,
    rows_of,
    to_dense,
)
from jaxehr.core.contracts import Callback, Params, gather
from jaxehr.core.files import write_bytes
from jaxehr.data import mixed
from jaxehr.data.records import Records, is_whole, kind_of, write_records
from jaxehr.data.shards import Piece, Shards, blank, pieces
from jaxehr.models.cdmt import preprocessing
from jaxehr.models.cdmt.layout import Layout, completed, refuse_silent
from jaxehr.models.cdmt.objective import Model, fitted_model, make_objective
from jaxehr.models.cdmt.preprocessing import Batch, Seen
from jaxehr.training.config import resolve
from jaxehr.training.feed import Feed
from jaxehr.training.loop import train

FITTED, LEARN, JUDGE = "fitted.npz", "learn.records", "judge.records"
TALLY_BYTES = 48  # of one value while tallies are added, if no value repeats


class Encoded(NamedTuple):
    """What was read off the training patients, and where they are encoded."""

    fitted: dict[str, Any]
    learn: Records
    judge: Records


def fit_shards(
    schema: Schema,
    model: Model,
    key: jax.Array,
    shards: Shards,
    learn: np.ndarray,
    judge: np.ndarray,
    *,
    scratch: pathlib.Path,
    memory: int,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | None = None,
    announce: Callable[[str], None] | None = None,
) -> Params:
    """`fit` with the patients `learn`, validated with `judge` (Bool [N]).

    Args:
      scratch: folder of the encoded patients; what is there is used.
      memory: bytes that counting may take.
    """
    size, config = int(learn.sum()), model.config
    sizes = size, max(schema.num_steps, 1)
    found = encoded(schema, model, shards, (learn, judge), scratch, memory)
    model = fitted_model(model, found.fitted)
    if announce:
        held = size * found.learn.kind.itemsize / 2**20
        announce(
            f"reads {size} encoded patients ({held:.0f} MiB) from {scratch}; "
            f"validates with {judge.sum()}"
        )
    judges = found.judge.take(np.arange(judge.sum()))
    lengths = np.flatnonzero(np.sum(found.fitted["frames"], (0, 1))), judges.length
    trained = train(
        key,
        make_objective(model, found.fitted, *lengths),
        Feed(size, found.learn.take),
        config=resolve(
            config.train, *sizes, accelerator=jax.default_backend() != "cpu"
        ),
        valid=judges,
        callbacks=callbacks,
        checkpoint=checkpoint,
        announce=announce,
    )
    weights = jax.tree.map(np.asarray, trained.params)
    return {"fitted": found.fitted, "weights": weights}


def record_kind(schema: Schema, layout: Layout, fitted: dict[str, Any]) -> np.dtype:
    """The dtype of an encoded patient, known before any is encoded."""
    return kind_of(preprocessing.encode(fitted, layout, blank(schema, 1, dense=True)))


def encoded(
    schema: Schema,
    model: Model,
    shards: Shards,
    rows: tuple[np.ndarray, np.ndarray],
    scratch: pathlib.Path,
    memory: int,
) -> Encoded:
    """Fits and encodes, unless an earlier call did."""

    def made(fitted: dict[str, Any]) -> Encoded:
        kind = record_kind(schema, model.layout, fitted)
        files = zip((LEARN, JUDGE), rows, strict=True)
        parts = (
            Records(scratch / name, Batch, kind, slots_of(shards, chosen))
            for name, chosen in files
        )
        return Encoded(fitted, *parts)

    if (scratch / FITTED).is_file():
        ready = made(arrays.read_arrays(scratch / FITTED))
        if all(is_whole(r.path, r.kind, len(r.slots)) for r in ready[1:]):
            return ready
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    seen = count(schema, model.layout, shards, rows[0], memory)
    refuse_silent(model.layout, int(seen.frames[..., 0].sum()))
    fitted = preprocessing.fit_seen(model.layout, model.config, seen)
    chosen = preprocessing.learners(model.layout, int(rows[0].sum()))
    some = those_of(shards, rows[0], chosen)
    fitted |= preprocessing.fit_latents(model.layout, model.config, fitted, some)
    layout = completed(model.layout, fitted)
    _, learn, judge = made(fitted)
    counted: list[preprocessing.Counted] = []
    judged: list[Batch] = []
    numbers = places_of(*rows)

    def learned() -> Iterator[Batch]:
        for data, places in pieces(shards, rows[0] | rows[1]):
            batch = preprocessing.encode(fitted, layout, data.cohort, numbers[places])
            mine = gather(batch, rows[0][places])
            judged.append(gather(batch, rows[1][places]))
            found = [*counted, preprocessing.count(layout, model.config, mine)]
            counted[:] = [functools.reduce(preprocessing.add_counted, found)]
            yield mine

    write_records(learn.path, learn.kind, learned())
    write_records(judge.path, judge.kind, judged)
    fitted |= preprocessing.fit_counted(layout, model.config, counted[0])
    write_bytes(scratch / FITTED, arrays.to_bytes(fitted))
    return Encoded(fitted, learn, judge)


def places_of(learn: np.ndarray, judge: np.ndarray) -> np.ndarray:
    """Int [N]: which of those who learn, or of those who judge, a patient is."""
    return np.where(learn, np.cumsum(learn), np.cumsum(judge)) - 1


def those_of(shards: Shards, rows: np.ndarray, numbers: np.ndarray) -> Cohort:
    """Those with `numbers` of the patients `rows`, in memory's order."""
    chosen = np.zeros_like(rows)
    chosen[np.flatnonzero(rows)[numbers]] = True
    found = list(pieces(shards, chosen))
    order = np.argsort(np.concatenate([places for _, places in found]))
    cohorts = [to_dense(data.cohort) for data, _ in found]
    return rows_of(concatenate(cohorts), order)


def slots_of(shards: Shards, rows: np.ndarray) -> np.ndarray:
    """Int: where in the file is the i-th of the patients `rows`; shard after shard."""
    places = np.concatenate([part[rows[part]] for part in shards.rows])
    return np.argsort(places, kind="stable")


def count(
    schema: Schema, layout: Layout, shards: Shards, rows: np.ndarray, memory: int
) -> Seen:
    """What preprocessing reads off the patients `rows`.

    Columns whose values may all differ do not fit into memory together: then shards
    are read several times, some columns each time.
    """
    found = []
    for columns in passes(schema, int(rows.sum()), memory):
        parts = pieces(shards, rows, columns)
        see = lambda piece: preprocessing.see(
            schema, narrow(layout, piece), piece.data.cohort
        )
        found.append(functools.reduce(preprocessing.add_seen, map(see, parts)))
    return found[0]._replace(temporal=joined([seen.temporal for seen in found]))


def passes(schema: Schema, patients: int, memory: int) -> list[tuple[str, ...] | None]:
    """The temporal columns that are counted together; None = all."""
    numeric = [f.name for f in numeric_features(schema.temporal)]
    coded = [f.name for f in coded_features(schema.temporal)]
    most = max(memory // (TALLY_BYTES * patients * max(schema.num_steps, 1)), 1)
    if len(numeric) <= most:
        return [None]
    groups = [tuple(numeric[i : i + most]) for i in range(0, len(numeric), most)]
    return [(*coded, *groups[0]), *groups[1:]]


def narrow(layout: Layout, piece: Piece) -> Layout:
    """The layout of the columns that were read."""
    return layout._replace(temporal=mixed.Part(piece.data.schema.temporal, ()))


def joined(parts: list[mixed.Seen]) -> mixed.Seen:
    """The columns of several passes side by side: numeric ones, then coded ones."""
    numeric = [part.observed[: len(part.numeric)] for part in parts]
    coded = [part.observed[len(part.numeric) :] for part in parts]
    return parts[0]._replace(
        numeric=tuple(t for part in parts for t in part.numeric),
        codes=tuple(c for part in parts for c in part.codes),
        observed=np.concatenate([*numeric, *coded]),
    )
