"""How often patients break the bounds and plausibility rules of the schema."""

from typing import Any

import jax
import numpy as np

from jaxehr.core.cohort import Dataset, Schema
from jaxehr.core.contracts import Comparison, Definition, Metric, Value
from jaxehr.data.rules import find_broken, is_bounded, read_grid, read_sheet
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.fidelity import undefined
from jaxehr.metrics.membership import clopper_pearson
from jaxehr.metrics.views import too_few

NO_RULES = "the schema has no rules and no bounds"


def rules(config: MetricConfig = DEFAULT) -> Metric:
    """Share of patients who break a rule; by rule, the share of cells that break it."""
    name = "rule_violations"
    definition = Definition(
        "Patients who break a rule",
        "Share of patients with at least one value that breaks a bound or a rule of "
        "the real cohort's schema; exact interval. `metrics.json` has, by rule and "
        "data set, the share of the places where it applies that break it.",
        "lower",
        0.0,
    )

    def run(key: jax.Array, real: Comparison) -> dict[str, Value]:
        if reason := too_few(*real):
            return undefined([name], reason)
        schema = real.schema
        bounded = any(map(is_bounded, schema.static + schema.temporal))
        if not schema.rules and not bounded:
            return undefined([name], NO_RULES)
        sides = {
            side: broken(schema, data)
            for side, data in zip(Comparison._fields, real, strict=True)
        }
        hits = {side: int(any_rule.sum()) for side, (any_rule, _) in sides.items()}
        sizes = [len(data.ids) for data in real]
        train, _, made = (
            hits[s] / n for s, n in zip(Comparison._fields, sizes, strict=True)
        )
        ends = clopper_pearson(hits["synthetic"], sizes[-1])
        by_rule = {
            rule: {side: shares[rule] for side, (_, shares) in sides.items()}
            for rule in sides["train"][1]
        }
        return {name: Value(made, train, *ends, "", {"per_rule": by_rule})}

    return Metric(run, "fidelity", {name: definition})


def broken(schema: Schema, data: Dataset) -> tuple[np.ndarray, dict[str, Any]]:
    """Patients who break any rule, Bool [N]; counts and the share of cells by rule.

    The share is None where the rule applies nowhere.
    """
    grid = read_grid(schema, data.cohort)
    patients, shares = np.zeros(len(data.ids), bool), {}
    for rule, found in find_broken(grid, read_sheet(grid, data.cohort)):
        owners = found.broken.any(1)
        patients |= owners
        cells, applies = int(found.broken.sum()), int(found.applies.sum())
        shares[rule] = {
            "patients": int(owners.sum()),
            "cells": cells,
            "applies": applies,
            "share": cells / applies if applies else None,
        }
    return patients, shares
