"""Remembered classifiers: equal numbers, what is trained again, damage."""

import dataclasses

import jax
import numpy as np
import pytest
from builders import compared, simulate

from jaxehr.core.checks import InputError
from jaxehr.metrics import learners
from jaxehr.metrics.classifiers import Rows
from jaxehr.metrics.discriminability import c2st_lstm
from jaxehr.metrics.evaluate import MetricConfig
from jaxehr.metrics.memory import digest, remembered
from jaxehr.metrics.utility import tstr

KEY = jax.random.key(0)
FAST = MetricConfig(seeds=2, epochs=2, resamples=20, augment=0)


def remembering(folder):
    return dataclasses.replace(FAST, remember=str(folder / "classifiers"))


@pytest.fixture
def trained(monkeypatch):
    """How many trainings each call of `fit_classifiers` made."""
    made, real = [], learners.fit_classifiers
    count = lambda keys, *rest: (made.append(len(keys)), real(keys, *rest))[1]
    monkeypatch.setattr(learners, "fit_classifiers", count)
    return made


@pytest.mark.parametrize(
    "metric", [pytest.param(tstr, marks=pytest.mark.slow), c2st_lstm]
)
def test_only_what_saw_other_patients_is_trained_again(metric, tmp_path, trained):
    real = compared(simulate(3, 120), count=120)
    config = remembering(tmp_path)
    plain = metric(FAST).run(KEY, real)
    trained.clear()
    first = metric(config).run(KEY, real)
    full = sum(trained)
    trained.clear()
    again = metric(config).run(KEY, real)
    assert not trained
    for name, value in first.items():
        assert again[name][:4] == value[:4] == plain[name][:4]
    # Half of all trainings see real patients only; these are found.
    other = real._replace(synthetic=simulate(4, 120))
    found = metric(config).run(KEY, other)
    assert sum(trained) == full / 2
    name = next(iter(first))
    assert found[name].reference == first[name].reference
    assert found[name].value != first[name].value
    # On a CPU trainings follow each other in one loop, so that their number changes
    # none of them.
    for name, value in metric(FAST).run(KEY, other).items():
        assert found[name][:4] == value[:4]


def test_a_name_holds_all_that_decides_a_training():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9, 2)).astype(np.float32)
    table = Rows(x, np.ones(9, np.int32), np.arange(9, dtype=np.int32) % 2)
    rows = np.arange(6)
    name = digest(("lstm", 2), KEY, table, rows)
    assert name == digest(("lstm", 2), KEY, table._replace(x=x.copy()), rows)
    unseen = x.copy()
    unseen[8] = 5.0
    assert name == digest(("lstm", 2), KEY, table._replace(x=unseen), rows)
    others = [
        digest(("lstm", 3), KEY, table, rows),
        digest(("lstm", 2), jax.random.key(1), table, rows),
        digest(("lstm", 2), KEY, table._replace(x=x + 1), rows),
        digest(("lstm", 2), KEY, table._replace(label=1 - table.label), rows),
        digest(("lstm", 2), KEY, table, rows[::-1]),
    ]
    assert len({name, *others}) == 6


def test_damage_is_named_and_many_processes_are_refused(tmp_path, monkeypatch):
    learn = lambda chosen: {"w": np.zeros((len(chosen), 2), np.float32) + 1}
    assert remembered(str(tmp_path), ["a", "b"], learn)["w"].shape == (2, 2)
    (tmp_path / "b.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"b\.npz: damaged or not ours"):
        remembered(str(tmp_path), ["a", "b"], learn)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match="by a single process only"):
        remembered(str(tmp_path), ["a"], learn)
