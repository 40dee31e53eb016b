"""A cohort is known by what it holds, and by whose stays are whose."""

import numpy as np
import pytest
from small_cohorts import cohort, schema, sparse_cohort, sparse_schema

from jaxehr.core.cohort import Dataset, Table
from jaxehr.data.shards import open_shards
from jaxehr.data.store import load_cohort, save_cohort
from jaxehr.runs.identity import fingerprint, fingerprint_of_shards

IDS = np.arange(1, 61)
STAYS = Dataset(schema(), cohort(schema()), IDS, IDS, {})
PEOPLE = STAYS._replace(schema=schema().replace(group="person"), groups=IDS // 2)


def test_a_cohort_without_persons_is_the_one_that_runs_know():
    assert fingerprint(STAYS) == "c5eee8a553ef47a0"


def test_splits_depend_on_persons_and_so_does_the_cohort():
    other = PEOPLE._replace(groups=(IDS + 1) // 2)
    assert len({fingerprint(data) for data in (PEOPLE, other)}) == 2
    alone = PEOPLE._replace(groups=IDS)
    assert fingerprint(alone) not in (fingerprint(PEOPLE), fingerprint(other))


@pytest.mark.parametrize("data", [STAYS, PEOPLE], ids=["stays", "people"])
def test_values_beside_missing_cells_do_not_count(data, tmp_path):
    def dirty(table: Table, valid: np.ndarray) -> Table:
        count = table.numeric.shape[-1]
        seen = table.observed & valid
        return Table(
            np.where(seen[..., :count], table.numeric, np.nan),
            np.where(seen[..., count:], table.codes, -1),
            table.observed | ~valid,  # padding, whatever stands there
        )

    whole, series = data.cohort, data.cohort.temporal
    valid = np.arange(series.observed.shape[1]) < whole.length[:, None]
    static = dirty(whole.static, np.ones((), bool))
    untidy = whole._replace(static=static, temporal=dirty(series, valid[..., None]))
    save_cohort(data, tmp_path / "one")
    save_cohort(data, tmp_path / "cut", shards=3)
    found = {
        fingerprint(data),
        fingerprint(data._replace(cohort=untidy)),
        fingerprint(load_cohort(tmp_path / "one")),
        fingerprint(load_cohort(tmp_path / "cut")),
        fingerprint_of_shards(open_shards(tmp_path / "cut")),
    }
    assert len(found) == 1


def test_every_value_that_is_there_counts():
    static = STAYS.cohort.static
    numeric = static.numeric.copy()
    numeric[np.flatnonzero(static.observed[:, 0])[0], 0] += 1
    other = STAYS.cohort._replace(static=static._replace(numeric=numeric))
    assert fingerprint(STAYS._replace(cohort=other)) != fingerprint(STAYS)


def test_a_sparse_cohort_is_the_same_from_disk(tmp_path):
    made = sparse_schema()
    thin, _ = sparse_cohort(made)
    data = Dataset(made, thin, IDS[:40], IDS[:40], {})
    assert fingerprint(data) == "beccd44e9c54c34c"
    save_cohort(data, tmp_path / "one")
    assert fingerprint(load_cohort(tmp_path / "one")) == fingerprint(data)
