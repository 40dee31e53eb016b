"""Progress on stderr: a bar on a terminal, a line now and then in a log."""

import sys
import time
from typing import Any, TextIO

LINE_SECONDS = 15.0  # between two lines when there is no terminal


def clock(seconds: float) -> str:
    """93 -> "1:33"."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """Counts up to `total`, with the time that is left. Use as a context manager."""

    def __init__(self, text: str, total: int, stream: TextIO | None = None) -> None:
        self.text, self.total = text, total
        self.stream = stream or sys.stderr
        self.bar: Any = None
        self.task: Any = None
        self.first: tuple[float, int] | None = None
        self.shown = 0.0

    def __enter__(self) -> "Progress":
        if self.stream.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
            )

            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(file=self.stream),
            )
            self.bar.start()
            self.task = self.bar.add_task(self.text, total=self.total, note="")
        return self

    def __exit__(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.stop()

    def update(self, done: int, note: str = "") -> None:
        """Shows that `done` of the total are done."""
        now = time.monotonic()
        if self.first is None:
            self.first = (now, done)
        since, start = self.first
        left = ""
        if done > start:
            seconds = (now - since) / (done - start) * (self.total - done)
            left = f"{clock(seconds)} left"
        if self.bar is not None:
            text = f"{left}  {note}"
            self.bar.update(self.task, completed=done, note=text)
        elif done >= self.total or now - self.shown >= LINE_SECONDS:
            self.shown = now
            parts = [f"{self.text}: {done}/{self.total}", left, note]
            print("  ".join(p for p in parts if p), file=self.stream, flush=True)
