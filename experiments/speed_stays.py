"""Stays of 25 hours x (7 numbers + 7 masks) drawn by CDMT-EHR at its default size.

The weights are those of one optimiser step: what a draw costs does not depend on them.
"""

from typing import Any

import jax
import numpy as np

from experiments.speed_work import Network, Ready
from jaxehr.core.blocks import block_rows
from jaxehr.core.cohort import Cohort, Feature, Schema, Table, make_cohort
from jaxehr.core.configs import replace
from jaxehr.devices import configure
from jaxehr.models.cdmt.config import CdmtConfig, CdmtSampling, preset
from jaxehr.runs import make

NUMBERS, MISSING = 7, 0.2
LEARNED = 256  # stays that the preprocessing is fitted on


def stays(sizes: dict[str, Any]) -> Ready:
    """`sizes`: stays, steps, levels (noise levels), solver, preset."""
    configure()
    schema, cohort = simulated(sizes["steps"])
    config = preset(sizes["preset"]) if sizes["preset"] else CdmtConfig()
    once = {"steps": 1, "batch_size": 64, "lr_schedule": "constant"}
    config = replace(config, {"train": once})
    model = make("cdmt", schema, config)
    params = model.fit(jax.random.key(0), cohort)
    options = CdmtSampling(
        steps=sizes["levels"],
        solver=sizes["solver"],
        products=sizes.get("products", "as-trained"),
    )
    key, num = jax.random.key(1), sizes["stays"]

    def run() -> Cohort:
        return model.sample(key, params, None, num, options=options)

    block = block_rows(sizes["steps"]) * jax.local_device_count()
    width = config.embedding_dim
    net = Network(
        rows=-(-num // block) * block,  # the last block is filled up
        steps=sizes["steps"],
        repeats=sizes["levels"],
        channels=NUMBERS + NUMBERS * width,
        outputs=NUMBERS + 2 * NUMBERS,
        hidden=config.hidden,
        layers=config.num_layers,
    )
    return Ready(run, net.flop(), net.bytes(), told)


def told(drawn: Cohort) -> dict[str, Any]:
    """How many were drawn, and the share of missing values among theirs."""
    seen = np.asarray(drawn.temporal.observed)
    return {"stays": len(seen), "missing": float(1.0 - seen.mean())}


def simulated(steps: int) -> tuple[Schema, Cohort]:
    """Random walks of full length, values missing at random."""
    generator = np.random.default_rng(0)
    shape = (LEARNED, steps, NUMBERS)
    values = generator.normal(size=shape).cumsum(1)
    seen = generator.random(shape) > MISSING
    columns = tuple(Feature(name=f"x{i}", kind="numeric") for i in range(NUMBERS))
    none = np.zeros((LEARNED, 0))
    static = Table(none, none.astype(np.int32), none.astype(bool))
    series = Table(values, np.zeros((*shape[:2], 0), np.int32), seen)
    length = np.full(LEARNED, steps, np.int32)
    label = np.zeros(LEARNED, np.int64)
    schema = Schema(temporal=columns, num_steps=steps)
    return schema, make_cohort(static, series, length, label)
