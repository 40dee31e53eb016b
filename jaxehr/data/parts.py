"""Cohorts that a database makes part by part, so that only one part is in memory.

The parts are the shards of `data.shards`: people by hashed id. Events stay in the
engine, which keeps them on disk; each part's events are put on the grid by a query of
their own. A cohort that is wanted whole is filled in the same way, block by block.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from jaxehr.core.cohort import Dataset, Schema
from jaxehr.data import shards
from jaxehr.data.assemble import assemble, to_numpy
from jaxehr.data.columns import plain
from jaxehr.data.engines import upload
from jaxehr.data.events import Chosen, read_grid
from jaxehr.data.hospital import Hospital, PartOptions, in_part
from jaxehr.data.shards import Parts, Piece

SHARD, OWNER = "jaxehr_shard", "jaxehr_owner"


class Plan(NamedTuple):
    """Everything but the temporal table: what `Parts` are made of.

    Attributes:
      people: the static table; stays in the order of the cohort.
      rows: Ibis events of the form of `data.events`, chosen ones and others.
      axes: as `events.read_grid` takes them.
      provenance: of the cohort.
      where: names of the two tables in messages.
      ends: whether `people` has the column `end` of `events.read_grid`.
    """

    schema: Schema
    people: pa.Table
    rows: Any
    chosen: Chosen
    axes: dict[str, Any]
    provenance: dict[str, Any]
    where: tuple[str, str]
    ends: bool = False


def of_plan(
    hospital: Hospital, plan: Plan, number: int, options: PartOptions | None = None
) -> Parts:
    """The parts of a cohort whose events are in the engine.

    Args:
      number: 0 = as many as `shards.number_for` says.
      options: which part of our own split to take; None = all.

    Raises:
      InputError: as `assemble`; no stay in the part of the split.
    """
    ids, groups = owners_of(plan)
    if options is not None:
        taken = in_part(ids, groups, options)
        plan = plan._replace(people=plan.people.filter(pa.array(taken)))
        ids, groups = ids[taken], groups[taken]
    size = shards.dense_bytes(plan.schema, len(ids))
    number = number or shards.number_for(size)
    if number > 1:
        return Parts(number, made(hospital, plan, shards.shard_of(groups, number)))
    blocks = math.ceil(size / shards.SHARD_BYTES)
    pieces = made(hospital, plan, shards.shard_of(groups, blocks))
    return Parts(1, (collected(pieces, len(ids)) for _ in range(1)))


def owners_of(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Ids and groups of the people."""
    schema, people = plan.schema, plan.people
    ids = to_numpy(plain(people[schema.id]))
    if schema.group is None:
        return ids, ids
    return ids, to_numpy(plain(people[schema.group]), keep=True)


def made(hospital: Hospital, plan: Plan, place: np.ndarray) -> Iterator[Piece]:
    """The pieces by number; `place` Int [N] says in which each stay is."""
    id = plan.schema.id
    told = pa.table({OWNER: plan.people[id], SHARD: place})
    owners = upload(hospital.engine, told)
    for number in range(place.max() + 1):
        rows = np.flatnonzero(place == number)
        if not len(rows):
            nobody, none = shards.blank(plan.schema, 0, dense=True), np.zeros(0, "i8")
            data = Dataset(plan.schema, nobody, none, none, plan.provenance)
            yield Piece(data, rows)
            continue
        mine = owners.filter(owners[SHARD] == number)
        events = plan.rows.semi_join(mine, plan.rows[id] == mine[OWNER])
        static = plan.people.take(pa.array(rows))
        ends = static if plan.ends else None
        series = read_grid(hospital, events, plan.chosen, plan.axes, ends)
        data = assemble(
            plan.schema,
            static,
            series,
            plan.provenance,
            where=plan.where,
            allow_missing=True,  # features are those of everybody, not of the part
        )
        yield Piece(data, rows)


def collected(pieces: Iterator[Piece], count: int) -> Piece:
    """The cohort of `count` stays in memory: its arrays, and one piece at a time."""
    first = next(pieces)
    if len(first.rows) == count:
        return first
    filled = shards.blank(first.data.schema, count, dense=True)
    ids, groups, order = [], [], []
    for data, rows in itertools.chain([first], pieces):
        if len(rows):
            parts = zip(shards.leaves(filled), shards.leaves(data.cohort), strict=True)
            for target, leaf in parts:
                target[rows] = leaf
            ids.append(data.ids)
            groups.append(data.groups)
            order.append(rows)
    back = np.argsort(np.concatenate(order))
    ids, groups = np.concatenate(ids)[back], np.concatenate(groups)[back]
    schema, provenance = first.data.schema, first.data.provenance
    return Piece(Dataset(schema, filled, ids, groups, provenance), np.arange(count))
