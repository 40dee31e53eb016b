"""Training data that do not fit into memory: read ahead by Grain, chunk after chunk.

Which patients a batch holds is a function of the key and the number of the batch, as
for data in memory (`turns.order_of`). So the state of the feed is the step, a run that
goes on starts in the middle of a chunk, and neither the size of the chunks nor the way
in which patients lie on disk changes the result.
"""

import functools
import importlib
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.checks import InputError
from jaxehr.training.sharding import replicate, replicate_checked
from jaxehr.training.turns import Fed, Layout, batches, order_of

CHUNK_BYTES, MOST_STEPS = 2**25, 64  # of one chunk; four of them are in memory
THREADS = 2


class Feed(NamedTuple):
    """Patients that are read as they are needed.

    Attributes:
      count: how many.
      take: rows Int [n] -> pytree of NumPy arrays [n, ...]; called from threads.
    """

    count: int
    take: Callable[[np.ndarray], Any]


class Whole:
    """Data that are on the devices from the start."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def at(self, step: int) -> tuple[Any, int]:
        """The data from a step on, and for how many steps they last."""
        return self.data, 2**31 - 1

    def ahead(self, result: Any) -> None:
        """Prepares what comes next while the devices compute `result`."""

    def told(self) -> dict[str, float]:
        """What a report of the training says of the reading."""
        return {}

    def close(self) -> None:
        """Stops reading."""


class Chunks:
    """The data of a `Feed` as chunks of whole steps, one of them ahead on the devices.

    Args:
      key: of the run; the order of patients comes from it as in `steps.run_steps`.
      updates: batches of one step.
      steps: of the run.
    """

    def __init__(
        self,
        feed: Feed,
        key: jax.Array,
        cut: Layout,
        updates: int,
        steps: int,
        mesh: Any,
    ) -> None:
        self.grain = load_grain()
        self.cut, self.mesh, self.updates = cut, mesh, updates
        one = feed.take(np.zeros(1, np.int64))
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(one)) * cut.batch * updates
        self.steps = int(np.clip(CHUNK_BYTES // max(size, 1), 1, MOST_STEPS))
        number = -(-steps // self.steps)
        self.source = Source(feed, key, cut, self.steps * updates, number)
        self.stream: Any = None
        self.chunk, self.here, self.next = -1, None, None
        self.begun, self.idle = time.perf_counter(), 0.0

    def at(self, step: int) -> tuple[Any, int]:
        """The chunk that holds a step, and the steps left in it."""
        chunk, start = step // self.steps, time.perf_counter()
        if chunk != self.chunk:
            if chunk == self.chunk + 1 and self.next is not None:
                self.here = self.next
            else:
                self.start(chunk)
                # Later ones are not compared: that would wait for the step that runs.
                self.here = replicate_checked(self.fed(chunk), self.mesh)
            self.chunk, self.next = chunk, None
            self.idle += time.perf_counter() - start
        return self.here, self.steps - step % self.steps

    def ahead(self, result: Any) -> None:
        """Brings the next chunk to the devices, once for each chunk."""
        if self.next is None and self.chunk + 1 < len(self.source):
            start = time.perf_counter()
            self.next = replicate(self.fed(self.chunk + 1), self.mesh)
            if result.is_ready():  # the devices waited for a part of this
                self.idle += time.perf_counter() - start

    def told(self) -> dict[str, float]:
        """`waiting`: at most this share of the time the devices had no patients."""
        return {"waiting": self.idle / (time.perf_counter() - self.begun)}

    def start(self, chunk: int) -> None:
        """Reads from `chunk` on, in the background."""
        self.close()
        chunks = self.grain.MapDataset.source(self.source)[chunk:]
        options = self.grain.ReadOptions(
            num_threads=THREADS, prefetch_buffer_size=THREADS
        )
        self.stream = iter(chunks.to_iter_dataset(options))

    def fed(self, chunk: int) -> Fed:
        """The next chunk of the stream, on the host."""
        return Fed(np.int32(chunk * self.steps * self.updates), next(self.stream))

    def close(self) -> None:
        """Stops the threads that read."""
        close = getattr(self.stream, "close", None)
        if close:
            close()
        self.stream = None


class Source:
    """The chunks by number, as Grain reads them: each is a function of its number."""

    def __init__(
        self, feed: Feed, key: jax.Array, cut: Layout, batches: int, number: int
    ) -> None:
        self.feed, self.cut, self.batches, self.number = feed, cut, batches, number
        self.order = epoch_orders(jax.random.split(key)[0], feed.count)

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, chunk: int) -> Any:
        rows = [
            rows_of(self.order, self.cut, self.feed.count, number)
            for number in range(chunk * self.batches, (chunk + 1) * self.batches)
        ]
        return self.feed.take(np.concatenate(rows))


def rows_of(
    order: Callable[[int], np.ndarray], cut: Layout, count: int, number: int
) -> np.ndarray:
    """Int [batch]: the patients of the batch `number`."""
    epoch, place = divmod(number, batches(cut, count))
    return order(epoch)[place * cut.batch : (place + 1) * cut.batch]


def epoch_orders(key: jax.Array, count: int) -> Callable[[int], np.ndarray]:
    """The order of the patients in an epoch; the last few are kept."""
    run = jax.jit(lambda epoch: order_of(key, epoch, count))
    lock = threading.Lock()

    @functools.lru_cache(maxsize=4)
    def computed(epoch: int) -> np.ndarray:
        return np.asarray(run(jnp.int32(epoch)))

    def order(epoch: int) -> np.ndarray:
        with lock:  # or two threads would compute the same one
            return computed(epoch)

    return order


def load_grain() -> Any:
    """The package that reads ahead."""
    try:
        return importlib.import_module("grain")
    except ImportError:
        raise InputError(
            "train: a cohort beyond --memory-limit is read by Grain, which is not "
            'installed; run: pip install "jaxehr[shards]", or raise --memory-limit.'
        ) from None
