"""The run folder: run.json, metrics.jsonl, checkpoints/ and, at the end, params.npz.

While a model learns from shards, feed/ holds the encoded patients; it goes at the end.
"""

import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from jaxehr.core import arrays
from jaxehr.core.checks import InputError, known
from jaxehr.core.configs import differences, from_dict, to_dict
from jaxehr.core.contracts import Callback
from jaxehr.core.files import PathLike, read_json, write_bytes, write_json
from jaxehr.data.schema_json import schema_from_json
from jaxehr.registry import MODELS, find, model_entry
from jaxehr.runs.model import Run
from jaxehr.training.sharding import leads, led, seen_by_all

RUN_FILE, PARAMS, METRICS, CHECKPOINTS, FEED = (
    "run.json",
    "params.npz",
    "metrics.jsonl",
    "checkpoints",
    "feed",
)
FORMAT = 6
WAITS = 20  # tenths of a second
# Fields that may change when a run goes on: they do not change what a step does.
LIMITS = ("config.train.max_minutes", "config.train.keep")
FREE = (*LIMITS, "schema.rules")


@contextmanager
def opened(folder: pathlib.Path, info: dict[str, Any]) -> Iterator[None]:
    """Opens the folder; a failure before the first checkpoint removes what it made."""
    # Who looks for a file that is not there yet will not see it for a while on NFS.
    missing = [f for f in (folder, *folder.parents) if leads() and not f.exists()]
    new = leads() and not (folder / RUN_FILE).exists()
    ours = False  # only what this call wrote is removed
    try:
        led(lambda: open_run(folder, info))
        seen_by_all(folder / RUN_FILE)
        ours = new
        yield
    except Exception:
        saved = (folder / CHECKPOINTS).rglob("*")
        if ours and not any(path.name.isdigit() for path in saved):
            for name in (RUN_FILE, METRICS):
                (folder / name).unlink(missing_ok=True)
            remove(folder / CHECKPOINTS)
            remove_feeds(folder)
        for made in missing:  # from the innermost
            if made.is_dir() and not any(made.iterdir()):
                made.rmdir()
        raise


def remove(folder: pathlib.Path) -> None:
    """Removes a folder into which TensorStore may still write for a moment.

    After the first error nobody can wait for its other writes, and each makes the
    folder again: it has to stay away for a while.
    """
    gone = 0
    for _ in range(WAITS * 10):
        gone = 0 if folder.exists() else gone + 1
        if gone == WAITS:
            return
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.1)


def remove_feeds(folder: pathlib.Path) -> None:
    """Removes the encoded patients that every process of a job has for itself."""
    for scratch in [folder / FEED, *folder.glob(f"{FEED}-[0-9]*")]:
        shutil.rmtree(scratch, ignore_errors=True)


def open_run(folder: pathlib.Path, info: dict[str, Any]) -> None:
    """Makes the folder, or checks that it holds the same run."""
    if (folder / RUN_FILE).is_file():
        changed = changes(read_info(folder), info)
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise InputError(
                f"{folder}: holds another run ({'; '.join(changed[:3])}{more}); train "
                "into another folder, or repeat the command that made it."
            )
    elif folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; choose another folder.")
    elif folder.exists() and any(map(foreign, folder.iterdir())):
        raise InputError(
            f"{folder}: is not empty and not a run; choose another folder."
        )
    write_json(folder / RUN_FILE, info)


