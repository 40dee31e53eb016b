"""`jaxehr audit`: exit codes, what is printed and written, and what is refused."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
from cli_tools import listing

from jaxehr.cli import main
from jaxehr.data.simulate import SimulateOptions, simulate
from jaxehr.data.store import save_cohort

WIDE = {"membership_cosine_tpr": {"max": 0.2}, "mir": {"max_excess": 0.4}}
SETS = ["--real", "real", "--holdout", "held", "--quick"]


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    """Training, hold-out and fresh people of one law, of different ids."""
    folder = tmp_path_factory.mktemp("cohorts")
    for seed, name in enumerate(("real", "held", "fresh")):
        made = simulate(SimulateOptions(n=300, steps=3, numeric=1, seed=seed))
        ids = made.ids + 10_000 * seed
        save_cohort(made._replace(ids=ids, groups=ids), folder / name)
    return folder


@pytest.fixture
def there(cohorts, tmp_path, monkeypatch):
    """A folder with the cohorts and a policy."""
    monkeypatch.chdir(tmp_path)
    for name in ("real", "held", "fresh"):
        (tmp_path / name).symlink_to(cohorts / name)
    (tmp_path / "policy.json").write_text(json.dumps(WIDE))
    return tmp_path


def audit(*words):
    return main(["audit", *SETS, *map(str, words)])


def test_a_fresh_sample_passes(there, capsys):
    words = ("--synthetic", "fresh", "--policy", "policy.json", "--out", "audit")
    assert audit(*words) == 0
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if line.startswith("membership_cosine_tpr ")]
    assert "max 0.2: pass" in row
    (row,) = [line for line in lines if line.startswith("membership_loss_tpr ")]
    assert row.endswith("no model was given")
    assert "Passed. All 2 limits are kept." in lines
    assert listing("audit") == ["audit/audit.html", "audit/audit.json"]
    assert json.loads((there / "audit" / "audit.json").read_text())["passed"]
    assert audit(*words) == 0  # an older audit is replaced


def test_copies_fail(there, capsys):
    assert audit("--synthetic", "real", "--out", "audit", "--releasable") == 1
    out = capsys.readouterr().out
    assert "FAIL (upper bound 1 exceeds 0.1)" in out
    assert "Failed. 14 of 14 limits not kept: membership_hamming_advantage" in out
    assert "300 of 300 synthetic patients equal a training patient in every" in out
    found = json.loads((there / "audit" / "audit.json").read_text())
    assert not found["passed"]
    assert "most_exposed" not in found


def test_without_a_folder_nothing_is_written(there, capsys):
    before = listing(".")
    assert audit("--synthetic", "fresh", "--policy", "policy.json") == 0
    assert listing(".") == before


def test_what_is_not_measured_fails(there, capsys):
    limits = {"membership_loss_tpr": {"max": 1}, "membership_shadow_tpr": {"max": 1}}
    (there / "more.json").write_text(json.dumps(limits))
    assert audit("--synthetic", "fresh", "--policy", "more.json") == 1
    out = capsys.readouterr().out
    assert "max 1: FAIL (not defined: no model was given)" in out
    assert "max 1: FAIL (not measured: this attack is made on request only" in out


def test_few_people_are_no_evidence(made, tmp_path, capsys):
    """The run's own hold-out, of 24 people; and the steps that it made."""
    words = ["--real", made / "cohort", "--synthetic", made / "cohort"]
    words = ["audit", *map(str, words), "--run", str(made / "run"), "--quick"]
    assert main(words) == 2  # not drawn by the run
    sample = ["sample", made / "run", "--n", 60, "--steps", 2, "--out", made / "drawn"]
    assert main([str(word) for word in sample]) == 0
    words[4] = str(made / "drawn")
    words[6] = str(tmp_path / "run")  # as if --max-minutes had ended it
    shutil.copytree(made / "run", tmp_path / "run")
    lines = (made / "run" / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1]) | {"step": 3}
    (tmp_path / "run" / "metrics.jsonl").write_text(json.dumps(last))
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path / "audit")]) == 1
    found = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert found["run"]["steps"] == 3
    out = capsys.readouterr().out
    assert "FAIL (not defined: fewer than 50 patients in one of the data" in out
    assert "Failed. 16 of 16 limits" in out


@pytest.mark.parametrize(
    ("policy", "texts"),
    [
        ("[]", ["bad.json: is an object such as"]),
        ('{"fid": {"max": 1}}', ["unknown number in bad.json 'fid'", "mir"]),
        ('{"dcr_share": {"max": 1}}', ["dcr_share is a diagnostic", "leak pass"]),
        ('{"mir": {"max": "a"}}', ["mir: max must be a number"]),
    ],
)
def test_bad_policies(policy, texts, there, refused):
    (there / "bad.json").write_text(policy)
    words = ["audit", *SETS, "--synthetic", "fresh", "--policy", "bad.json"]
    refused([*words, "--out", "audit"], *texts)


def test_people_on_both_sides(there, refused):
    words = ["audit", "--real", "real", "--holdout", "real", "--synthetic", "fresh"]
    refused([*words, "--out", "audit"], "300 people are in the training and in the")
    refused([*words[:3], *words[5:]], "not known whom the model never saw")


def test_the_default_policy_is_printed_as_a_file(there, capsys):
    assert main(["audit", "--print-policy"]) == 0
    text = capsys.readouterr().out
    assert json.loads(text)["mir"] == {"max_excess": 0.2}
    assert main(["audit", "--help"]) == 0
    assert text.strip() in capsys.readouterr().out


def test_a_killed_audit_leaves_nothing(there):
    before = listing(".")
    words = [*SETS, "--synthetic", "fresh", "--out", "audit"]
    command = [sys.executable, "-m", "jaxehr.cli", "audit", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("auditing:")
    process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.returncode == 128 + signal.SIGTERM
    assert listing(".") == before
