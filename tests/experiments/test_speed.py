"""The benchmark of speed: its arithmetic, its tables, and contenders that fail."""

import json

import jax
import pytest

from experiments import speed, speed_rounds, speed_table
from experiments.speed_cases import CASES, Case, Quoted
from experiments.speed_denoiser import make
from experiments.speed_work import LeftOut, Network, coupling_bytes, coupling_flop

NET = Network(rows=2, steps=5, repeats=3, channels=3, hidden=4, layers=2)


def test_flop_by_hand():
    # Layer 1: two directions, [1, 3 + 4] x [7, 12]; layer 2: [1, 8 + 4] x [12, 12].
    step = 2 * (2 * 7 * 12) + 2 * (2 * 12 * 12) + 2 * 8 * 3
    row = 2 * (64 * 256 + 256 * 256 + 256 * 16)  # time embedding, modulation
    assert NET.flop() == 3 * 2 * (5 * step + row)
    assert NET.flop(train=True) == 3 * NET.flop()


def test_bytes_by_hand():
    passed = (3 + 8) + (8 + 8) + (8 + 3)  # in and out of both layers and of the head
    assert NET.bytes() == 4 * 3 * 2 * 5 * passed
    kept = 2 * (2 * 4 * 8)  # two layers, written and read, 4 arrays of 2H
    assert NET.bytes(train=True) == 4 * 3 * 2 * 5 * (3 * passed + kept)


def test_work_of_a_coupling_by_hand():
    # Two outer steps and the last plan: S = (U M) V' and (U' G) V; then 7 iterations.
    assert coupling_flop(10, 20, 3, 2, 7) == 3 * 4 * 10 * 20 * 3 + 7 * 4 * 10 * 20
    assert coupling_bytes(10, 20, 7) == 7 * 2 * 4 * 10 * 20


def test_the_flop_of_the_default_network_is_that_of_the_notes():
    net = Network(rows=1, steps=1000, repeats=1)
    assert net.flop() / 1000 == pytest.approx(0.39e6, rel=0.02)


def test_both_networks_have_the_same_weights():
    sizes = []
    for ours in (True, False):
        leaves = jax.tree.leaves(make(NET, ours)[1])
        sizes.append(sum(leaf.size for leaf in leaves))
    assert sizes[0] == sizes[1]


def test_every_case_has_the_same_contenders_small():
    for case in CASES.values():
        names = [name for name, _, _ in case.contenders]
        assert len(set(names)) == len(names)
        assert set(case.sizes) <= set(case.small)
        assert not case.repeats or case.repeats in case.sizes


def entry(name, seconds, **more):
    return {
        "name": name,
        "reason": "",
        "seconds": seconds,
        "cpu": [2.0 * value for value in seconds],
        "foreign": [0.1] * len(seconds),
        "load": [0.5] * len(seconds),
        "told": [{"loss": 1.5, "starts": [1.0, 2.0]}] * len(seconds),
        "first": 5.0,
        "peak": 2**30,
        "flop": 8e9,
        "bytes": 4e9,
    } | more


def found(*contenders, **more):
    return {
        "case": "train-25",
        "text": "a step",
        "sizes": {},
        "by": "seconds",
        "per": 2,
        "quoted": [],
        "machine": {"gemm": [8e9, 9e9, 7e9], "copy": [1e9, 2e9, 4e9]},
        "machine_reason": "",
        "contenders": list(contenders),
    } | more


def test_ratios_are_taken_round_by_round():
    # The medians alone would say 6 / 2 = 3.
    told = speed_table.ratios([6.0, 4.0, 9.0], [2.0, 1.0, 9.0])
    assert told == {"median": 3.0, "low": 1.0, "high": 4.0}
    assert speed_table.ratios([6.0], [2.0, 1.0])["median"] == 3.0  # died in round 2
    assert speed_table.ratios([], [2.0]) is None
    alone = speed_table.rows_of(found(entry("ours", [2.0]), by=""))
    assert alone[0]["ratio"] is None


def test_a_row_holds_medians_and_shares():
    ours = entry("ours", [2.0, 1.0, 4.0])
    row = speed_table.rows_of(found(ours, entry("other", [4.0, 4.0, 4.0])))[1]
    assert row["seconds"] == 2.0  # of one of the two steps
    assert row["cpu"] == 4.0
    assert row["ratio"] == {"median": 2.0, "low": 1.0, "high": 4.0}
    assert row["compile"] == 1.0
    assert row["flop"] == 4e9
    assert row["of_gemm"] == pytest.approx(8 / 4 / 8)
    assert row["of_copy"] == pytest.approx(4 / 4 / 2)


def test_a_quoted_number_stands_beside_ours_with_its_source():
    quoted = Quoted("theirs", 565.0, "a paper")._asdict()
    given = found(entry("ours", [1.0, 3.0, 2.0]), by="cpu", quoted=[quoted])
    row = speed_table.rows_of(given)[1]
    assert row["ratio"]["median"] == pytest.approx(565.0 / 4.0)
    assert row["cpu"] == 565.0
    assert "a paper" in speed_table.table([row])


