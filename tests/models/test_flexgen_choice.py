"""Who trains the diffusion is chosen by the loss of complete patients held out."""

import dataclasses

import jax
import numpy as np
import pytest
from flexgen_cohorts import config

from jaxehr.models.flexgen import choice
from jaxehr.models.flexgen.latent import Latents
from jaxehr.training.config import TrainConfig
from jaxehr.training.stages import Stages

TRAIN = TrainConfig(steps=2000, batch_size=64, chunk_rows=64)
CONFIG = config(width=32, train=TRAIN)


def people(count, lacking, seed=0):
    """Latents: the temporal part is the static one up to a little noise."""
    rng = np.random.default_rng(seed)
    static = rng.normal(size=(count, 4)).astype(np.float32)
    temporal = static + 0.1 * rng.normal(size=(count, 4)).astype(np.float32)
    none = np.zeros((count, 4), np.float32)
    has = np.arange(count) >= lacking
    return Latents(
        label=np.zeros(count, np.int32),
        static_mean=static,
        static_std=none,
        temporal_mean=np.where(has[:, None], temporal, 0.0).astype(np.float32),
        temporal_std=none,
        has_static=np.ones(count, bool),
        has_temporal=has,
        common=None,
    )


def imputers(slope):
    """The temporal part = slope x the static one, with what is left as noise."""
    one = {
        "from": np.zeros((1, 4), np.float32),
        "to": np.zeros((1, 4), np.float32),
        "weight": slope * np.eye(4, dtype=np.float32),
        "residual": np.sqrt(1.01 - slope**2) * np.eye(4, dtype=np.float32),
    }
    return {"within": {"forward": one, "backward": one}}


def chosen(slope, complete, config=CONFIG):
    stages = Stages({"pilot-all": 300, "pilot-complete": 300, "latent": 2000})
    rows = people(complete + 1500, 1500)._replace(common=imputers(slope))
    held = people(200, 100, seed=1)._replace(common=imputers(slope))
    return choice.choose(stages, config, 0, jax.random.key(0), rows, held)


def test_patients_whose_part_is_made_up_stay_out():
    found = chosen(slope=0.0, complete=600)
    assert found.told["kept"] == "complete"
    assert found.told["patients"] == 100
    assert len(found.rows.label) == 600
    assert len(found.judged.label) == 100
    assert found.config.method == "complete"
    assert "complete patients alone train" in choice.in_words(found.told)


def test_patients_whose_part_is_known_are_of_use():
    found = chosen(slope=1.0, complete=60)
    assert found.told["kept"] == "all"
    assert len(found.rows.label) == 1560
    assert len(found.judged.label) == 200
    assert found.config == CONFIG.alignment
    assert "all patients train" in choice.in_words(found.told)


def test_pilots_that_time_cut_short_decide_nothing():
    short = dataclasses.replace(TRAIN, max_minutes=1e-4)
    found = chosen(0.0, 600, dataclasses.replace(CONFIG, train=short))
    assert found.told["kept"] == "all"


class Have:
    """As much of a cohort as a plan reads."""

    def __init__(self, count, lacking):
        self.has_static = np.ones(count, bool)
        self.has_temporal = np.arange(count) >= lacking


@pytest.mark.parametrize(
    ("settings", "fit", "valid", "some"),
    [
        (CONFIG, Have(200, 100), Have(100, 50), True),
        (CONFIG, Have(200, 0), Have(100, 50), False),  # nobody lacks a part
        (CONFIG, Have(200, 151), Have(100, 50), False),  # too few to learn from
        (CONFIG, Have(200, 100), Have(100, 51), False),  # too few held out
        (CONFIG, Have(200, 100), None, False),
        (config(train_on="all", train=TRAIN), Have(200, 100), Have(100, 50), False),
        (
            config(train=TRAIN, order="alternating"),
            Have(200, 100),
            Have(100, 50),
            False,
        ),
    ],
)
def test_there_is_a_choice_where_both_can_be_judged(settings, fit, valid, some):
    found = choice.pilots(settings, fit, valid)
    assert found == ({"pilot-all": 500, "pilot-complete": 500} if some else {})


def test_what_was_chosen_is_kept_with_the_run():
    assert not choice.left_out(CONFIG, {})
    assert choice.left_out(CONFIG, {"training": {"kept": "complete"}})
    alone = dataclasses.replace(CONFIG.alignment, method="complete")
    assert choice.left_out(dataclasses.replace(CONFIG, alignment=alone), {})
