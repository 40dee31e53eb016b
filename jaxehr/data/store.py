"""A cohort as a folder: two Parquet tables, schema.json and provenance.json."""

import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Dataset
from jaxehr.core.files import PathLike, new_folder, read_json, write_json
from jaxehr.data.assemble import assemble, disassemble
from jaxehr.data.schema_json import schema_from_json, schema_to_json

MARKER = "schema.json"
FILES = ("static.parquet", "temporal.parquet", MARKER, "provenance.json")


def save_cohort(data: Dataset, path: PathLike, *, overwrite: bool = False) -> None:
    """Writes the folder whole or not at all; the same data give the same bytes.

    Args:
      overwrite: whether an older cohort folder at `path` may be replaced.

    Raises:
      InputError: `path` exists and may not be replaced, a full disk, values that
        do not fit the schema.
    """
    static, temporal = disassemble(data)
    with new_folder(path, marker=MARKER, overwrite=overwrite) as folder:
        for name, table in zip(FILES, (static, temporal)):
            pq.write_table(table, folder / name, compression="zstd")
        write_json(folder / MARKER, schema_to_json(data.schema))
        write_json(folder / "provenance.json", data.provenance)


def load_cohort(path: PathLike) -> Dataset:
    """Reads the folder that `save_cohort` wrote; values, order and dtypes are the same.

    Raises:
      InputError: no cohort folder, a missing, broken or foreign file, values that
        do not fit the schema (it may have been edited).
    """
    folder = pathlib.Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder.")
    absent = [name for name in FILES if not (folder / name).is_file()]
    if absent:
        raise InputError(
            f"{folder}: not a cohort folder ({', '.join(absent)} missing); make one "
            "with `jaxehr prepare`."
        )
    schema = schema_from_json(read_json(folder / MARKER), str(folder / MARKER))
    provenance = read_json(folder / "provenance.json")
    if not isinstance(provenance, dict):
        raise InputError(f"{folder / 'provenance.json'}: must be a JSON object.")
    static, temporal = (read_parquet(folder / name) for name in FILES[:2])
    where = (str(folder / FILES[0]), str(folder / FILES[1]))
    return assemble(
        schema, static, temporal, provenance, where=where, allow_missing=True
    )


def read_parquet(path: pathlib.Path) -> pa.Table:
    """The whole table; a truncated or foreign file is refused in one line."""
    try:
        return pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not a readable Parquet file ({reason}).") from error