def test_the_table_has_one_cell_a_title():
    ours = entry("ours", [2.0, 1.0, 4.0])
    none = entry("torch", [], reason="torch is not installed", left_out=True)
    rows = speed_table.rows_of(found(ours, none))
    lines = speed_table.table(rows).splitlines()
    assert {line.count("|") for line in lines} == {len(speed_table.TITLES) + 1}
    assert "| 0.5 to 2" not in lines[2]
    assert "| 1 | 1.00 to 1.00 |" in lines[2]
    assert "loss 1.5 |" in lines[2]  # the list is not shown
    assert lines[3].endswith("torch is not installed |")
    line = speed_table.machine_line(found(ours))
    assert line == ("train-25 (a step): GEMM 8 GFLOP/s (7 to 9), copy 2 GB/s (1 to 4)")


def test_compare_sets_two_runs_side_by_side():
    def run(seconds, gemm):
        one = found(entry("ours", [seconds] * 3), entry("new", [1.0]))
        one["machine"]["gemm"] = [gemm]
        return {"cases": [one], "rows": speed_table.rows_of(one)}

    old, new = run(4.0, 2e9), run(3.0, 3e9)
    old["rows"] = old["rows"][:1]
    lines = speed_table.compare(old, new).splitlines()
    assert len(lines) == 3
    assert lines[2] == "| train-25 | ours | 2 | 1.5 | 0.75 | 1.5 |"
    assert "nothing" in speed_table.compare(old | {"rows": []}, new)
    old["cases"][0]["sizes"] = {"rows": 16}
    assert "nothing" in speed_table.compare(old, new)


def test_busy_seconds_of_our_cores_only():
    text = "cpu 9 9 9 9 9 9 9 9 9 9\ncpu0 100 10 20 500 40 3 2 5 0 0\n"
    text += "cpu1 1 1 1 1 1 1 1 1\n"
    assert speed_rounds.busy_seconds(text, {0}, 100) == pytest.approx(1.40)
    assert speed_rounds.busy_seconds(text, {0, 1}, 100) == pytest.approx(1.46)


def contender(monkeypatch, tmp_path, text):
    """A module of contenders that child processes can import."""
    (tmp_path / "speed_fakes.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


FAKES = """
from experiments.speed_work import Ready
import itertools, os

def fine(sizes):
    return Ready(lambda: print("to stderr"), 1.0, tell=lambda result: {"bytes": 3.0})

def missing(sizes):
    raise ModuleNotFoundError("No module named 'torch'", name="torch.nn")

def broken(sizes):
    raise ValueError("no such size")

def dies(sizes):
    count = itertools.count()
    return Ready(lambda: os._exit(9) if next(count) == 2 else None)
"""


def test_contenders_that_fail_are_named_and_the_others_go_on(monkeypatch, tmp_path):
    contender(monkeypatch, tmp_path, FAKES)
    monkeypatch.setattr(speed_rounds, "MACHINE", "speed_fakes:broken")
    names = ("fine", "missing", "broken", "dies")
    fakes = [(name, f"speed_fakes:{name}", {}) for name in names]
    case = Case("fakes", "", fakes, {}, {})
    said = []
    told = speed_rounds.run_case(case, 3, True, said.append)
    fine, missing, broken, dies = told["contenders"]
    assert len(fine["seconds"]) == 3
    assert (fine["flop"], fine["bytes"]) == (1.0, 3.0)
    assert fine["reason"] == ""
    assert missing["reason"] == "torch is not installed (extra `bench`)"
    assert missing["left_out"]
    assert "exit code 1: ValueError: no such size (after 0 rounds)" in broken["reason"]
    assert "exit code 9" in dies["reason"]
    assert "(after 1 rounds)" in dies["reason"]
    assert "no such size" in told["machine_reason"]
    assert [speed.died(one) for one in told["contenders"]] == [False, False, True, True]
    assert len(speed_table.rows_of(told)) == 4
    assert any("fine: ready" in text for text in said)


def test_a_small_case_from_end_to_end(tmp_path, capfd):
    out, words = tmp_path / "speed.json", {"cases": ("sample-25",), "small": True}
    once = speed.Arguments(rounds=1, json=out, **words)
    assert speed.main(once) == 0
    told = json.loads(out.read_text())
    ours, flax = told["cases"][0]["contenders"][:2]
    for one in (ours, flax):
        assert one["told"] == [{"finite": True}]
        assert one["peak"] > 2**20
    assert told["rows"][1]["ratio"]["median"] > 0
    assert "| sample-25 | ours |" in capfd.readouterr().out


def test_wrong_arguments_are_one_line(capsys, tmp_path):
    assert speed.main(speed.Arguments(cases=("nothing",))) == 2
    assert "'nothing'" in capsys.readouterr().err
    assert speed.main(speed.Arguments(rounds=0)) == 2
    assert speed.main(speed.Arguments(compare=tmp_path / "none.json")) == 2


def names_of(*words):
    every = [CASES[name] for name in ("train-25", "align-2000")]
    chosen = speed.chosen(every, speed.Arguments(contenders=words))
    return {case.name: [one[0] for one in case.contenders] for case in chosen}


def test_chosen_contenders_stand_beside_the_first_one():
    assert len(names_of()) == 2
    assert names_of("torch") == {"train-25": ["ours", "torch nn.GRU"]}
    assert names_of("POT") == {"align-2000": ["ours", "POT, defaults"]}
    with pytest.raises(speed.InputError, match=r"named so; there are POT, .*torch"):
        names_of("tensorflow")


def test_a_form_for_gpus_is_left_out_elsewhere():
    with pytest.raises(LeftOut, match="where no GPU is"):
        make(Network(rows=2, steps=2, repeats=1, gru="blocked"), ours=True)
