"""Metrics in blocks on several devices give the numbers of one."""

import json
import os
import pathlib
import subprocess
import sys
import textwrap

SCRIPT = """
    import json
    import sys

    import jax
    import numpy as np

    jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
    from jaxehr.metrics import neighbours, temporal

    neighbours.BLOCK, temporal.BLOCK = 16, 8
    rng = np.random.default_rng(0)
    table, rows = (rng.normal(size=(n, 5)).astype(np.float32) for n in (90, 41))
    rows[3] = table[7]
    far = neighbours.nearest(rows, table, 2)
    own = neighbours.nearest(table, table, exclude_self=True)
    assert far.row[3, 0] == 7
    x, length = rng.normal(size=(21, 6, 3)).astype(np.float32), np.arange(21) % 6 + 1
    one = temporal.Picked(x, length, np.arange(21))
    other = temporal.Picked(x[::-1], length[::-1], np.arange(21))
    found = [*far, *own, *temporal.warp(one, other).values()]
    print(json.dumps([jax.device_count(), [leaf.tolist() for leaf in found]]))
"""


def test_nearest_patients_and_time_warping_are_those_of_one_device():
    root = str(pathlib.Path(__file__).parents[2])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    made = [
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(SCRIPT), str(devices)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        )
        for devices in (1, 3)
    ]
    (one, alone), (three, together) = (json.loads(run.stdout) for run in made)
    assert (one, three) == (1, 3)
    assert alone == together
    numbers = alone[3]  # of the nearest other row of the table
    assert all(row[0] != i for i, row in enumerate(numbers))
    assert len(numbers) == 90
