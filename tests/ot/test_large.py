"""Couplings above the dense limit, transport by blocks."""

import jax
import jax.numpy as jnp
import numpy as np
from aligned_data import planted, random_problem

from jaxehr.ot import diagnostics, large
from jaxehr.ot.clouds import build
from jaxehr.ot.config import AlignmentConfig
from jaxehr.ot.factored import plan_of, solve


def test_strata_keep_the_classes_shares():
    label = np.repeat([0, 1, 2], [700, 200, 100])
    weight = np.ones(1000)
    weight[:10] = 0.0
    rows = large.stratified(np.random.default_rng(0), large.Rows(label, weight), 100)
    assert len(np.unique(rows)) == 100
    assert rows.min() >= 10
    expected = np.array([690, 200, 100]) / 9.9
    assert np.abs(np.bincount(label[rows]) - expected).max() <= 1.0


def test_few_rows_are_all_taken():
    cloud = large.Rows(np.zeros(5, int), np.array([1.0, 0.0, 1.0, 1.0, 1.0]))
    rows = large.stratified(np.random.default_rng(0), cloud, 10)
    np.testing.assert_array_equal(rows, [0, 2, 3, 4])


def test_barycentres_are_the_plans_normalised_rows(x64, monkeypatch):
    # B = G Z / p, by blocks of rows.
    problem = random_problem(0)
    found = solve(problem, 0.05, tolerance=1e-10, change=1e-10, max_rounds=200)
    plan = np.asarray(plan_of(type(problem)(*map(jnp.asarray, problem)), found))
    targets = np.random.default_rng(1).normal(size=(9, 3))
    monkeypatch.setattr(large, "BLOCK", 5)
    queries = large.query_rows(problem.u, problem.x, np.asarray(found.m))
    centres = large.barycentres(queries, problem.v, found.g, targets, 0.05)
    expected = plan @ targets / plan.sum(1, keepdims=True)
    np.testing.assert_allclose(centres, expected, atol=1e-5)  # float32 inside


def test_a_permutation_plan_permutes():
    # B equals the permuted targets when G = P / n [acceptance 5].
    order = np.random.default_rng(0).permutation(30)
    eye = np.eye(30, dtype=np.float32)
    targets = np.random.default_rng(1).normal(size=(30, 4))
    centres = large.barycentres(eye, eye[order], np.zeros(30), targets, 0.01)
    np.testing.assert_allclose(centres[order], targets, atol=1e-5)


def test_mini_batches_find_the_moment_of_the_whole():
    clouds, _, _ = planted(0, n=400, pairs=40)
    config = AlignmentConfig()
    built = build(clouds, 2, config, 0.01)
    labels = clouds.source_label, clouds.target_label
    scales = built.epsilon, built.sigma, built.start
    key = jax.random.key(0)
    whole = large.couple(key, built.problem, labels, config, *scales)
    small = AlignmentConfig(dense_limit=100, subsample=128)
    parts = large.couple(key, built.problem, labels, small, *scales)
    exact, found = whole.solution.moment, parts.solution.moment
    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert error < 0.15  # 128 rows: sampling error of a mean over 256 rows
    assert len(parts.source) <= 256
    assert whole.drift is None
    assert parts.drift is not None
    assert parts.drift < diagnostics.CONVERGED_DRIFT
    status = lambda found: diagnostics.describe(
        built.problem, found, labels, 2, built.sigma
    )["status"]
    assert status(whole) == status(parts) == "ok"
    told = diagnostics.describe(
        built.problem, parts._replace(drift=0.4), labels, 2, built.sigma
    )
    assert told["status"] == "not_converged"
    assert told["reason"] == "on records drawn anew the moment is off by 0.40"
