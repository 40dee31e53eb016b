"""Every model has its options as flags: no two fields share a name."""

import pytest

from jaxehr.cli import main
from jaxehr.registry import MODELS


@pytest.mark.parametrize("name", MODELS)
def test_the_options_of_every_model_are_parsed(name, capsys, tmp_path):
    """A folder that is missing is found out after all flags are understood."""
    words = ["train", name, str(tmp_path / "none"), "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert "no such folder" in capsys.readouterr().err
