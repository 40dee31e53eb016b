"""The `jaxehr` command. JAX is imported by the commands that need it, not by --help."""

import contextlib
import importlib
import importlib.metadata
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jaxehr.core.checks import InputError, known
from jaxehr.jobs import leave, partner_lost

USAGE = """usage: jaxehr COMMAND ...

Synthetic patients from static and time-series health records.

commands:
  fetch NAME --out FOLDER                  download an open data set
  prepare SOURCE [PATH ...] --out COHORT   read records into a cohort folder
  train MODEL COHORT --out RUN             learn; goes on after a stop
  sample RUN --n N --out COHORT            draw synthetic patients
  impute RUN COHORT --out COHORT           draw the part that patients lack
  evaluate --real COHORT --synthetic COHORT --out REPORT
                                           compare; report.html and metrics.json
  audit --real COHORT --holdout COHORT --synthetic COHORT
                                           may they leave? exit code 0 or 1
  report alignment RUN                     how the parts of records were matched
  export FORMAT COHORT --out FOLDER        a cohort in a common format: meds
  list [models|sources|metrics]            what there is
  demo                                     all of it on a small real cohort

`jaxehr COMMAND --help` shows the options of a command.
"""

COMMANDS = {
    "fetch": "jaxehr.commands.fetch",
    "prepare": "jaxehr.commands.prepare",
    "train": "jaxehr.commands.train",
    "sample": "jaxehr.commands.sample",
    "impute": "jaxehr.commands.impute",
    "evaluate": "jaxehr.commands.evaluate",
    "audit": "jaxehr.commands.audit",
    "report": "jaxehr.commands.report",
    "export": "jaxehr.commands.export",
    "list": "jaxehr.commands.listing",
    "demo": "jaxehr.commands.demo",
}


OUT_OF_MEMORY = "out of memory; use a smaller cohort, --batch-size"
LOST = (
    "another process of this job has ended; start the job again: a training goes on "
    "from its last checkpoint."
)


class Terminated(BaseException):
    """SIGTERM came outside the training loop, which handles it by itself."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code (2 = the input is refused)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    mend_streams()
    try:
        with ended_by_signals():
            code = dispatch(words)
            sys.stdout.flush()
        return code
    except InputError as error:
        return fail(str(error), 2)
    except FloatingPointError as error:
        return fail(str(error), 1)
    except KeyboardInterrupt:
        return fail("interrupted", 128 + signal.SIGINT)
    except Terminated:
        return fail("terminated", 128 + signal.SIGTERM)
    except BrokenPipeError:  # the reader of our output has gone: `jaxehr ... | head`
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        return 128 + signal.SIGPIPE
    except MemoryError:
        return fail(f"{OUT_OF_MEMORY} or --n", 1)
    except OSError as error:
        if error.errno is None:
            raise
        place = error.filename or "output"
        return fail(f"{place}: {error.strerror}; free space or choose another place", 2)
    except (RuntimeError, ValueError) as error:  # JAX raises both
        if "RESOURCE_EXHAUSTED" in str(error):
            return fail(f"{OUT_OF_MEMORY} or --chunk-rows", 1)
        if not partner_lost(error):
            raise
        return fail(f"{LOST} JAX says: {str(error).strip().splitlines()[0][:160]}", 1)


def dispatch(words: list[str]) -> int:
    """Help, the version, or the command that the first word names."""
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if words[0] == "--version":
        print(f"jaxehr {importlib.metadata.version('jaxehr')}")
        return 0
    known("command", words[0], COMMANDS)
    run: Callable[[list[str]], int] = importlib.import_module(COMMANDS[words[0]]).run
    return run(words[1:])


def mend_streams() -> None:
    """Lets every text be printed: to a closed stream, and where letters are few."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell: `>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM becomes an exception, so that temporary files go away with it.

    So does Ctrl-C anyway; DuckDB turns both into an error of its own, and back here.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[type[BaseException]] = []

    def end(signum: int, frame: Any) -> None:
        came.append(KeyboardInterrupt if signum == signal.SIGINT else Terminated)
        raise came[-1]

    def lost(unraisable: Any) -> None:
        # What is raised in a finalizer or in a callback of the garbage collector
        # (JAX has one) is only reported, not raised: ask again in a moment.
        if unraisable.exc_type is Terminated and hasattr(signal, "SIGALRM"):
            signal.signal(signal.SIGALRM, end)
            signal.setitimer(signal.ITIMER_REAL, 0.02)
        else:
            report(unraisable)

    report, sys.unraisablehook = sys.unraisablehook, lost
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, end)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored
        before[signal.SIGINT] = signal.signal(signal.SIGINT, end)
    try:
        yield
    except Exception:
        if not came:
            raise
        raise came[0] from None
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        if sys.unraisablehook is lost:  # else it is wrapped, by `quiet_orbax`
            sys.unraisablehook = report


def fail(message: str, code: int) -> int:
    """Prints one line."""
    with contextlib.suppress(BrokenPipeError):
        print(f"jaxehr: error: {' '.join(message.split())}", file=sys.stderr)
    leave(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
