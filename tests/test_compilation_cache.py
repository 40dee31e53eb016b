"""Compiled programs are kept where that is possible; else nothing is said of it."""

import os
import pathlib
import subprocess
import sys

import pytest

from jaxehr.devices import cache_folder


@pytest.mark.parametrize(
    ("names", "folder"),
    [
        ({"JAX_COMPILATION_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/jaxehr/xla"),
        ({"HOME": "/c"}, "/c/.cache/jaxehr/xla"),
    ],
)
def test_where_it_is(monkeypatch, names, folder):
    for name in ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == folder


def test_a_user_without_a_home_has_none(monkeypatch):
    """As a container's user of a number that is in no passwd file."""

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pathlib.Path, "home", homeless)
    assert cache_folder() is None


def test_a_cache_that_cannot_be_used_is_no_word(tmp_path):
    (tmp_path / "file").write_text("")
    code = """
from jaxehr.devices import configure
configure()
import jax
print(jax.jit(lambda x: 2 * x)(1))
"""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "file"),
        "JAX_PLATFORMS": "cpu",
    }
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert (found.stdout, found.stderr) == ("2\n", "")
