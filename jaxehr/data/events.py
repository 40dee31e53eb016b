"""Dated events of any variable as a cohort: choice of variables, grid, categories.

Events are an Ibis table with the columns of `COLUMNS`: person, stay, `hour` since the
start of the window, `key` and `label` of the variable, and `number`, `text` or neither
(something was done). A variable is numeric when most of its values are numbers, else
coded; one without values is a constant whose mask carries all. Of several values in a
time step numbers become their mean, codes the last one.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple

import ibis
import numpy as np
import pyarrow as pa

from jaxehr.core.checks import InputError, positive, within
from jaxehr.core.cohort import Feature
from jaxehr.data.columns import listing, pc
from jaxehr.data.engines import EngineOptions, fetch, keep
from jaxehr.data.gridding import grid_long, in_memory
from jaxehr.data.hospital import Hospital, Keys, step, without

DONE = "done"  # the only category of a variable without values
COLUMNS = ("hour", "key", "label", "number", "text", "unit")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventOptions(EngineOptions):
    """Which variables of a database become columns."""

    min_share: float = 0.05
    """Share of stays that need a value of a variable; FIDDLE's release has 0.001."""
    max_variables: int = 200
    """Most temporal variables: those that most stays have."""
    max_categories: int = 20
    """Most values of a coded variable; with more it is left out."""
    items: tuple[str, ...] = ()
    """Only these variables: item ids of MIMIC-III (225158/h: the rate of 225158), codes
    of MEDS; empty = all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        within("min_share", self.min_share, 0.0, 1.0)
        positive(max_variables=self.max_variables, max_categories=self.max_categories)


def refuse_choice(options: EventOptions, *others: str) -> None:
    """Raises InputError where options choose variables and the cohort's are fixed."""
    defaults = {f.name: f.default for f in dataclasses.fields(options)}
    own = [field.name for field in dataclasses.fields(EventOptions)]
    shared = {field.name for field in dataclasses.fields(EngineOptions)}
    for name in (*(name for name in own if name not in shared), *others):
        if getattr(options, name) != defaults[name]:
            raise InputError(
                f"{name} chooses variables, but those of the task vitals24 are fixed."
            )


class Chosen(NamedTuple):
    """The features, the codes of coded ones (key, text -> code), and what was lost."""

    features: tuple[Feature, ...]
    keys: dict[str, str]  # key of the variable -> name of the feature
    codes: pa.Table
    notes: dict[str, Any]


def tidy(hospital: Hospital, events: Any, keys: Keys, hours: float) -> Any:
    """Events inside the window, each once, in the commonest unit of their variable."""
    rows = events.filter((events.hour >= 0) & (events.hour < hours))
    rows = rows.filter(rows.key.notnull())
    rows = step(hospital, f"events in the first {hours:g} h", rows, keys, store=False)
    rows = step(hospital, "each event once", rows.distinct(), keys)
    spelt = rows.unit.fill_null("").lower()
    counts = rows.filter(rows.number.notnull()).group_by("key", unit=spelt)
    counts = counts.aggregate(n=lambda t: t.count())
    order = ibis.window(group_by="key", order_by=[ibis.desc("n"), "unit"])
    best = counts.mutate(place=ibis.row_number().over(order))
    best = best.filter(best["place"] == 0).select(best_key="key", best_unit="unit")
    best = keep(hospital.engine, best)
    both = rows.left_join(best, rows.key == best.best_key)
    same = both.unit.fill_null("").lower() == both.best_unit
    both = without(both.filter(both.number.isnull() | same), "best_key", "best_unit")
    text = "in the commonest unit of their variable"
    return step(hospital, text, both, keys, store=False)


def choose(
    hospital: Hospital, rows: Any, keys: Keys, stays: int, options: EventOptions
) -> Chosen:
    """The variables that become features, most frequent first.

    Raises:
      InputError: an unknown name in `options.items`, or no variable is left.
    """
    summary = rows.group_by("key").aggregate(
        label=rows.label.max(),
        unit=rows.unit.max(where=rows.number.notnull()),
        stays=rows[keys.stay].nunique(),
        values=rows.count(),
        numbers=rows.number.count(),
        texts=rows.text.count(),
        kinds=rows.text.nunique(where=rows.number.isnull()),
    )
    found = fetch(hospital.engine, summary).to_pylist()
    found.sort(key=lambda row: (-row["stays"], row["key"]))
    if options.items:
        have = {row["key"] for row in found}
        absent = [item for item in options.items if item not in have]
        if absent:
            raise InputError(
                f"{hospital.folder}: unknown item(s) {listing(absent)}: no event in "
                f"the window has them; frequent ones are {listing(sorted(have), 12)}."
            )
        found = [row for row in found if row["key"] in options.items]
    often = [row for row in found if row["stays"] >= options.min_share * stays]
    fit = [r for r in often if numeric(r) or r["kinds"] <= options.max_categories]
    taken = fit[: options.max_variables]
    if not taken:
        raise InputError(
            f"{hospital.folder}: no variable is left of {len(found)}: none has a value "
            f"in {options.min_share:.0%} of {stays} stays; lower min_share."
        )
    coded = [row["key"] for row in taken if not numeric(row) and row["texts"]]
    codes = read_codes(hospital, rows, coded)
    notes = {
        "variables seen": len(found),
        "too rare": len(found) - len(often),
        "too many values": len(often) - len(fit),
        "beyond max_variables": len(fit) - len(taken),
        "kept": len(taken),
    }
    features = tuple(feature(row, codes) for row in taken)
    names = {row["key"]: f.name for row, f in zip(taken, features)}
    return Chosen(features, names, codes, notes)


