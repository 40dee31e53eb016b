"""What the tests of the shell share."""

import pathlib
import resource
import subprocess
import sys

SMALL = ["--hidden", "4", "--num-layers", "1", "--steps", "4"]
STATIC = "pid,age,sex,died\n1,50.5,F,0\n2,61,M,1\n3,70,F,0\n4,44,M,1\n"
TEMPORAL = "pid,hour,hr,state\n1,0,80.5,a\n1,1,81,b\n2,0,,a\n2,1,90,b\n4,0,75,b\n"
TEMPORAL += "".join(f"3,{i},{60 + i}.5,{'ab'[i % 2]}\n" for i in range(30))
TABLES = "prepare tables --static s.csv --temporal t.csv --id pid --time hour"
TABLES = f"{TABLES} --label died --out out".split()


def noise(line: str) -> bool:
    """What XLA logs by itself."""
    return line.startswith(("WARNING: All log", "E0000", "I0000", "W0000"))


def listing(folder) -> list[str]:
    return sorted(str(path) for path in pathlib.Path(folder).rglob("*"))


def shell(*words, limit=None, **options):
    """The command in a process of its own."""
    prepare = None
    if limit is not None:
        prepare = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    command = [sys.executable, "-m", "jaxehr.cli", *map(str, words)]
    options = {"timeout": 120, "text": True} | options
    options = {"capture_output": True} | options
    return subprocess.run(command, preexec_fn=prepare, check=False, **options)
