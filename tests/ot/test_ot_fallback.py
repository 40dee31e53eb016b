"""What imputes when a coupling says nothing."""

import jax
import numpy as np
import pytest

from jaxehr.ot.align import align
from jaxehr.ot.clouds import Clouds
from jaxehr.ot.config import AlignmentConfig


def clouds():
    """40 complete records of two classes, and 40 more on each side."""
    rng = np.random.default_rng(0)
    source = rng.normal(size=(80, 4)).astype(np.float32)
    target = (source @ rng.normal(size=(4, 4))).astype(np.float32)
    label = rng.integers(2, size=80)
    pairs = np.stack([np.arange(40)] * 2, 1)
    zero = np.zeros(4, np.float32)
    return Clouds(source, label, target, label, pairs, zero, zero)


@pytest.mark.parametrize(
    ("fallback", "used"), [(True, "ridge on pairs"), (False, "map of the coupling")]
)
def test_a_collapsed_plan_is_used_only_on_request(fallback, used):
    config = AlignmentConfig(method="signed", epsilon=5.0, fallback=fallback)
    found = align(jax.random.key(0), clouds(), 2, config)
    assert found.diagnostics["status"] == "collapsed"
    assert found.diagnostics["used"] == {"forward": used, "backward": used}
    spread = np.abs(found.forward["weight"]).max()
    assert (spread < 0.1) != fallback  # a product plan sends everyone to the mean
