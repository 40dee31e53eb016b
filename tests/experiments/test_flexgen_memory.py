"""The time of a step, as the memory experiment tells it."""

from experiments.flexgen_memory import seconds_of_step


def test_the_dispatch_that_compiles_is_not_timed():
    # Dispatches hold any number of steps; the first one holds one.
    assert seconds_of_step([(1, 30.0), (2, 32.0), (4, 36.0), (8, 44.0)]) == 2.0
