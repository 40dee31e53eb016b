"""MEDS datasets: dated and static codes of subjects onto a time grid.

A dated code with numbers becomes a numeric feature, with texts a coded one, else a
constant whose mask carries all. A static code `PREFIX//VALUE` without a number gives
the coded static feature `PREFIX`; one with a number is numeric. Time 0 of a subject is
the first code `START`, else its first dated code other than birth; the birth gives
`age`. A subject is a stay of its own person, unless static codes `PERSON//ID` name the
persons, as `jaxehr.data.meds_export` writes them.
"""

import contextlib
import dataclasses
import importlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from jaxehr.core.checks import InputError, known, positive
from jaxehr.core.cohort import Dataset, Feature, Label, Schema
from jaxehr.core.files import PathLike, read_json
from jaxehr.data.columns import listing, pc
from jaxehr.data.engines import fetch, microseconds, parts_of, scan, upload
from jaxehr.data.events import (
    EventOptions,
    choose,
    coded_feature,
    tidy,
)
from jaxehr.data.gridding import count_steps
from jaxehr.data.hospital import (
    Hospital,
    Keys,
    open_hospital,
    provenance,
    step,
    without,
)
from jaxehr.data.infer import CANONICAL
from jaxehr.data.parts import Plan, of_plan
from jaxehr.data.shards import Parts

