"""A first start: the help text, and one patient of a saved run, each by a new process.

The model has its default size and the weights of one optimiser step.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import Any

from experiments.speed_work import Ready

COMMAND = (sys.executable, "-m", "jaxehr.cli")
PATIENTS = 64


def help(sizes: dict[str, Any]) -> Ready:
    """`jaxehr --help`."""
    del sizes
    return Ready(lambda: call(["--help"], None))


def first(sizes: dict[str, Any]) -> Ready:
    """`jaxehr sample RUN --n 1`; `keep`: with the compilation cache of the last one."""
    folder = tempfile.TemporaryDirectory()
    path = pathlib.Path(folder.name)
    cache = path / "cache"
    # Ahead of the clock and in its own process: this one stays free of JAX.
    code = "from experiments.speed_cold import save_run; import sys; save_run(sys.argv)"
    words = [str(path / "run"), sizes["preset"], str(sizes["steps"])]
    subprocess.run([sys.executable, "-c", code, *words], check=True)

    def run() -> None:
        if not sizes["keep"]:
            shutil.rmtree(cache, ignore_errors=True)
        out = str(path / "out")
        words = ["sample", str(path / "run"), "--n", "1", "--out", out, "--overwrite"]
        call(words, cache)
        assert folder.name  # the folder lives as long as this function

    return Ready(run)


def call(words: list[str], cache: pathlib.Path | None) -> None:
    """The command in a new process; raises where it fails."""
    env = dict(os.environ)
    if cache is not None:
        env["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    subprocess.run([*COMMAND, *words], check=True, env=env, stdout=sys.stderr)


def save_run(words: list[str]) -> None:
    """A run folder of simulated patients: folder, preset, steps of a patient."""
    from jaxehr.core.configs import replace
    from jaxehr.data.simulate import SimulateOptions, simulate
    from jaxehr.devices import configure
    from jaxehr.models.cdmt.config import CdmtConfig, preset
    from jaxehr.runs import train_run

    configure()
    _, folder, name, steps = words
    data = simulate(SimulateOptions(n=PATIENTS, steps=int(steps)))
    once = {"steps": 1, "batch_size": 32, "lr_schedule": "constant"}
    config = replace(preset(name) if name else CdmtConfig(), {"train": once})
    train_run("cdmt", data, folder, config, holdout_fraction=0.0)
