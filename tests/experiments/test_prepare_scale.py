"""The benchmark of `prepare mimic3` runs on a small table and tells what it found."""

import json
import pathlib

import pytest

from experiments.prepare_scale import Arguments, main


def test_a_small_table_is_generated_and_prepared(tmp_path, capfd):
    folder = tmp_path / "scale"
    main(Arguments(rows=54_000, folder=folder, memory_limit="500MB"))
    told = json.loads(capfd.readouterr().out)
    assert told["stays"] == 10
    assert told["peak_gib"] > 0  # of the whole process, other tests included
    assert not folder.exists()
    folder.mkdir()
    with pytest.raises(FileExistsError):  # a folder of the user is never removed
        main(Arguments(rows=16_200, folder=pathlib.Path(folder)))
