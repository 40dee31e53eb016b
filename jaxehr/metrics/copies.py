"""Copies and nearest distances: diagnostics, no verdict on privacy.

A generator that leaks through anything but near copies passes them all; the attacks
in the same group are the evidence.
"""

import jax
import numpy as np

from jaxehr.core.contracts import Comparison, Definition, Metric, Value
from jaxehr.metrics.adversarial import proportion
from jaxehr.metrics.attacks import (
    NO_COLUMN,
    Interval,
    constant,
    in_place,
    learned_from,
    records,
)
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig, fingerprints
from jaxehr.metrics.fidelity import generator, undefined
from jaxehr.metrics.neighbours import nearest
from jaxehr.metrics.people import halfway, mixed
from jaxehr.metrics.views import too_few

ONLY = "A diagnostic only: a good number does not show that nothing leaks."


def definitions() -> dict[str, Definition]:
    return {
        "exact_copies": Definition(
            "Exact copies of training patients",
            f"{ONLY} Share of synthetic patients that equal a training patient in "
            "every value, gap and length; exact interval.",
            "lower",
            0.0,
        ),
        "dcr_share": Definition(
            "Nearer to training than to hold-out patients",
            f"{ONLY} Share of synthetic patients whose distance to the closest record "
            "(DCR) is smaller among training than among as many hold-out patients.",
            "lower",
            0.5,
        ),
        "nndr": Definition(
            "Nearest over second nearest distance",
            f"{ONLY} Median over synthetic patients of the ratio of the distances to "
            "the two closest training patients (NNDR); small for copies.",
            "higher",
            1.0,
        ),
    }


def closest(
    seen: np.ndarray, train: np.ndarray, holdout: np.ndarray, rng: np.random.Generator
) -> tuple[list[Interval], dict[str, float]]:
    """Share nearer to `train` (ties count a half), median ratio; quantiles of DCR."""
    size = min(len(train), len(holdout))
    other = nearest(seen, holdout[:size]).distance[:, 0]
    two = nearest(seen, train[:size], 2).distance
    nearer = float((two[:, 0] < other).mean() + (two[:, 0] == other).mean() / 2)
    ratio = np.where(
        two[:, 1] > 0, two[:, 0] / np.where(two[:, 1] > 0, two[:, 1], 1), 1
    )
    ratio = np.where(two[:, 0] == 0, 0.0, ratio)
    draws = rng.choice(ratio, (200, len(ratio)))
    ends = np.quantile(np.median(draws, 1), [0.025, 0.975])
    quantiles = {
        f"dcr_{name}": float(np.quantile(two[:, 0], q))
        for name, q in (("5%", 0.05), ("50%", 0.5))
    }
    median = Interval(float(np.median(ratio)), *map(float, ends))
    return [proportion(nearer, len(seen)), median], quantiles


def copies(config: MetricConfig = DEFAULT) -> Metric:
    """Exact copies, DCR and NNDR."""
    names = definitions()

    def run(
        key: jax.Array, real: Comparison, *, learned: np.ndarray | None = None
    ) -> dict[str, Value]:
        if reason := too_few(*real):
            return undefined(names, reason)
        prints = [fingerprints(data) for data in real]
        known = np.unique(prints[0])
        found = [np.isin(p, known) for p in (prints[2], prints[1], prints[0])]
        three = [proportion(float(hits.mean()), len(hits)) for hits in found]
        out = {"exact_copies": in_place(three, len(found[0]))}
        out["exact_copies"].detail["count"] = int(found[0].sum())
        real = learned_from(real, learned)
        rows = records(real)
        if constant(rows[0]):
            return out | undefined(("dcr_share", "nndr"), NO_COLUMN)
        rng, most = generator(key), config.pooled_rows
        orders = [mixed(rng, data.groups)[:most] for data in real]
        train, holdout, synthetic = (r[o] for r, o in zip(rows, orders, strict=True))
        middle = halfway(real.holdout.groups[orders[1]])
        asked, fresh = holdout[:middle], holdout[middle:]
        sets = (synthetic, holdout), (fresh, asked), (train[: len(asked)], asked)
        got = [closest(seen, train, others, rng) for seen, others in sets]
        for i, (name, nothing) in enumerate((("dcr_share", 0.5), ("nndr", None))):
            three = [one[i] for one, _ in got]
            out[name] = in_place(three, len(synthetic), nothing)
        caught = got[2][0][1].high < got[1][0][1].value  # copies have a small ratio
        out["nndr"].detail["leaky_generator_caught"] = bool(caught)
        out["dcr_share"].detail.update(got[0][1])
        return out

    return Metric(run, "privacy", names, sparse=True, takes=("learned",))
