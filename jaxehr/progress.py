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
        self.done = 0
        self.first: tuple[float, int] | None = None
        self.shown: float | None = None

    def __enter__(self) -> "Progress":
        if self.stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[note]}"),
                console=Console(file=self.stream),
            )
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if self.bar is not None:
            # A refusal before the first result leaves its own line only.
            self.bar.live.transient = kind is not None and not self.done
            self.bar.stop()

    def update(self, done: int, note: str = "") -> None:
        """Shows that `done` of the total are done."""
        now, self.done = time.monotonic(), done
        if self.first is None:
            self.first = (now, done)
        since, start = self.first
        left = ""
        if start < done < self.total:
            seconds = (now - since) / (done - start) * (self.total - done)
            left = f"{clock(seconds)} left"
        elif done >= self.total:
            left = f"in {clock(now - since)}"
        parts = [f"{done}/{self.total}", left, note]
        text = "  ".join(part for part in parts if part)
        if self.bar is not None:
            if self.task is None:  # the bar appears with the first number
                self.bar.start()
                self.task = self.bar.add_task(self.text, total=self.total, note="")
            self.bar.update(self.task, completed=done, total=self.total, note=text)
            return
        late = self.shown is None or now - self.shown >= LINE_SECONDS
        if done and (late or done >= self.total):
            self.shown = now
            print(f"{self.text}: {text}", file=self.stream, flush=True)