def numeric(row: dict[str, Any]) -> bool:
    return 2 * row["numbers"] > row["values"]


def read_codes(hospital: Hospital, rows: Any, coded: list[str]) -> pa.Table:
    """key, text, code: the texts of each coded variable in alphabetical order."""
    if not coded:
        names = {"key": pa.string(), "text": pa.string(), "code": pa.float64()}
        return pa.schema(list(names.items())).empty_table()
    texts = rows.filter(
        rows.key.isin(coded) & rows.text.notnull() & rows.number.isnull()
    )
    table = fetch(hospital.engine, texts.select("key", "text").distinct())
    table = table.sort_by([("key", "ascending"), ("text", "ascending")])
    keys = np.array(table["key"].to_pylist(), object)
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    sizes = np.diff(np.r_[starts, len(keys)])
    codes = np.arange(len(keys)) - np.repeat(starts, sizes)
    return table.append_column("code", pa.array(codes, pa.float64()))


def feature(row: dict[str, Any], codes: pa.Table) -> Feature:
    """The feature of a variable; its name ends in the key, which makes it unique."""
    key, label = row["key"], row["label"]
    name = f"{label} [{key}]" if label and label != key else key
    if numeric(row):
        return Feature(name=name, kind="numeric", unit=row["unit"] or "")
    values = codes.filter(pc.equal(codes["key"], key))["text"].to_pylist()
    return coded_feature(name, "string", values or [DONE])


def coded_feature(name: str, dtype: str, values: Iterable[Any]) -> Feature:
    """The feature whose categories are `values`, in their order."""
    categories = tuple(values)
    kind: Any = {1: "constant", 2: "binary"}.get(len(categories), "categorical")
    return Feature(name=name, kind=kind, dtype=dtype, categories=categories)


def static_features(
    people: pa.Table, coded: dict[str, str], numeric: dict[str, str]
) -> tuple[Feature, ...]:
    """Features of a static table: coded columns (name -> dtype) with the categories
    that occur, then numeric ones (name -> unit); columns without any value are left
    out."""
    found = []
    for name, dtype in coded.items():
        values = sorted(set(people[name].drop_null().to_pylist()))
        found += [coded_feature(name, dtype, values)] if values else []
    for name, unit in numeric.items():
        if people[name].null_count < len(people):
            found.append(Feature(name=name, kind="numeric", unit=unit))
    return tuple(found)


def read_grid(
    hospital: Hospital,
    rows: Any,
    chosen: Chosen,
    axes: dict[str, Any],
    ends: pa.Table | None = None,
) -> pa.Table:
    """The temporal table; every stay with an event has the whole window.

    Args:
      axes: id, time, start, step, num_steps as `grid_long` takes them.
      ends: id and `end`, the time of the last row of a stay where it is told.
    """
    kinds = pa.table(
        {
            "chosen": list(chosen.keys),
            "name": list(chosen.keys.values()),
            "numeric": [f.is_numeric for f in chosen.features],
            "done": [f.categories == (DONE,) for f in chosen.features],
        }
    )
    codes = chosen.codes.rename_columns(["code_key", "code_text", "code"])
    rows = rows.mutate(hour=rows.hour.cast("float64"))
    named = in_memory(kinds)
    rows = rows.inner_join(named, rows.key == named.chosen)
    if codes.num_rows:
        table = in_memory(codes)
        on = [rows.key == table.code_key, rows.text == table.code_text]
        rows = rows.left_join(table, on)
    else:
        rows = rows.mutate(code=ibis.null("float64"))
    coded = ibis.ifelse(rows.number.isnull(), rows.code, None)
    value = ibis.ifelse(rows.done, ibis.literal(0.0), coded)
    rows = rows.mutate(value=ibis.ifelse(rows.numeric, rows.number, value))
    grid = grid_long(
        rows.rename({axes["time"]: "hour"}),
        variable="name",
        value="value",
        features=chosen.features,
        **axes,
    )
    table = fetch(hospital.engine, grid)
    return with_last_rows(texts(table, chosen.features), axes, ends)


def texts(table: pa.Table, features: tuple[Feature, ...]) -> pa.Table:
    """Codes of coded features as their category."""
    for feature in features:
        if not feature.is_numeric:
            at = table.schema.get_field_index(feature.name)
            codes = table[feature.name].cast(pa.int32()).combine_chunks()
            names = pa.array(feature.categories).take(codes)
            table = table.set_column(at, feature.name, names)
    return table


def with_last_rows(
    table: pa.Table, axes: dict[str, Any], ends: pa.Table | None
) -> pa.Table:
    """Adds the last row of each stay, without values, where it is lacking."""
    id, time, steps = axes["id"], axes["time"], axes["num_steps"]
    ids = pc.unique(table[id])
    last = np.full(len(ids), steps - 1)
    if ends is not None:
        told = ends.filter(ends["end"].is_valid())
        # Rounded as in `gridding`: 0.3 / 0.1 is 3, and not a little less.
        at = np.round(told["end"].to_numpy() / axes["step"], 9)
        at = np.floor(at).clip(0, steps - 1)
        place = pc.index_in(ids, value_set=told[id].combine_chunks())
        known = place.is_valid().to_numpy(zero_copy_only=False)
        last[known] = at[place.drop_null().to_numpy()]
        ids, extra = pa.concat_arrays([ids, told[id].combine_chunks()]), at
        last = np.concatenate([last, extra])
    times = axes["start"] + last * axes["step"]
    wanted = pa.table({id: ids, time: times}).group_by([id, time]).aggregate([])
    absent = wanted.join(table.select([id, time]), [id, time], join_type="left anti")
    return pa.concat_tables([table, absent], promote_options="default")
