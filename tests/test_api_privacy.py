"""Attacks from Python: who is new to the model, policies, audits."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from small_runs import CONFIG, drawn_by, other_people, people

import jaxehr
from jaxehr.api import compare, measured_limits, privacy_metrics
from jaxehr.core.cohort import concatenate, num_patients, take
from jaxehr.metrics.evaluate import QUICK
from jaxehr.runs.attacked import attacked, doubt
from jaxehr.runs.training import to_learn_from


@pytest.fixture(scope="module")
def data():
    return people()


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("api") / "run"
    return jaxehr.train("cdmt", data, folder, CONFIG, seed=1), folder


def test_who_is_new_to_the_model_is_asked(data, trained, tmp_path):
    """Where it is in doubt a note says so, and only attacks are not made."""
    run, _ = trained
    made, held = other_people(8), other_people(7)
    everyone = run._replace(info=run.info | {"holdout_fraction": 0.0})
    elsewhere = run._replace(info=run.info | {"cohort": "0", "holdout_fraction": 0.5})
    both = jaxehr.split(data, 0.9)[1]
    for synthetic, holdout, text in (
        (made, None, "It is not known whom the model never saw"),
        (drawn_by(elsewhere, made), None, "It is not known whom the model never saw"),
        (drawn_by(everyone, made), None, "its hold-out is not new to it"),
        (drawn_by(run, made), held, "training left out 0.2 of the real patients"),
        (made, both, f"{len(both.ids)} people are in the training and in the"),
    ):
        metrics = ["tvd", "mir", "copies"]
        found = jaxehr.evaluate(data, synthetic, holdout, metrics=metrics)
        assert text.lower() in found.notes[0].lower()
        assert "no attack on the synthetic patients is made" in found.notes[0]
        assert found.value("tvd") is not None
        for name in ("mir", "exact_copies"):
            (value,) = [r.value for r in found.results if r.name == name]
            assert value.value is None
            assert text.lower() in value.reason.lower()
        # no share of a run on other people
        assert len(found.comparison.holdout.ids) != 150
    found.save(tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    lead = page[: page.index("Not assessed: privacy attacks")]
    assert "no attack on the synthetic patients is made" in lead
    for synthetic, notes in ((made, 0), (drawn_by(everyone, made), 0)):
        found = jaxehr.evaluate(data, synthetic, held, metrics=["tvd", "mir"])
        assert len(found.notes) == notes
        assert found.value("mir") is not None
    found = jaxehr.evaluate(data, drawn_by(elsewhere, made), held, metrics=["mir"])
    assert found.value("mir") is not None
    assert "was trained on another cohort than the real one" in found.notes[0]


def test_imputed_patients_are_no_release(data, trained):
    """They carry the run that drew their gaps, and hold-out people are among them."""
    run, _ = trained
    made = drawn_by(run, data)
    made = made._replace(provenance=made.provenance | {"kind": "imputed"})
    for holdout in (None, other_people(7)):
        assert "real patients whose missing parts were drawn" in doubt(
            data, made, holdout
        )
    found = jaxehr.evaluate(data, made, metrics=["tvd", "mir"])
    assert "real patients whose missing parts" in found.notes[0]
    assert found.value("mir") is None
    assert found.value("tvd") is not None
    with pytest.raises(jaxehr.InputError, match="give patients of `jaxehr sample`"):
        jaxehr.audit(data, made)


def test_hold_out_people_among_the_synthetic_ones_are_seen(data, trained):
    run, _ = trained
    held, text = jaxehr.split(data, 0.2)[1], "have the id of a hold-out patient"
    real = drawn_by(run, data)
    assert doubt(data, real, None).startswith(f"{len(held.ids)} of the synthetic")
    assert text in doubt(data, other_people(7), other_people(7))
    # Numbers from 1 on, as `jaxehr sample` gives them, say nothing
    kind = real.provenance | {"kind": "synthetic"}
    assert doubt(data, real._replace(provenance=kind), None) == ""
    with pytest.raises(jaxehr.InputError, match=text):
        jaxehr.audit(data, real)


def test_a_run_that_is_given_knows_whom_it_left_out(data, trained):
    """Then a hold-out from elsewhere is judged against those it learned from."""
    run, _ = trained
    made, held = drawn_by(run, other_people(8)), other_people(7)
    found = jaxehr.evaluate(data, made, held, metrics=["mir"], model=run)
    assert found.notes == []
    assert found.value("mir") is not None
    assert jaxehr.audit(data, made, held, model=run, config=QUICK).findings.verdicts
    other = run._replace(info=run.info | {"holdout_fraction": 0.5})
    for model in (None, other):
        assert "training left out 0.2" in doubt(data, made, held, model)


@pytest.mark.parametrize(("count", "refused"), [(15, False), (16, True)])
def test_a_few_people_on_both_sides_are_taken_out(data, count, refused):
    made, new = other_people(8), other_people(7)
    rows = np.arange(300)
    few, rest = take(data, rows[:count]), take(new, rows[count:])
    held = new._replace(
        cohort=concatenate([few.cohort, rest.cohort]),
        ids=np.concatenate([few.ids, rest.ids]),
        groups=np.concatenate([few.groups, rest.groups]),
    )
    found = jaxehr.evaluate(data, made, held, metrics=["mir"])
    text = f"{count} people are in the training and in the hold-out cohort; "
    assert found.notes[0].startswith(text)
    assert (found.value("mir") is None) == refused
    if refused:
        with pytest.raises(jaxehr.InputError, match=text):
            jaxehr.audit(data, made, held)
    else:
        assert found.notes == [f"{text}they were taken out of the hold-out."]
        assert set(found.comparison.holdout.ids) == set(rest.ids)


def test_a_small_release_is_told_how_many_to_draw(data):
    made = take(other_people(8), np.arange(60))
    policy = {"membership_cosine_tpr": {"max": 0.2}}
    sets = data, made, other_people(7)
    findings = jaxehr.audit(*sets, policy=policy, config=QUICK).findings
    text = "60 synthetic patients are too few for some attacks to show copies of 300"
    assert findings.notes[-1] == f"{text} training patients; draw at least 300."


def test_attacks_ask_about_people_that_were_learned_from(data, trained):
    run, _ = trained
    seen, judged = to_learn_from(data, 0.2, {}, 1)
    pair, _ = compare(data, drawn_by(run, other_people(8)), None)
    found = attacked(run, data, pair)
    assert set(pair.train.ids[found.learned]) == set(seen.ids)
    assert set(pair.train.ids[~found.learned]) == set(judged.ids)
    assert found.params is run.params
    less = jaxehr.split(data, 0.5, salt="other")[0]
    assert "another cohort" in attacked(run, less, pair)
    everyone = run._replace(info=run.info | {"holdout_fraction": 0.0})
    held = len(pair.holdout.ids)
    text = f"the model was trained on {held} of the hold-out patients too"
    assert attacked(everyone, data, pair) == text


def test_an_evaluation_attacks_the_model_it_is_given(data, trained, monkeypatch):
    run, _ = trained
    made, asked = drawn_by(run, other_people(8)), []

    def losses(key, params, people, *, levels, repeats):
        asked.append((params, num_patients(people)))
        value = np.asarray(people.temporal.numeric).sum((1, 2))
        return np.sin(value[:, None] * np.arange(1, levels + 1))

    model = run.model._replace(losses=losses, fit_many=None)
    monkeypatch.setattr(jaxehr.runs.model.Run, "model", property(lambda _: model))
    found = jaxehr.evaluate(data, made, metrics=["membership_loss"], model=run)
    assert found.value("membership_loss_auroc") is not None
    seen = num_patients(to_learn_from(data, 0.2, {}, 1)[0].cohort)
    assert asked == [
        (run.params, seen + num_patients(jaxehr.split(data, 0.2)[1].cohort))
    ]
    without = jaxehr.evaluate(data, made, metrics=["membership_loss"])
    assert without.results[0].value.reason == "no model was given"
    audit = jaxehr.audit(data, made, model=run, config=QUICK)
    assert "membership_loss_tpr" in {v.name for v in audit.findings.verdicts}
    assert "membership_loss" in audit.findings.beyond
    assert audit.findings.run["model"] == "cdmt"


def test_the_default_policy_asks_no_more_than_the_model_allows(
    data, trained, monkeypatch
):
    run, _ = trained
    made = drawn_by(run, other_people(8))
    for without, shadow, left in (
        (["losses"], False, ["membership_loss"]),
        (["losses"], True, ["membership_loss", "membership_shadow"]),
        (["fit_many"], True, ["membership_shadow"]),
    ):
        model = run.model._replace(**dict.fromkeys(without))
        policy, notes = measured_limits(
            [n for n in privacy_metrics() if shadow or n != "membership_shadow"],
            SimpleNamespace(model=model),
        )
        assert [n.split(":")[0].split()[-1] for n in notes] == left
        assert not any(name.startswith(tuple(left)) for name in policy)
        assert "mir" in policy
    model = run.model._replace(losses=None)
    monkeypatch.setattr(jaxehr.runs.model.Run, "model", property(lambda _: model))
    found = jaxehr.audit(data, made, model=run, config=QUICK).findings
    assert "no losses of single patients" in found.notes[-1]
    assert not any(v.name.startswith("membership_loss") for v in found.verdicts)
    own = {"membership_loss_tpr": {"max": 1.0}}
    found = jaxehr.audit(data, made, model=run, config=QUICK, policy=own).findings
    assert found.verdicts[0].reason == (
        "not defined: this kind of model has no losses of single patients"
    )


@pytest.fixture(scope="module")
def audits(data):
    """A fresh sample and a copy, with wide limits for so few people."""
    policy = {"membership_cosine_tpr": {"max": 0.2}, "mir": {"max_excess": 0.4}}
    held = other_people(7)
    return [
        jaxehr.audit(data, made, held, policy=policy, config=QUICK)
        for made in (other_people(8), data)
    ]


def test_an_audit_passes_strangers_and_fails_copies(audits, data):
    fresh, copied = audits
    assert fresh.passed
    assert not copied.passed
    assert [v.passed for v in copied.findings.verdicts] == [False, False]
    assert len(copied.findings.exposed) == 20
    for entry in copied.findings.exposed:
        assert entry["id"] == entry["nearest_synthetic"]
        assert entry["distance"] < 1e-6
        assert entry["share"] == pytest.approx(1 / 151)
    for name in ("membership_cosine", "membership_domias"):
        count, chance = copied.findings.beyond[name]
        assert count > 250, name
        assert chance == pytest.approx(300 / 151)
    assert all(count < 20 for count, _ in fresh.findings.beyond.values())


def texts_of(node):
    """Every text and number in nested dicts and lists."""
    if isinstance(node, dict):
        return [t for k, v in node.items() for t in (k, *texts_of(v))]
    if isinstance(node, list):
        return [t for v in node for t in texts_of(v)]
    return [node]


def test_a_releasable_audit_names_no_one(audits, data, tmp_path):
    audits[1].save(tmp_path / "inside")
    audits[1].save(tmp_path / "outside", releasable=True)
    ids = {entry["id"] for entry in audits[1].findings.exposed}
    inside, outside = (
        json.loads((tmp_path / name / "audit.json").read_text())
        for name in ("inside", "outside")
    )
    assert {entry["id"] for entry in inside["most_exposed"]} == ids
    assert "most_exposed" not in outside
    assert outside["releasable"]
    assert not {"id", "distance", "dcr_5%", "dcr_50%"} & set(
        map(str, texts_of(outside))
    )
    assert outside["verdicts"] == inside["verdicts"]
    (note,) = outside["notes"]
    assert note.startswith("300 of 300 synthetic patients have the id of a real one")
    pages = [(tmp_path / n / "audit.html").read_text() for n in ("inside", "outside")]
    assert "names training patients" in pages[0]
    assert 'id="exposed"' in pages[0]
    assert "names training patients" not in pages[1]
    assert 'id="exposed"' not in pages[1]
    assert "Origin" not in pages[1]
    assert all(f"<li>{note}</li>" in page for page in pages)


def test_a_releasable_audit_holds_no_id_at_all(data, tmp_path):
    """Ids that occur nowhere else are not in the bytes."""
    names = np.array([f"patient-{i}-x" for i in range(300)])
    schema = data.schema.replace(id_dtype="string")
    real = data._replace(schema=schema, ids=names, groups=names)
    held, made = (
        d._replace(schema=schema, ids=d.ids.astype(str), groups=d.ids.astype(str))
        for d in (other_people(7), other_people(8))
    )
    found = jaxehr.audit(real, made, held, config=QUICK)
    for releasable in (True, False):
        found.save(tmp_path / "audit", releasable=releasable)
        for name in ("audit.html", "audit.json"):
            text = (tmp_path / "audit" / name).read_text()
            assert ("patient-" in text and "-x" in text) != releasable


def test_a_failed_write_leaves_nothing(audits, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    audits[0].save(tmp_path / "audit")
    before = (tmp_path / "audit" / "audit.json").read_bytes()
    monkeypatch.setattr("jaxehr.report.audit.write_json", fail)
    for name in ("audit", "new"):
        with pytest.raises(jaxehr.InputError, match="cannot be written"):
            audits[1].save(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["audit"]
    assert (tmp_path / "audit" / "audit.json").read_bytes() == before


def test_an_audit_must_know_who_is_new_to_the_model(data, trained):
    run, _ = trained
    made, held = other_people(8), other_people(7)
    refused = lambda text: pytest.raises(jaxehr.InputError, match=text)
    with refused("not known whom the model never saw.* give --holdout"):
        jaxehr.audit(data, made)
    everyone = run._replace(info=run.info | {"holdout_fraction": 0.0})
    with refused("was trained on all of these people.* give --holdout"):
        jaxehr.audit(data, drawn_by(everyone, made))
    with refused("300 people are in the training and in the hold-out cohort"):
        jaxehr.audit(data, made, data)
    with refused("training left out 0.2 of the real patients"):
        jaxehr.audit(data, drawn_by(run, made), held)
    with refused("unknown number in policy 'fid'"):
        jaxehr.audit(data, made, held, policy={"fid": {"max": 1}})
