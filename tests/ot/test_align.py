"""Alignment as a whole: what it recovers, names, refuses, and does not leak."""

import json

import jax
import numpy as np
import pytest
from aligned_data import nrmse, planted
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from jaxehr.core.checks import InputError
from jaxehr.ot import diagnostics, imputers
from jaxehr.ot.align import align
from jaxehr.ot.clouds import build, reverse
from jaxehr.ot.config import AlignmentConfig

KEY = jax.random.key(0)
METHODS = (
    "fused",
    "gromov",
    "signed",
    "ridge",
    "procrustes",
    "bures",
    "knn",
    "class-mean",
)


def errors(method, clouds, held, classes=2, **options):
    """NRMSE of both directions on rows that the alignment never saw, diagnostics."""
    config = AlignmentConfig(method=method, imputation="linear", **options)
    aligned = align(KEY, clouds, classes, config)
    z, label, truth = held
    there = imputers.predict(aligned.forward, config, z, label)
    back = imputers.predict(aligned.backward, config, truth, label)
    both = nrmse(there, truth, clouds.target), nrmse(back, z, clouds.source)
    return both, aligned.diagnostics


def test_a_planted_rotation_is_found_with_anchors():
    # Fewer pairs than coordinates: pairs alone leave directions open.
    clouds, held, _ = planted(1, n=250, size=16, pairs=10)
    (there, back), told = errors("fused", clouds, held)
    alone, _ = errors("ridge", clouds, held)
    assert told["status"] == "ok"
    assert told["cv"]["forward"]["weight"] > 0
    assert there < 0.85 * alone[0]
    assert back < 0.85 * alone[1]
    assert told["label_agreement"] > 0.99 > 0.7 > told["label_chance"]


def test_a_planted_rotation_is_found_without_pairs():
    clouds, held, _ = planted(2, n=300, size=6, pairs=0, clusters=5)
    (there, back), told = errors("gromov", clouds, held)
    assert told["status"] == "ok"
    assert len(told["gw_starts"]) == 8
    assert max(there, back) < 0.75
    assert told["cv"]["forward"] == {}


@pytest.mark.parametrize("pairs", [12, 40])
def test_fused_does_not_lose_to_ridge(pairs):
    for seed in (3, 4):
        clouds, held, _ = planted(seed, n=120, pairs=pairs, noise=0.5)
        fused, told = errors("fused", clouds, held)
        ridge, alone = errors("ridge", clouds, held)
        # Cross-validation may err by its own standard error.
        assert fused[0] < 1.03 * ridge[0]
        assert fused[1] < 1.03 * ridge[1]
        cv = told["cv"]["forward"]
        assert cv["map"] <= cv["ridge"] <= 1.05
        # On the same folds: where fused leaves it all to ridge, both are one map.
        assert cv["ridge"] == alone["cv"]["forward"]["ridge"]


def test_more_than_two_classes():
    clouds, held, _ = planted(5, n=120, pairs=20, classes=4)
    _, told = errors("fused", clouds, held, classes=4)
    assert np.shape(told["class_mass"]) == (4, 4)
    assert told["label_agreement"] > 0.98
    _, told = errors("signed", clouds, held, classes=4)
    assert told["status"] in ("ok", "collapsed", "not_converged")
    built = build(clouds, 4, AlignmentConfig(method="signed"), 0.01)
    assert built.problem.u.shape == (120, 3 * 8)  # Khatri-Rao with simplex codes


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_both_directions_and_json(method):
    clouds, held, _ = planted(6, n=120, pairs=20)
    both, told = errors(method, clouds, held)
    assert np.isfinite(both).all()
    assert set(diagnostics.EMPTY) <= set(told)
    assert json.loads(json.dumps(told, allow_nan=False))["method"] == method
    assert set(told["used"]) == {"forward", "backward"}


def test_the_heat_map_holds_the_plans_mass():
    clouds, _, _ = planted(7, n=120, pairs=20)
    told = align(KEY, clouds, 2, AlignmentConfig()).diagnostics
    assert np.shape(told["heat"]) == (60, 60)
    np.testing.assert_allclose(np.sum(told["heat"]), 1.0, atol=1e-3)
    np.testing.assert_allclose(np.sum(told["class_mass"]), 1.0, atol=1e-3)
    np.testing.assert_allclose(told["rho"], 0.1, rtol=1e-5)


def test_reversing_the_clouds_reverses_the_ridge_maps():
    clouds, _, _ = planted(8, n=100, pairs=30)
    config = AlignmentConfig(method="ridge")
    one, other = (
        align(KEY, clouds, 2, config),
        align(KEY, reverse(clouds), 2, config),
    )
    np.testing.assert_array_equal(one.forward["weight"], other.backward["weight"])


def test_complete_aligns_nothing():
    clouds, _, _ = planted(9, n=50, pairs=10)
    found = align(KEY, clouds, 2, AlignmentConfig(method="complete"))
    assert found.forward == found.backward == {}
    assert found.diagnostics["status"] == "none"


def test_collapse_is_named_and_not_used():
    # Rows in opposite pairs with one label: sum u = 0, the paper's start is stationary.
    clouds, _, _ = planted(10, n=60, pairs=20)
    twice = lambda z: np.concatenate([z - z.mean(0), z.mean(0) - z])
    symmetric = clouds._replace(
        source=twice(clouds.source),
        target=twice(clouds.target),
        source_label=np.zeros(120, int),
        target_label=np.zeros(120, int),
    )
    told = align(KEY, symmetric, 1, AlignmentConfig(method="signed")).diagnostics
    assert told["status"] == "collapsed"
    assert "it is about a product" in told["reason"]
    assert told["used"]["forward"] == "ridge on pairs"
    none = symmetric._replace(pairs=np.zeros((0, 2), int))
    found = align(KEY, none, 1, AlignmentConfig(method="signed"))
    assert found.diagnostics["used"]["forward"] == "mean"
    assert not found.forward["weight"].any()
    # Other starts leave it.
    told = align(KEY, none, 1, AlignmentConfig(method="gromov")).diagnostics
    assert told["status"] == "ok"


