"""Columns of the network by kind, masks and mode; refused configurations."""

import pytest
from cdmt_builders import config
from small_cohorts import STATIC, TEMPORAL, schema

from jaxehr.core.checks import InputError
from jaxehr.models.cdmt.config import CdmtConfig, CdmtSampling, preset
from jaxehr.models.cdmt.layout import make_layout


def test_columns_with_masks():
    layout = make_layout(schema(), config())
    temporal, static = layout.temporal, layout.static
    assert [f.name for f in temporal.numeric] == ["hr", "lab"]
    assert [f.name for f in temporal.coded] == ["rhythm", "vent"]
    assert temporal.coded_positions == (0, 2)  # the constant between is not diffused
    assert temporal.cardinalities == (3, 2, 2, 2, 2, 2, 2)
    masks = [f"{name} missing" for name in ("hr", "lab", "rhythm", "ward", "vent")]
    assert list(temporal.names) == ["rhythm", "vent", *masks]
    assert static.cardinalities == (4, 2, 2, 2)
    assert list(static.names)[:2] == ["unit", "age missing"]
    assert (layout.num_steps, layout.num_classes) == (4, 2)


def test_columns_without_masks():
    layout = make_layout(schema(), config(masks=False))
    assert layout.temporal.cardinalities == (3, 2)
    assert layout.temporal.masked == ()
    assert layout.static.names == ("unit",)


def test_the_label_is_the_last_column_when_it_is_diffused():
    layout = make_layout(schema(classes=3), config(mode="unconditional"))
    assert layout.temporal.cardinalities[-1] == 3
    assert layout.temporal.names[-1] == "label"
    assert layout.static.cardinalities == (4, 2, 2, 2)
    assert (layout.num_classes, layout.label_classes) == (0, 3)


def test_without_a_label_both_modes_are_one():
    for mode in ("conditional", "unconditional"):
        layout = make_layout(schema(classes=0), config(mode=mode))
        assert layout.num_classes == layout.label_classes == 0


def test_one_modality():
    only_static = make_layout(schema(temporal=()), config())
    assert only_static.num_steps == 0
    assert only_static.temporal.cardinalities == only_static.temporal.names == ()
    only_temporal = make_layout(schema(static=()), config())
    assert only_temporal.static.features == ()
    assert only_temporal.temporal.features == TEMPORAL


def test_a_vote_needs_time_steps():
    with pytest.raises(InputError, match="the cohort has no temporal feature; use"):
        make_layout(schema(temporal=()), config(mode="unconditional"))


def test_layouts_are_equal_and_hashable():
    one, two = make_layout(schema(), config()), make_layout(schema(), config())
    assert one == two
    assert hash(one) == hash(two)
    assert one != make_layout(schema(static=STATIC[:1]), config())


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"hidden": 0}, "hidden must be positive, got 0"),
        ({"num_layers": 0}, "num_layers must be positive"),
        ({"embedding_dim": 0}, "embedding_dim must be positive"),
        ({"sigma_min": 0.0}, "sigma_min must be positive"),
        ({"sigma_data": -1.0}, "sigma_data must be positive, got -1.0"),
        ({"max_knots": 0}, "max_knots must be positive"),
        ({"mode": "both"}, "unknown mode 'both'; known: conditional, uncond"),
        ({"categorical": "onehot"}, "unknown categorical 'onehot'"),
        ({"schedule": "cosine"}, "unknown schedule 'cosine'; known: learned, fixed"),
        ({"categorical_norm": "k"}, "unknown categorical_norm 'k'"),
        ({"time_input": "sigma"}, "unknown time_input 'sigma'"),
        ({"rho_kind": "free"}, "unknown rho_kind 'free'"),
        ({"label_drop": 1.5}, r"label_drop must lie in \[0.0, 0.99\], got 1.5"),
        ({"sigma_min": 90.0}, "sigma_min 90.0 must lie below sigma_max 80.0"),
        ({"rho": 5.0}, "must exceed rho_floor 5.0; got 5.0 and 11.0"),
        ({"rho_floor": 0.0}, "rho_floor must be positive, got 0.0"),
        (
            {"rho_embedding": 0.1, "rho_floor": 0.1},
            "must exceed rho_floor 0.1; got 7.0 and 0.1",
        ),
        ({"rho": 60.0}, r"at most 40.0, or their soft cap at 50.0 .* got 60.0 and 11"),
        ({"rho_embedding": 50.0}, "at most 40.0, .* got 7.0 and 50.0"),
        ({"rho": 70.0, "rho_floor": 60.0, "rho_embedding": 70.0}, "at most 40.0"),
        ({"weight_static": -1.0}, "weight_static must not be negative"),
    ],
)
def test_refused_models(fields, match):
    with pytest.raises(InputError, match=match):
        CdmtConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"steps": 0}, "steps must be positive, got 0"),
        ({"solver": "rk4"}, "unknown solver 'rk4'; known: auto, euler, heun, dpmpp-2m"),
        ({"decode": "sample"}, "unknown decode 'sample'; known: nearest, argmax"),
        ({"guidance": -2.0}, "guidance must be at least -1"),
        ({"guidance_categorical": -1.5}, "guidance must be at least -1"),
    ],
)
def test_refused_sampling(fields, match):
    with pytest.raises(InputError, match=match):
        CdmtSampling(**fields)


def test_presets():
    """[cdmt2026, Table 1]: 8,000 epochs of 6 and of 12 batches of 4,096."""
    assert preset("paper-mimic3").train.steps == 8000 * 6
    assert preset("paper-eicu").train.steps == 8000 * 12
    assert preset("paper-mimic3").hidden == 64
    with pytest.raises(InputError, match="unknown preset 'big'; known: paper-mimic3"):
        preset("big")