def foreign(path: pathlib.Path) -> bool:
    """Whether a file is no half of a run.json whose writing was killed."""
    return not path.name.startswith(f".{RUN_FILE}.")


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two runs, each in a few words."""
    ignored = ("versions", "machine", "automatic")
    keep = lambda info: {k: v for k, v in info.items() if k not in ignored}
    plain = json.loads(json.dumps(new))  # tuples become lists, as in a file
    found = differences(keep(with_defaults(old)), keep(plain))
    found = [line for line in found if not line.startswith(FREE)]
    return [line if len(line) <= 80 else f"{line[:77]}..." for line in found]


def with_defaults(info: dict[str, Any]) -> dict[str, Any]:
    """A run of an older version, with the fields that its configuration lacks."""
    try:
        kind = find(model_entry(info["model"]).config)
        whole = to_dict(from_dict(kind, info["config"]))
    except (InputError, KeyError, TypeError, AttributeError):
        return info  # what it is will be told as a difference
    return info | {"config": json.loads(json.dumps(whole))}


def write_params(run: Run, folder: pathlib.Path) -> None:
    """The end of training; written by the process that leads."""
    if not leads():
        return
    content = run.params | {"run": np.array(identity(run.info))}
    write_bytes(folder / PARAMS, arrays.to_bytes(content))


def identity(info: dict[str, Any]) -> str:
    """A hash of what the parameters depend on; finds an edited run.json."""
    config = info.get("config")
    if isinstance(config, dict) and isinstance(config.get("train"), dict):
        limits = [name.rpartition(".")[2] for name in LIMITS]
        train = {k: v for k, v in config["train"].items() if k not in limits}
        config = config | {"train": train}
    schema = info.get("schema")
    if isinstance(schema, dict):
        schema = {k: v for k, v in schema.items() if k != "rules"}
    text = json.dumps([info.get("model"), config, schema], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_info(folder: pathlib.Path) -> dict[str, Any]:
    """run.json, checked to be one of ours."""
    info = read_json(folder / RUN_FILE)
    where = folder / RUN_FILE
    if not isinstance(info, dict) or "format" not in info or "model" not in info:
        raise InputError(f"{where}: not a run of jaxehr (no format, or no model).")
    if info["format"] != FORMAT:
        raise InputError(
            f"{where}: has format {info['format']!r}, this version reads {FORMAT}; use "
            "the version of jaxehr that made it, or train anew."
        )
    known(f"model in {where}", info["model"], MODELS)
    return info


def load_run(path: PathLike) -> Run:
    """A trained run.

    Raises:
      InputError: no run there, training has not ended, or a file is damaged.
    """
    folder = pathlib.Path(path)
    if not (folder / RUN_FILE).is_file():
        raise InputError(
            f"{folder}: not a run folder (no {RUN_FILE}); see `jaxehr train`."
        )
    info = read_info(folder)
    if not (folder / PARAMS).is_file():
        raise InputError(
            f"{folder}: training has not ended; repeat the `jaxehr train` command."
        )
    entry = model_entry(info["model"])
    where = str(folder / RUN_FILE)
    try:
        config = from_dict(find(entry.config), info["config"], where)
        schema = schema_from_json(info["schema"], where)
    except (KeyError, TypeError) as error:
        raise InputError(f"{where}: damaged ({error}).") from error
    params = arrays.read_arrays(folder / PARAMS)
    missing = [name for name in ("fitted", "weights", "run") if name not in params]
    if missing:
        raise InputError(
            f"{folder / PARAMS}: damaged ({', '.join(missing)} missing); repeat the "
            "`jaxehr train` command."
        )
    if str(params.pop("run")) != identity(info):
        raise InputError(
            f"{where}: was edited after training, or belongs to another {PARAMS}; "
            "bring the original back, or train anew."
        )
    return Run(info["model"], config, schema, params, info)


def save_run(run: Run, path: PathLike) -> None:
    """Writes a model trained in Python as a folder that `load_run` reads."""
    folder = pathlib.Path(path)
    with opened(folder, run.info):
        write_params(run, folder)


def outdated(folder: pathlib.Path) -> Callback:
    """Removes the parameters of an end that is none any more, with the first new step;
    its checkpoint stays."""

    def remove_old(step: int, metrics: dict[str, float]) -> None:
        del step, metrics
        (folder / PARAMS).unlink(missing_ok=True)

    return remove_old


def json_lines(path: pathlib.Path) -> Callback:
    """Appends to a JSONL file; a resumed run first drops the lines of later steps."""
    started = False

    def write(step: int, metrics: dict[str, float]) -> None:
        nonlocal started
        if not started:
            lines = path.read_text().splitlines() if path.is_file() else []
            kept = [line for line in lines if earlier(line, step)]
            write_bytes(path, "".join(f"{line}\n" for line in kept).encode())
            started = True
        try:
            with path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"step": step} | metrics) + "\n")
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror})."
            ) from error

    return write


def earlier(line: str, step: int) -> bool:
    """Whether a line of metrics is whole and older than `step`."""
    try:
        return json.loads(line)["step"] < step
    except (json.JSONDecodeError, KeyError, TypeError):
        return False