def test_constant_latents_fall_back():
    clouds, _, _ = planted(11, n=60, pairs=10)
    flat = clouds._replace(source=np.ones_like(clouds.source))
    found = align(KEY, flat, 2, AlignmentConfig())
    assert found.diagnostics["status"] == "collapsed"
    assert "constant" in found.diagnostics["reason"]
    assert all(np.isfinite(part).all() for part in found.forward.values())


def test_clouds_that_share_no_class_are_told_from_constant_ones():
    clouds, _, _ = planted(11, n=60, pairs=10)
    apart = clouds._replace(
        source_label=np.zeros(len(clouds.source), int),
        target_label=np.ones(len(clouds.target), int),
    )
    told = align(KEY, apart, 2, AlignmentConfig()).diagnostics
    assert told["status"] == "collapsed"
    assert told["reason"] == "no class has rows in both clouds"


def test_rows_without_direction_and_lone_classes_are_dropped_and_counted():
    clouds, _, _ = planted(12, n=100, pairs=20)
    source, label = clouds.source.copy(), clouds.source_label.copy()
    source -= source.mean(0)
    source[50] = 0.0
    source[51:] -= source[51:].sum(0) / 49 + source[:50].sum(0) / 49  # mean stays 0
    label[60:63] = 2  # a class that the target lacks
    bad = clouds._replace(source=source, source_label=label)
    told = align(KEY, bad, 3, AlignmentConfig()).diagnostics
    assert told["dropped_source"] == 4
    assert told["status"] == "ok"
    assert "left out of the coupling" in told["notes"][0]


def test_one_class_is_noted():
    clouds, _, _ = planted(13, n=120, pairs=20)
    zeros = clouds._replace(
        source_label=np.zeros(120, int), target_label=np.zeros(120, int)
    )
    told = align(KEY, zeros, 2, AlignmentConfig()).diagnostics
    assert "one class only" in told["notes"][0]


def test_one_row_a_side():
    one = lambda: np.ones((1, 3), np.float32)
    clouds, _, _ = planted(14, n=30, size=3, pairs=0)
    tiny = clouds._replace(source=one(), source_label=np.zeros(1, int))
    found = align(KEY, tiny, 2, AlignmentConfig())
    assert found.diagnostics["status"] == "collapsed"
    assert found.diagnostics["used"]["forward"] == "mean"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": np.zeros((0, 8))}, r"source: latents must be \[n, l\].*\(0, 8\)"),
        ({"target_label": np.zeros(3, int)}, "target: latents must be .* 3 labels"),
        (
            {"source": np.full((30, 8), np.nan)},
            "source: 30 of 30 latents are not finite",
        ),
        (
            {"target": np.full((30, 8), np.inf)},
            "target: 30 of 30 latents are not finite",
        ),
        (
            {"source_label": np.full(30, 7)},
            r"source: labels must lie in \[0, 2\), got 7",
        ),
        ({"pairs": np.array([[0, 99]])}, r"pairs: 1 of 1 .* the first is \[0, 99\]"),
    ],
)
def test_bad_input_is_refused(change, message):
    clouds, _, _ = planted(15, n=30, pairs=10)
    with pytest.raises(InputError, match=message):
        align(KEY, clouds._replace(**change), 2, AlignmentConfig())


@pytest.mark.parametrize("method", ["ridge", "procrustes", "knn"])
def test_too_few_pairs_are_refused_where_they_are_needed(method):
    clouds, _, _ = planted(16, n=30, pairs=3)
    with pytest.raises(InputError, match=f"{method} learns from complete pairs; there"):
        align(KEY, clouds, 2, AlignmentConfig(method=method))
    assert align(KEY, clouds, 2, AlignmentConfig()).diagnostics["used"]


def test_imputed_latents_tell_no_more_of_the_label_than_their_source():
    # A head trained on [z, imputed] must not do better in training than one on z, as it
    # does on label-aware barycentres.
    generator = np.random.default_rng(17)
    clouds, _, _ = planted(17, n=300, pairs=30)
    label = (generator.random(300) < 0.5).astype(int)  # z tells nothing of it
    blind = clouds._replace(
        source_label=label,
        target_label=np.r_[label[:30], (generator.random(270) < 0.5).astype(int)],
    )
    auroc = {}
    for imputation in ("linear", "barycentric"):
        config = AlignmentConfig(imputation=imputation)
        found = align(KEY, blind, 2, config)
        guess = imputers.predict(found.forward, config, blind.source[30:], label[30:])
        both = np.concatenate([blind.source[30:], np.asarray(guess)], 1)
        # A rank-deficient table: the linear map adds no column to the span.
        head = LogisticRegression(C=1.0, max_iter=2000).fit(both, label[30:])
        auroc[imputation] = roc_auc_score(label[30:], head.decision_function(both))
        plain = LogisticRegression(C=1.0, max_iter=2000).fit(
            blind.source[30:], label[30:]
        )
        alone = roc_auc_score(label[30:], plain.decision_function(blind.source[30:]))
    assert auroc["linear"] < alone + 0.02
    assert auroc["barycentric"] > auroc["linear"] + 0.1  # why A and not G is used
