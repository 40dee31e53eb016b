"""CDMT from shards: counted exactly, encoded as in memory, trained to the same bits."""

import importlib.util

import jax
import numpy as np
import pytest
from cdmt_builders import config
from small_cohorts import cohort, schema, sparse_cohort, sparse_schema

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Dataset, take
from jaxehr.data.shards import open_shards
from jaxehr.data.store import save_cohort
from jaxehr.models.cdmt import latents, preprocessing
from jaxehr.models.cdmt.layout import make_layout
from jaxehr.models.cdmt.model import cdmt
from jaxehr.models.cdmt.objective import make_model
from jaxehr.models.cdmt.shards import (
    TALLY_BYTES,
    count,
    encoded,
    passes,
)

SPLIT = np.arange(60) % 3  # 0 and 1 learn, 2 judges: by stay, for the test


def dataset(made, people):
    ids = np.arange(len(people.label)) * 11
    return Dataset(made, people, ids, ids, {})


def same(a, b):
    """Raises unless two nested dicts of arrays are equal, bit for bit."""
    assert a.keys() == b.keys()
    for name in a:
        if isinstance(a[name], dict):
            same(a[name], b[name])
        else:
            np.testing.assert_array_equal(a[name], b[name])


CASES = {
    "all": schema(),
    "static only": schema(temporal=()),
    "temporal only": schema(static=()),
    "no label": schema(classes=0),
    "sparse": sparse_schema(),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("prior", "memory"),  # a column at a time, all together
    [("independent", 1), ("independent", 10**9), ("normal", 10**9)],
)
def test_fitted_and_encoded_as_in_memory(tmp_path, case, prior, memory):
    made = CASES[case]
    people = cohort(made)
    if case == "sparse":
        people = sparse_cohort(made, count=60)[0]
    data = dataset(made, people)
    learn, judge = SPLIT < 2, SPLIT == 2
    settings = config(prior=prior)
    layout = make_layout(made, settings)
    train = take(data, learn).cohort
    wanted = preprocessing.fit(made, layout, settings, train)
    for number in (2, 4):
        save_cohort(data, tmp_path / f"{number}", shards=number)
        shards = open_shards(tmp_path / f"{number}")
        scratch = tmp_path / f"feed{number}"
        arguments = (made, make_model(layout, settings), shards, (learn, judge))
        found = encoded(*arguments, scratch, memory)
        same(found.fitted, wanted)
        parts = ((found.learn, train), (found.judge, take(data, judge).cohort))
        for records, part in parts:
            numbers = np.arange(len(part.label))
            batch = preprocessing.encode(wanted, layout, part, numbers)
            for leaf, other in zip(records.take(numbers), batch, strict=True):
                np.testing.assert_array_equal(leaf, other)
                assert leaf.dtype == other.dtype
        same(encoded(*arguments, scratch, memory).fitted, wanted)


def test_columns_are_counted_in_as_many_passes_as_the_memory_asks_for(tmp_path):
    made = schema()
    one = TALLY_BYTES * 60 * 4  # of one of the two numeric columns
    assert passes(made, 60, 2 * one) == [None]
    assert passes(made, 60, one) == [("rhythm", "ward", "vent", "hr"), ("lab",)]
    data = dataset(made, cohort(made))
    save_cohort(data, tmp_path / "cohort", shards=3)
    layout = make_layout(made, config())
    whole = preprocessing.see(made, layout, data.cohort)
    seen = count(made, layout, open_shards(tmp_path / "cohort"), np.ones(60, bool), one)
    for mine, other in zip(jax.tree.leaves(seen), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_gaps_are_learned_from_the_same_patients_as_in_memory(tmp_path, monkeypatch):
    """Of more patients than teach, the same ones do however they lie in shards."""
    monkeypatch.setattr(latents, "SAMPLE", 4 * 7 * 20)
    made, settings = schema(), config(prior="normal")
    data, learn = dataset(made, cohort(made)), SPLIT < 2
    layout = make_layout(made, settings)
    chosen = preprocessing.learners(layout, int(learn.sum()))
    assert 10 < len(chosen) < learn.sum()
    assert chosen[-1] > 0.9 * learn.sum()  # of the whole cohort
    wanted = preprocessing.fit(made, layout, settings, take(data, learn).cohort)
    save_cohort(data, tmp_path / "cohort", shards=3)
    shards = open_shards(tmp_path / "cohort")
    arguments = made, make_model(layout, settings), shards, (learn, ~learn)
    same(encoded(*arguments, tmp_path / "feed", 10**9).fitted, wanted)


@pytest.mark.skipif(
    importlib.util.find_spec("grain") is None,
    reason="Grain is needed (extra `shards`)",
)
def test_trained_as_in_memory(tmp_path):
    """Other numbers of shards encode the same, see above."""
    made = schema()
    data = dataset(made, cohort(made))
    learn, judge = SPLIT < 2, SPLIT == 2
    model, key = cdmt(made, config()), jax.random.key(3)
    whole = model.fit(key, take(data, learn).cohort, valid=take(data, judge).cohort)
    save_cohort(data, tmp_path / "cohort", shards=4)
    shards = open_shards(tmp_path / "cohort")
    found = model.fit_shards(
        key, shards, learn, judge, scratch=tmp_path / "feed", memory=10**9
    )
    same(found["weights"], whole["weights"])
    same(found["fitted"], whole["fitted"])


def test_a_vote_without_voters_is_refused(tmp_path):
    made = schema()
    data = dataset(made, cohort(made))
    save_cohort(data, tmp_path / "cohort", shards=2)
    silent = int((data.cohort.length[SPLIT < 2] == 0).sum())
    assert silent
    with pytest.raises(InputError, match=f"but {silent} patients have none"):
        cdmt(made, config(mode="unconditional")).fit_shards(
            jax.random.key(0),
            open_shards(tmp_path / "cohort"),
            SPLIT < 2,
            SPLIT == 2,
            scratch=tmp_path / "feed",
            memory=10**9,
        )
