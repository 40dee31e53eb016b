"""Invented diagnostics of an alignment, for tests."""

from typing import Any

import numpy as np

RUN: dict[str, Any] = {
    "model": "flexgen",
    "label": "died",
    "classes": ["no", "<yes>"],
    "config": {"alignment": {"method": "fused", "rho": 0.1}},
}
FOUR = RUN | {"label": "stage", "classes": ["I", "II", "III", "IV"]}


def made_up(num_classes: int = 2, blocks: int = 24) -> dict[str, Any]:
    """Diagnostics with every key; four of five matches stay within their class."""
    codes = np.arange(blocks) * num_classes // blocks
    same = codes[:, None] == codes
    heat = np.where(same, 0.8 / same.sum(), 0.2 / (~same).sum())
    onehot = np.eye(num_classes)[codes]
    mass = onehot.T @ heat @ onehot
    errors = {"fused": (0.66, 0.74), "ridge": (0.67, 0.73), "knn": (0.81, 2.6)}
    return {
        "status": "ok",
        "reason": "nearly one-to-one",
        "outer_iterations": 23,
        "sinkhorn_iterations": 1344,
        "moment_change": 6.1e-5,
        "marginal_error": 8.2e-4,
        "mass": 1.0003,
        "epsilon": 0.0041,
        "rho": 0.1,
        "sigma_ref": 0.041,
        "gw_plan": 0.0213,
        "gw_product": 0.0852,
        "gw_starts": [0.0213, 0.0391],
        "information": 0.31,
        "label_agreement": float(np.trace(mass)),
        "label_chance": float(mass.sum(1) @ mass.sum(0)),
        "dropped_source": 0,
        "dropped_target": 3,
        "rows_source": 1200,
        "rows_target": 1310,
        "class_mass": mass.tolist(),
        "heat": heat.tolist(),
        "notes": ["3 target rows are left out"],
        "method": "fused",
        "used": {
            "forward": "map, transported rows weigh 0.1",
            "backward": "ridge on pairs",
        },
        "cv": {
            way: {"mean": 1.0, "ridge": 0.653, "map": 0.641, "weight": 0.1}
            for way in ("forward", "backward")
        },
        "hidden": {"patients": 160}
        | {name: {"static": s, "temporal": t} for name, (s, t) in errors.items()},
    }