SUBJECT, TIME, AGE = "subject_id", "hour", "age"
START, END, LABEL, JOIN = "JAXEHR//START", "JAXEHR//END", "JAXEHR//LABEL", "//"
PERSON, GROUP = "JAXEHR//PERSON", "person"
KEYS = Keys(SUBJECT, SUBJECT)
BIRTH, HOUR, YEAR = "MEDS_BIRTH", 3600, 31_556_952  # seconds
SECOND = 10**6  # microseconds, the unit of times in MEDS
Split = Literal["all", "train", "tuning", "held_out"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MedsOptions(EventOptions):
    """What to read of a MEDS dataset."""

    split: Split = "all"
    """Subjects of this part of the dataset's own split; or all."""
    hours: float = 48
    """Length of the window, in hours from time 0 of a subject."""
    bin_hours: float = 1
    """Width of a time step in hours; must divide `hours`."""
    start: str = ""
    """Code whose first occurrence is time 0; empty = the first dated code."""
    label: str = ""
    """Code whose occurrence at any time is the label, or prefix of `PREFIX//CLASS`."""
    features: str = ""
    """JSON file {feature: [codes]}; empty = the most frequent codes, each one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine == "bigquery":
            raise InputError("engine bigquery reads mimic3 and eicu; MEDS is files.")
        positive(hours=self.hours)
        count_steps(self.hours, self.bin_hours)


def read(paths: Sequence[PathLike], options: MedsOptions | None = None) -> Dataset:
    """The cohort in memory; see `open_parts`."""
    with open_parts(paths, options or MedsOptions(), 1) as parts:
        return next(parts.pieces).data


@contextlib.contextmanager
def open_parts(
    paths: Sequence[PathLike], options: MedsOptions, number: int
) -> Iterator[Parts]:
    """Reads a dataset: the folder with data/ and metadata/, in `number` parts.

    Raises:
      InputError: the package `meds` is not installed; no dataset; a file that breaks
        the MEDS schema (with its name); no such split, code or feature; nobody left.
    """
    schemas = load_meds()
    with open_hospital(paths, options) as hospital:
        yield of_plan(hospital, plan(hospital, schemas, options), number)


def plan(hospital: Hospital, schemas: Any, options: MedsOptions) -> Plan:
    """The cohort of an opened dataset, but for the grid."""
    steps = count_steps(options.hours, options.bin_hours)
    axes = {"id": SUBJECT, "time": TIME, "start": 0.0, "num_steps": steps}
    axes["step"] = float(options.bin_hours)
    events = read_events(hospital, schemas, options)
    dated = windowed(hospital, events, options)
    if options.start:  # subjects without it are nobody of the cohort
        events = events.semi_join(dated, SUBJECT)
    people = read_people(hospital, events, dated)
    label, people = read_label(hospital, events, people, options)
    group, people = read_persons(hospital, events, people)
    fixed = events.filter(events["at"].isnull())
    fixed, dated = (mapped(hospital, rows, options) for rows in (fixed, dated))
    static, people = read_static(hospital, fixed, people, options)
    if options.features:
        text = "of the features asked for"
        dated = step(hospital, text, dated, KEYS, store=False)
    rows = tidy(hospital, dated, KEYS, options.hours)
    chosen = choose(hospital, rows, KEYS, people.num_rows, options)
    made = provenance(hospital, "meds", options, variables=chosen.notes)
    schema = Schema(
        static=static,
        temporal=tuple(as_stored(feature) for feature in chosen.features),
        num_steps=steps,
        id=SUBJECT,
        time=TIME,
        step=float(options.bin_hours),
        label=label,
        group=group,
    )
    where = (f"{hospital.folder}: static", f"{hospital.folder}: dated")
    return Plan(schema, people, rows, chosen, axes, made, where, ends=True)


def as_stored(feature: Feature) -> Feature:
    """MEDS numbers have 32 bits."""
    return (
        dataclasses.replace(feature, dtype="float") if feature.is_numeric else feature
    )


def load_meds() -> Any:
    """The package with the published schemas."""
    try:
        return importlib.import_module("meds")
    except ImportError:
        raise InputError(
            'meds: the package is not installed; run: pip install "jaxehr[meds]".'
        ) from None


def read_events(hospital: Hospital, schemas: Any, options: MedsOptions) -> Any:
    """The checked events of the wanted split, the code as key."""
    data = hospital.folder / schemas.data_subdirectory
    if not data.is_dir():
        raise InputError(f"{hospital.folder}: not a MEDS dataset: no folder data/.")
    for part in parts_of(str(data)):
        validate(part, schemas.DataSchema)
    hospital.files["data"] = data
    raw = scan(hospital.engine, str(data))
    number = raw.numeric_value if "numeric_value" in raw.columns else None
    text = raw.text_value if "text_value" in raw.columns else None
    rows = raw.select(
        **{SUBJECT: raw.subject_id},
        at=microseconds(hospital.engine, raw.time),
        key=raw.code,
        number=ibis.null("float64") if number is None else number.cast("float64"),
        text=ibis.null("string") if text is None else text.cast("string"),
    )
    rows = step(hospital, "events", rows, KEYS, store=False)
    if options.split != "all":
        members = upload(hospital.engine, of_split(hospital, schemas, options))
        rows = rows.semi_join(members, SUBJECT)
        rows = step(hospital, f"of the split {options.split}", rows, KEYS, store=False)
    return rows


def validate(path: str, schema: Any) -> None:
    """Raises InputError unless the columns of a Parquet file are those of MEDS."""
    try:
        schema.validate(pq.read_schema(path))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error}).") from error
    except Exception as error:  # the package's own exceptions have no common base
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not valid MEDS: {reason}.") from error


def of_split(hospital: Hospital, schemas: Any, options: MedsOptions) -> pa.Table:
    """Ids of the subjects of `options.split`."""
    path = hospital.folder / schemas.subject_splits_filepath
    if not path.is_file():
        raise InputError(f"{path}: no such file; split {options.split!r} needs it.")
    validate(str(path), schemas.SubjectSplitSchema)
    table = pq.read_table(path)
    known(f"split in {path}", options.split, sorted(set(table["split"].to_pylist())))
    hospital.files["splits"] = path
    return table.filter(pc.equal(table["split"], options.split)).select([SUBJECT])


def mapped(hospital: Hospital, rows: Any, options: MedsOptions) -> Any:
    """The events of features, under one key a feature.

    Codes of the map of features get the feature's name; others are left out.
    """
    rows = rows.filter(~is_special(rows, options))
    if not options.features:
        return rows
    found = read_json(options.features)
    sound = isinstance(found, dict) and all(
        isinstance(codes, list) and all(isinstance(code, str) for code in codes)
        for codes in found.values()
    )
    if not sound or not found:
        raise InputError(f"{options.features}: must be {{feature: [code, ...], ...}}.")
    pairs = [(code, name) for name, codes in found.items() for code in codes]
    columns = dict(zip(("of_code", "name"), map(list, zip(*pairs))))
    table = upload(hospital.engine, pa.table(columns))
    both = rows.inner_join(table, rows.key == table.of_code)
    return without(both.mutate(key=both.name), "of_code", "name")


def is_special(rows: Any, options: MedsOptions) -> Any:
    """True for codes that are no feature: birth, time 0, the end, label, person."""
    names = [BIRTH, START, END, *(name for name in (options.start,) if name)]
    special = rows.key.isin(names) | rows.key.startswith(LABEL + JOIN)
    special = special | rows.key.startswith(PERSON + JOIN)
    if options.label:
        special = special | (rows.key == options.label)
        special = special | rows.key.startswith(options.label + JOIN)
    return special


def windowed(hospital: Hospital, events: Any, options: MedsOptions) -> Any:
    """Dated events with `hour` since time 0, in the form of `data.events`."""
    dated = events.filter(events["at"].notnull() & (events.key != BIRTH))
    is_start = dated.key == (options.start or START)
    first = dated.group_by(SUBJECT).aggregate(
        began=dated["at"].min(where=is_start), seen=dated["at"].min()
    )
    if options.start:
        first = first.filter(first.began.notnull())
        first = step(hospital, f"with {options.start}", first, KEYS, store=False)
    first = first.select(SUBJECT, zero=first.began.coalesce(first.seen))
    rows = dated.inner_join(first, SUBJECT)
    rows = rows.mutate(
        hour=(rows["at"] - rows.zero) / (HOUR * SECOND),
        label=ibis.null("string"),
        unit=ibis.null("string"),
    )
    return step(hospital, "dated", rows, KEYS)


def read_people(hospital: Hospital, events: Any, dated: Any) -> pa.Table:
    """One row a subject of `events`: age at time 0, and the hour of `END` if any."""
    zero = dated.group_by(SUBJECT).aggregate(
        zero=dated.zero.max(), end=dated.hour.max(where=dated.key == END)
    )
    zero = events.select(SUBJECT).distinct().left_join(zero, SUBJECT)
    zero = zero.select(SUBJECT, "zero", "end")
    birth = events.filter(events.key == BIRTH).group_by(born_subject=SUBJECT)
    birth = birth.aggregate(born=lambda t: t["at"].min())
    both = zero.left_join(birth, zero[SUBJECT] == birth.born_subject)
    both = both.mutate(**{AGE: (both.zero - both.born) / (YEAR * SECOND)})
    return fetch(hospital.engine, both.select(SUBJECT, AGE, "end").order_by(SUBJECT))


def read_label(
    hospital: Hospital, events: Any, people: pa.Table, options: MedsOptions
) -> tuple[Label | None, pa.Table]:
    """The label and the people with its column.

    Raises:
      InputError: no such code, several labels, a subject without a class.
    """
    prefix = options.label or LABEL
    inside = (events.key == prefix) | events.key.startswith(prefix + JOIN)
    pairs = events.filter(inside).select(SUBJECT, "key").distinct()
    found = fetch(hospital.engine, pairs.order_by([SUBJECT, "key"]))
    keys = sorted(set(found["key"].to_pylist()))
    if not keys:
        if options.label:
            raise InputError(f"{hospital.folder}: no event has the code {prefix!r}.")
        return None, people
    if keys == [prefix]:
        has = pc.is_in(people[SUBJECT], value_set=pc.unique(found[SUBJECT]))
        people = people.append_column(prefix, has.cast(pa.int64()))
        return Label(name=prefix, classes=(0, 1)), people
    names = sorted({key.rpartition(JOIN)[0] for key in keys})
    if len(names) > 1:
        raise InputError(
            f"{hospital.folder}: several labels ({listing(names, 5)}); name one: label."
        )
    classes = [key.rpartition(JOIN)[2] for key in found["key"].to_pylist()]
    whole = all(text.lstrip("-").isdigit() for text in classes)
    classes = [int(text) for text in classes] if whole else classes
    at = pc.index_in(people[SUBJECT], value_set=found[SUBJECT].combine_chunks())
    if at.null_count or len(found) != len(people):
        raise InputError(
            f"{hospital.folder}: label {names[0]!r}: each of {len(people)} subjects "
            f"needs one class; {at.null_count} have none, {len(found)} classes are "
            "there."
        )
    name = names[0].removeprefix(LABEL + JOIN)
    people = people.append_column(name, pa.chunked_array([pa.array(classes).take(at)]))
    dtype = "int64" if whole else "string"
    return Label(name=name, classes=tuple(sorted(set(classes))), dtype=dtype), people


def read_persons(
    hospital: Hospital, events: Any, people: pa.Table
) -> tuple[str | None, pa.Table]:
    """The name of the group, and the people with its column; None without persons.

    Raises:
      InputError: a subject without a person, or with several.
    """
    inside = events.key.startswith(PERSON + JOIN)
    pairs = events.filter(inside).select(SUBJECT, "key").distinct()
    found = fetch(hospital.engine, pairs.order_by([SUBJECT, "key"]))
    if not len(found):
        return None, people
    at = pc.index_in(people[SUBJECT], value_set=found[SUBJECT].combine_chunks())
    if at.null_count or len(found) != len(people):
        raise InputError(
            f"{hospital.folder}: each of {len(people)} subjects needs one code "
            f"{PERSON + JOIN}ID; {at.null_count} have none, {len(found)} are there."
        )
    names = [key.removeprefix(PERSON + JOIN) for key in found["key"].to_pylist()]
    whole = all(re.fullmatch(CANONICAL, name) for name in names)
    persons = pa.array([int(name) for name in names] if whole else names)
    return GROUP, people.append_column(GROUP, pa.chunked_array([persons.take(at)]))


def read_static(
    hospital: Hospital, fixed: Any, people: pa.Table, options: MedsOptions
) -> tuple[tuple[Feature, ...], pa.Table]:
    """Static features from the events without a time, and the people with columns."""
    table = fetch(hospital.engine, fixed.order_by([SUBJECT, "key", "number"]))
    groups: dict[str, list[str]] = {}
    for key in sorted(set(table["key"].to_pylist())):
        numbers = table.filter(pc.equal(table["key"], key))["number"]
        prefix, _, value = key.rpartition(JOIN)
        grouped = prefix and value and not len(numbers.drop_null())
        groups.setdefault(prefix if grouped else key, []).append(key)
    features = []
    if people[AGE].null_count < len(people):
        features.append(Feature(name=AGE, kind="numeric", unit="a"))
    else:
        people = people.drop_columns([AGE])
    least = options.min_share * len(people)
    for name, keys in groups.items():
        rows = table.filter(pc.is_in(table["key"], value_set=pa.array(keys)))
        if len(pc.unique(rows[SUBJECT])) >= least:
            made, people = static_columns(name, keys, rows, people, options)
            features += made
    return tuple(features), people


def static_columns(
    name: str, keys: list[str], rows: pa.Table, people: pa.Table, options: MedsOptions
) -> tuple[list[Feature], pa.Table]:
    """The features of the static codes `keys`, and the people with their columns."""
    at = pc.index_in(people[SUBJECT], value_set=rows[SUBJECT].combine_chunks())
    if keys == [name] and len(rows["number"].drop_null()):
        values = rows["number"].combine_chunks().take(at)
        feature = Feature(name=name, kind="numeric", dtype="float")
        return [feature], people.append_column(name, pa.chunked_array([values]))
    single = keys != [name] and len(pc.unique(rows[SUBJECT])) == len(rows)
    if single and len(keys) <= options.max_categories:
        texts = [key.removeprefix(name + JOIN) for key in rows["key"].to_pylist()]
        values = pa.array(texts).take(at)
        found = coded_feature(name, "string", sorted(set(texts)))
        return [found], people.append_column(name, pa.chunked_array([values]))
    features = []
    for key in keys:
        owners = rows.filter(pc.equal(rows["key"], key))[SUBJECT].combine_chunks()
        has = pc.is_in(people[SUBJECT], value_set=owners).cast(pa.int8())
        if 0 < len(owners) < len(people):
            features.append(coded_feature(key, "int8", (0, 1)))
            people = people.append_column(key, has)
    return features, people
