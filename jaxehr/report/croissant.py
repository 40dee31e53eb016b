"""Croissant 1.1: what the tables of a release hold, as JSON-LD for catalogues.

Vocabulary and context of the specification (conformsTo below); where the data come
from is said with PROV-O, which it recommends. Licence, publisher and date are decided
by whoever releases the data: `TO_DECIDE` names them, nothing is made up.
"""

import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxehr.core.cohort import Dataset, Feature, num_patients
from jaxehr.core.contracts import Result
from jaxehr.core.sparse import SparseTable
from jaxehr.report import words
from jaxehr.report.nature import Nature, model_of, nature

CORE = "http://mlcommons.org/croissant/1.1"
RAI = "http://mlcommons.org/croissant/RAI/1.0"
TO_DECIDE = "To be decided before release: see the data use agreement of the source."
STATIC, TEMPORAL, SPARSE = "static.parquet", "temporal.parquet", "temporal.npz"
# The reference reader knows Parquet by this name only.
FORMATS = {".parquet": "application/x-parquet", ".npz": "application/zip"}
LIMITATIONS = (
    "For developing and testing methods; no basis for care, nor for a clinical "
    "conclusion that was not repeated on real data."
)
ATTACKED = "Attacks on their privacy, and what these reached, stand in model_card.md."
NOT_ATTACKED = "No attack on their privacy was made."
# The whole context of the specification's appendix: readers compare it.
TERMS = (
    "annotation arrayShape citeAs column containedIn equivalentProperty excludes "
    "extract field fileObject fileProperty fileSet format includes isArray "
    "isLiveDataset jsonPath key md5 parentField path recordSet references regex "
    "repeated replace samplingRate separator source subField transform"
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in TERMS.split()},
}


def hashes(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of the tables of a cohort folder, in shards or not, by their paths."""
    found = {}
    for name in (STATIC, TEMPORAL, SPARSE):
        for path in (folder / name, *sorted(folder.glob(f"shards/*/{name}"))):
            if path.is_file():
                with path.open("rb") as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
                found[path.relative_to(folder).as_posix()] = digest
    return found


def croissant(
    data: Dataset,
    results: Sequence[Result],
    run: Mapping[str, Any],
    files: Mapping[str, str],
) -> dict[str, Any]:
    """The JSON-LD document of the patients of a release.

    Args:
      results: what was found of them.
      run: the model, as in `write_report`.
      files: SHA-256 by path, of `hashes`; empty where the patients are in no folder.
        Columns of shards are listed without a source.
    """
    model = model_of(data, run) or "an unnamed model"
    kind, named = nature(data, run), f"{num_patients(data.cohort):,}"
    source = data.provenance.get("run", {}).get("cohort", "")
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [CORE, RAI],
        "name": f"{kind.rows}-{model}".replace(" ", "-"),
        "description": (
            f"{named} {kind.rows} (jaxehr, {model}). {kind.source} Quality and "
            "privacy: model_card.md beside this file."
        ),
        "license": TO_DECIDE,
        "isLiveDataset": False,
        **responsible(kind, results),
        "prov:wasDerivedFrom": {
            "@type": "prov:Entity",
            "prov:label": f"real patient records ({source or 'not named'})",
        },
        "prov:wasGeneratedBy": {
            "@type": "prov:Activity",
            "prov:label": f"{kind.activity} {model}",
        },
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": name,
                "name": name,
                "contentUrl": name,
                "encodingFormat": FORMATS[pathlib.PurePath(name).suffix],
                "sha256": digest,
            }
            for name, digest in files.items()
        ],
        "recordSet": record_sets(data, files),
    }


def responsible(kind: Nature, results: Sequence[Result]) -> dict[str, Any]:
    """Where the patients come from, and what they may give away."""
    told = ATTACKED if words.attacks(list(results)) else NOT_ATTACKED
    return {
        **({} if kind.real else {"rai:hasSyntheticData": True}),
        "rai:dataCollection": kind.source,
        "rai:dataLimitations": LIMITATIONS,
        "rai:personalSensitiveInformation": f"{kind.sensitive} {told}",
    }


def record_sets(data: Dataset, files: Mapping[str, str]) -> list[dict[str, Any]]:
    """One a Parquet table; the columns of a sparse one are listed without a source."""
    schema = data.schema
    stay = lambda table: field(table, schema.id, schema.id_dtype, "A stay.", files)
    static = [stay("static")]
    static += [column("static", feature, files) for feature in schema.static]
    if schema.label is not None:
        label = schema.label
        text = f"The outcome of a stay; one of {list(label.classes)}."
        static.append(field("static", label.name, label.dtype, text, files))
    sets = [record_set("static", "One row a stay.", static, [static[0]])]
    if schema.temporal:
        keys = []
        if not isinstance(data.cohort.temporal, SparseTable):
            refers = {"references": {"field": {"@id": static[0]["@id"]}}}
            unit = f"In {schema.time_unit}."
            time = field("temporal", schema.time, schema.time_dtype, unit, files)
            keys = [stay("temporal") | refers, time]
        series = [column("temporal", feature, files) for feature in schema.temporal]
        text = "One row a stay and time step; null = not observed."
        sets.append(record_set("temporal", text, [*keys, *series], keys))
    return sets


def record_set(
    name: str, text: str, fields: list[dict[str, Any]], keys: list[dict[str, Any]]
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": text,
    }
    if keys:
        found["key"] = [{"@id": key["@id"]} for key in keys]
    return found | {"field": fields}


def column(table: str, feature: Feature, files: Mapping[str, str]) -> dict[str, Any]:
    """A feature; categories, bounds and unit are words of its description."""
    words = [feature.kind]
    if feature.unit:
        words.append(f"in {feature.unit}")
    if feature.categories:
        words.append(f"one of {list(feature.categories)}")
    ends = (feature.lower, feature.upper)
    if any(end is not None for end in ends):
        words.append(f"from {ends[0]} to {ends[1]}")
    return field(table, feature.name, feature.dtype, "; ".join(words), files)


def field(
    table: str, name: str, dtype: str, text: str, files: Mapping[str, str]
) -> dict[str, Any]:
    """A column, and where it lies if its Parquet file is known."""
    found: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{table}/{name}",
        "name": name,
        "description": text,
        "dataType": data_type(dtype),
    }
    file = f"{table}.parquet"
    if file in files:
        found["source"] = {"fileObject": {"@id": file}, "extract": {"column": name}}
    return found


def data_type(dtype: str) -> str:
    """The schema.org type of an Arrow type name."""
    if dtype.startswith(("int", "uint")):
        return "sc:Integer"
    if dtype.startswith(("float", "double", "half", "decimal")):
        return "sc:Float"
    if dtype.startswith("bool"):
        return "sc:Boolean"
    return "sc:DateTime" if dtype.startswith(("timestamp", "date")) else "sc:Text"
