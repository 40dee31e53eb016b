"""A run that was saved and read again scores and imputes as it did; three classes."""

import jax
import numpy as np
import pytest
from flexgen_cohorts import small
from small_cohorts import cohort, schema

from jaxehr.core.arrays import read_arrays, to_bytes
from jaxehr.core.cohort import rows_of
from jaxehr.models.flexgen.alignment import from_text, in_words
from jaxehr.models.flexgen.config import FlexgenSampling
from jaxehr.models.flexgen.model import flexgen
from jaxehr.ot.config import AlignmentConfig

KEY = jax.random.key(0)


def people(made, **options):
    """Patients who have something."""
    found = cohort(made, **options)
    return rows_of(found, found.has_static | found.has_temporal)


@pytest.mark.parametrize(
    "options",
    [
        # Without `within`: its dicts are empty, and a file holds arrays only.
        {"method": "ridge", "by_class": False},
        {"method": "knn"},
        {"method": "fused", "imputation": "sample"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_a_loaded_run_scores_and_imputes_as_before(options, tmp_path):
    made = schema()
    model = flexgen(made, small(alignment=AlignmentConfig(**options)))
    params, real = model.fit(KEY, cohort(made, count=80)), people(made, seed=5)
    # Whether real patients are in the run is said.
    held = {"points", "references"} & params["alignment"]["forward"].keys()
    said = in_words(from_text(params["diagnostics"]), AlignmentConfig(**options))
    assert bool(held) == ("holds latents of real patients" in said)
    assert bool(held) == ("by_class" not in options)
    path = tmp_path / "params.npz"
    path.write_bytes(to_bytes(params))
    loaded = read_arrays(path)
    before, after = (model.impute(KEY, one, real) for one in (params, loaded))
    for one, two in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(one, two)
    before, after = (
        model.losses(KEY, one, real, levels=2, repeats=1) for one in (params, loaded)
    )
    assert np.isfinite(after).all()
    np.testing.assert_array_equal(before, after)


def test_three_classes():
    made = schema(classes=3)
    model = flexgen(made, small(alignment=AlignmentConfig(rho=0.2)))
    params = model.fit(KEY, cohort(made, count=150))
    label = np.arange(30) % 3
    drawn = model.sample(
        KEY, params, label, 30, options=FlexgenSampling(missing="none", guidance=0.5)
    )
    np.testing.assert_array_equal(drawn.label, label)
    assert drawn.has_static.all()
    assert drawn.has_temporal.all()
    balanced = model.sample(KEY, params, "balanced", 90)
    assert np.unique(balanced.label).size == 3
    real = people(made, seed=5)
    filled = model.impute(KEY, params, real)
    assert filled.has_static.all()
    assert filled.has_temporal.all()
    np.testing.assert_array_equal(filled.label, real.label)
    other = model.impute(KEY, params, real._replace(label=(real.label + 1) % 3))
    for one, two in zip(filled.static, other.static, strict=True):
        np.testing.assert_array_equal(one, two)
