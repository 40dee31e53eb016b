"""Shared fixtures."""

import os
import pathlib

import jax
import pytest


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
