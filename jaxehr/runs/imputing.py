"""Missing modalities of real patients, drawn by a trained model."""

import zlib
from collections.abc import Callable

import jax
import numpy as np
import pyarrow.parquet as pq

from jaxehr.core.checks import InputError, check_seed, positive
from jaxehr.core.cohort import Dataset
from jaxehr.core.files import PathLike, new_folder
from jaxehr.data.dataset_checks import check_dataset
from jaxehr.data.schema_json import same_columns
from jaxehr.data.spread import spread
from jaxehr.data.store import write_cohort
from jaxehr.runs.model import Run

DRAWS, SPREAD = "draws", "spread.parquet"


def impute_run(
    run: Run,
    data: Dataset,
    draws: int = 1,
    *,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> list[Dataset]:
    """`draws` times the patients of `data` with their missing modalities drawn.

    What was observed comes back untouched; a patient's draws do not depend on the
    other patients of the cohort.

    Raises:
      InputError: the model cannot impute, another schema, a patient with nothing.
    """
    check_seed(seed)
    positive(draws=draws)
    check_dataset(data)
    if run.model.impute is None:
        raise InputError(
            f"model {run.name} does not impute missing modalities; use flexgen."
        )
    same_columns(run.schema, data.schema, ("the run", "the cohort"))
    key, made = jax.random.key(seed), []
    info = {k: v for k, v in run.info.items() if k not in ("schema", "config")}
    for draw in range(draws):
        cohort = run.model.impute(
            jax.random.fold_in(key, draw),
            run.params,
            data.cohort,
            index=person_numbers(data),
        )
        provenance = {
            "kind": "imputed",
            "model": run.name,
            "run": info,
            "seed": seed,
            "draw": draw + 1,
            "of": data.provenance,
        }
        made.append(data._replace(cohort=cohort, provenance=provenance))
        if progress:
            progress(draw + 1)
    return made


def person_numbers(data: Dataset) -> np.ndarray:
    """A number for each stay that depends on its id alone."""
    return np.array(
        [zlib.crc32(str(name).encode()) >> 1 for name in data.ids], np.int64
    )


def save_imputed(data: Dataset, made: list[Dataset], path: PathLike) -> None:
    """A cohort folder with the first draw, all draws in draws/, and their spread."""
    table = spread(data, [one.cohort for one in made])
    with new_folder(path) as folder:
        write_cohort(made[0], folder)
        for number, one in enumerate(made, 1):
            inner = folder / DRAWS / f"{number:03d}"
            inner.mkdir(parents=True)
            write_cohort(one, inner)
        pq.write_table(table, folder / SPREAD, compression="zstd")
