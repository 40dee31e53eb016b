"""Shared fixtures."""

import os
import pathlib

import jax
import pytest


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """Programs of tests are short: without most optimisations they compile in half the
    time. Equal ones of different tests are compiled once, also in other workers."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    # Commands and processes that tests start are told by the environment.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(base / "xla")
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_compilation_cache_dir", str(base / "xla"))
    # Also the many small ones of single operations: a file takes 40 ms less for each.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture(scope="module", autouse=True)
def programs_released():
    """A process has 65,530 memory maps on Linux, and thousands of programs take more:
    the next one to compile then ends a worker."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def optimized():
    """For modules whose programs run longer than they compile."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def x64():
    """Runs one test in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
    """The folder with the open data sets, named by JAXEHR_DATA."""
    folder = os.environ.get("JAXEHR_DATA", "")
    if not folder or not pathlib.Path(folder).is_dir():
        pytest.skip("JAXEHR_DATA does not name a folder with the open data sets")
    return pathlib.Path(folder)
