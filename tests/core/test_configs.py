"""Configs become dicts and come back; unknown and refused fields are named."""

import json

import pytest

from jaxehr.core.checks import InputError
from jaxehr.core.configs import differences, from_dict, to_dict
from jaxehr.models.cdmt.config import PRESETS, CdmtConfig, CdmtSampling, preset
from jaxehr.training.config import TrainConfig


@pytest.mark.parametrize(
    "config",
    [
        CdmtSampling(guidance_categorical=0.5),
        CdmtConfig(hidden=8, train=TrainConfig(steps=3)),
        *map(preset, PRESETS),
    ],
)
def test_round_trip_through_json(config):
    text = json.dumps(to_dict(config))
    assert from_dict(type(config), json.loads(text)) == config


def test_unknown_field():
    with pytest.raises(
        InputError, match=r"file: unknown field\(s\) \['hiden'\]; known"
    ):
        from_dict(CdmtConfig, {"hiden": 3}, "file")
    with pytest.raises(InputError, match=r"file.train: unknown field\(s\) \['step'\]"):
        from_dict(CdmtConfig, {"train": {"step": 3}}, "file")


def test_refused_value():
    with pytest.raises(InputError, match="hidden must be positive, got 0"):
        from_dict(CdmtConfig, {"hidden": 0})


def test_differences():
    old = {"a": 1, "train": {"steps": 5, "keep": 2}, "gone": 0}
    new = {"a": 1, "train": {"steps": 6, "keep": 2}, "new": [1]}
    assert differences(old, new) == [
        "gone: 0 -> None",
        "new: None -> [1]",
        "train.steps: 5 -> 6",
    ]
    assert differences(old, old) == []
