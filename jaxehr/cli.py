"""The `jaxehr` command. JAX is imported by the commands that need it, not by --help."""

import importlib
import importlib.metadata
import os
import signal
import sys
from collections.abc import Callable, Sequence

from jaxehr.core.checks import InputError, known

USAGE = """usage: jaxehr COMMAND ...

Synthetic patients from static and time-series health records.

commands:
  prepare SOURCE [PATH ...] --out COHORT   read records into a cohort folder
  train MODEL COHORT --out RUN             learn; the same command goes on after a stop
  sample RUN --n N --out COHORT            draw synthetic patients
  evaluate --real COHORT --synthetic COHORT --out REPORT
                                           compare them; report.html and metrics.json
  list [models|sources|metrics]            what there is
  demo                                     all of it on a small real cohort, in minutes

`jaxehr COMMAND --help` shows the options of a command.
"""

COMMANDS = {
    "prepare": "jaxehr.commands.prepare",
    "train": "jaxehr.commands.train",
    "sample": "jaxehr.commands.sample",
    "evaluate": "jaxehr.commands.evaluate",
    "list": "jaxehr.commands.listing",
    "demo": "jaxehr.commands.demo",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code (2 = the input is refused)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if words[0] == "--version":
        print(f"jaxehr {importlib.metadata.version('jaxehr')}")
        return 0
    try:
        known("command", words[0], COMMANDS)
        run: Callable[[list[str]], int] = importlib.import_module(
            COMMANDS[words[0]]
        ).run
        return run(words[1:])
    except InputError as error:
        return fail(str(error), 2)
    except FloatingPointError as error:
        return fail(str(error), 1)
    except KeyboardInterrupt:
        return fail("interrupted", 128 + signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        return fail("out of memory; use a smaller cohort or --batch-size", 1)


def fail(message: str, code: int) -> int:
    """Prints one line."""
    print(f"jaxehr: error: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
