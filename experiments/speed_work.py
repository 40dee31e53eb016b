"""What one contender of `experiments.speed` is asked for, and the work behind it.

Free of JAX: the parent process must not take memory or threads from its children.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

FLOAT = 4  # bytes
TRAIN = 3.0  # a forward pass, and two products for each of its products going back
TIME_WAVES, TIME_WIDTH = 64, 256  # of `jaxehr.nn.time.TimeEmbedding`


class LeftOut(Exception):
    """This contender has nothing to show on this machine; the message says why."""


def silent(result: Any) -> dict[str, Any]:
    """Tells nothing of a result."""
    del result
    return {}


class Ready(NamedTuple):
    """A contender that only waits for "go".

    run: one piece of work, timed; returns when it is done. flop, bytes: of one piece
    by formula; None = not known. tell: what to say of a result, outside of the clock;
    may hold `flop` and `bytes` that are known only afterwards.
    """

    run: Callable[[], Any]
    flop: float | None = None
    bytes: float | None = None
    tell: Callable[[Any], dict[str, Any]] = silent


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """Work of a denoiser: B rows x T steps x C channels, L layers of 2 x H units.

    repeats: network calls, or optimiser steps, of one piece of work. products, gru: of
    what their factors are, and the form of the recurrence, in ours. ragged: records end
    anywhere from the first step to the last; work is that of the steps before an end.
    """

    rows: int
    steps: int
    repeats: int
    channels: int = 49
    outputs: int = 0  # 0 = as many as channels
    hidden: int = 64
    layers: int = 3
    products: str = "float32"
    gru: str = "auto"
    ragged: bool = False

    @property
    def share(self) -> float:
        """Of the steps that are before an end."""
        return (self.steps + 1) / (2 * self.steps) if self.ragged else 1.0

    @property
    def out(self) -> int:
        return self.outputs or self.channels

    def widths(self) -> list[int]:
        """Input columns of each layer."""
        return [self.channels] + [2 * self.hidden] * (self.layers - 1)

    def flop(self, train: bool = False) -> float:
        """Products only, 2 a multiply-add; gates, norms and noise are left out.

        A GRU step of one row is [C + H] x [3H] in each direction. The time embedding
        and the modulation are once a row.
        """
        hidden = self.hidden
        gru = sum(2 * 2 * (c + hidden) * 3 * hidden for c in self.widths())
        step = gru + 2 * 2 * hidden * self.out
        time = TIME_WAVES * TIME_WIDTH + TIME_WIDTH**2
        row = 2 * (time + TIME_WIDTH * 4 * hidden)
        once = float(self.rows * (self.share * self.steps * step + row))
        return self.repeats * once * (TRAIN if train else 1.0)

    def bytes(self, train: bool = False) -> float:
        """Traffic if every layer's input and output passed memory once, in float32.

        Training writes and reads the four kept arrays [B, 2H] a step and passes every
        input and output twice more. Chunks that stay in the cache need less, so a
        share of the copy rate above 100 % is possible.
        """
        states = 2 * self.hidden
        passed = sum(c + states for c in self.widths()) + states + self.out
        if train:
            passed = TRAIN * passed + 2 * 4 * states * self.layers
        steps = self.share * self.steps
        return float(FLOAT * self.repeats * self.rows * steps * passed)


def coupling_flop(n: int, m: int, columns: int, outer: int, sinkhorn: int) -> float:
    """Products of a factored coupling: [n, k] x [k, m] and back each outer step.

    columns: k. sinkhorn: iterations in all, each two products of the kernel [n, m] with
    a vector.
    """
    return float((outer + 1) * 4 * n * m * columns + sinkhorn * 4 * n * m)


def coupling_bytes(n: int, m: int, sinkhorn: int) -> float:
    """The kernel is read twice in each Sinkhorn iteration."""
    return float(FLOAT * 2 * n * m * sinkhorn)
