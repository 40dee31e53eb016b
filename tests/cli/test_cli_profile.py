"""`--profile DIR` leaves a trace, and says when there was nothing to trace."""

from cli_tools import SMALL

from jaxehr.cli import main


def test_training_leaves_a_trace_of_a_few_dispatches(made, here):
    words = ["train", "cdmt", str(made / "cohort"), *SMALL, "--out", "traced"]
    assert main([*words, "--profile", "trace"]) == 0
    (trace,) = (here / "trace").rglob("perfetto_trace.json.gz")
    assert trace.stat().st_size > 0
    assert list((here / "trace").rglob("*.xplane.pb"))  # what TensorBoard reads


def test_a_single_block_of_patients_is_only_said_to_be_one(run, here, capsys):
    words = ["sample", str(run), "--n", "1", "--out", "few", "--profile", "trace"]
    assert main(words) == 0
    assert "nothing was traced" in capsys.readouterr().err


def test_a_file_in_the_place_of_the_folder_is_refused(run, here, capsys):
    (here / "trace").write_text("")
    words = ["sample", str(run), "--n", "1", "--out", "few", "--profile", "trace"]
    assert main(words) == 2
    assert "trace: File exists" in capsys.readouterr().err
    assert not (here / "few").exists()
