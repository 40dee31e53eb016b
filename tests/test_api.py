"""The same from Python: read, train, sample, evaluate, save and load."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

import jaxehr
from jaxehr.api import compare, measured_limits, privacy_metrics
from jaxehr.core.cohort import num_patients
from jaxehr.core.rules import Order
from jaxehr.data.simulate import SimulateOptions, simulate
from jaxehr.metrics.evaluate import QUICK
from jaxehr.models.cdmt.config import CdmtConfig, CdmtSampling
from jaxehr.runs.attacked import attacked
from jaxehr.runs.folder import FORMAT, changes
from jaxehr.runs.training import to_learn_from
from jaxehr.training.config import TrainConfig

CONFIG = CdmtConfig(
    hidden=4, num_layers=1, train=TrainConfig(steps=3, batch_size=32, eval_every=1)
)
SAMPLING = CdmtSampling(steps=3)


@pytest.fixture(scope="module")
def data():
    return simulate(SimulateOptions(n=300, steps=3, numeric=1))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("api") / "run"
    return jaxehr.train("cdmt", data, folder, CONFIG, seed=1), folder


def test_every_public_name_loads():
    for name in jaxehr.__all__:
        assert getattr(jaxehr, name) is not None
        assert name in dir(jaxehr)
    with pytest.raises(AttributeError, match="no attribute 'dance'"):
        _ = jaxehr.dance


def test_a_loaded_run_draws_the_same_people(data, trained, tmp_path):
    run, folder = trained
    jaxehr.save(run, tmp_path / "copy")
    first = jaxehr.sample(run, 8, seed=5, options=SAMPLING)
    assert first.schema == data.schema
    for again in (jaxehr.load(folder), jaxehr.load(tmp_path / "copy")):
        assert again.schema == data.schema
        assert again.config == run.config
        assert "run" not in again.params
        second = jaxehr.sample(again, 8, seed=5, options=SAMPLING)
        for part in ("static", "temporal"):
            ours, theirs = getattr(first.cohort, part), getattr(second.cohort, part)
            for a, b in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(first.cohort.label, second.cohort.label)
    other = jaxehr.sample(run, 8, seed=6, options=SAMPLING)
    assert (other.cohort.temporal.numeric != first.cohort.temporal.numeric).any()


def test_a_class_is_given_by_value_or_text(trained):
    run, _ = trained
    for label in (1, "1"):
        made = jaxehr.sample(run, 8, label=label, options=SAMPLING)
        assert (made.cohort.label == 1).all()
        assert made.provenance["label"] == "1"
    made = jaxehr.sample(run, 8, label=0, options=SAMPLING)
    assert (made.cohort.label == 0).all()
    made = jaxehr.sample(run, 40, label="balanced", options=SAMPLING)
    assert set(made.cohort.label) == {0, 1}


@pytest.mark.parametrize(
    ("count", "label", "text"),
    [
        (0, None, "number of patients must be positive, got 0"),
        (3, 2, "unknown class of label 'outcome' '2'; known: 0, 1"),
        (3, "", "unknown class of label 'outcome' ''; known: 0, 1"),
    ],
)
def test_refused_samples(count, label, text, trained):
    with pytest.raises(jaxehr.InputError, match=text):
        jaxehr.sample(trained[0], count, label=label)


def test_guidance_needs_a_conditional_model(trained):
    run, _ = trained
    config = CdmtConfig(hidden=4, num_layers=1, mode="unconditional")
    free = run._replace(config=config)
    with pytest.raises(jaxehr.InputError, match="guidance needs a model"):
        jaxehr.sample(free, 3, options=CdmtSampling(guidance=1.0))


def test_training_into_another_run_names_the_fields(data, trained):
    _, folder = trained
    with pytest.raises(jaxehr.InputError, match=r"holds another run \(seed: 1 -> 2\)"):
        jaxehr.train("cdmt", data, folder, CONFIG, seed=2)
    less = jaxehr.split(data, 0.5, salt="other")[0]
    with pytest.raises(jaxehr.InputError, match=r"cohort: .* patients: 300 -> "):
        jaxehr.train("cdmt", less, folder, CONFIG, seed=1)
    with pytest.raises(jaxehr.InputError, match="unknown model 'gpt'; known: cdmt"):
        jaxehr.make("gpt", data.schema)


def test_a_run_of_before_a_field_was_added_is_the_same_run(trained):
    info = trained[0].info
    assert changes(info, info) == []
    older = {k: v for k, v in info["config"].items() if k != "unroll"}
    assert changes(info | {"config": older}, info) == []
    other = info | {"config": older | {"hidden": 8}}
    assert changes(other, info) == ["config.hidden: 8 -> 4"]


def test_rules_are_enforced_and_change_nothing_that_was_trained(data, trained):
    run, folder = trained
    rule = Order(columns=("vital_0", "weight"))
    ruled = data._replace(schema=data.schema.replace(rules=(rule,)))
    again = jaxehr.train("cdmt", ruled, folder, CONFIG, seed=1)  # goes on, rules added
    assert jaxehr.load(folder).schema.rules == (rule,)
    free = jaxehr.sample(run, 40, options=SAMPLING)
    made = jaxehr.sample(again, 40, options=SAMPLING, enforce_rules=True)
    counts = made.provenance["rules"]
    broken = counts["broken_before"]["vital_0 >= weight"]["patients"]
    assert 0 < broken <= counts["patients_changed"] < 40
    one, other = free.cohort.static.numeric, made.cohort.static.numeric
    assert 0 < (one != other).any(1).sum() <= counts["patients_changed"]
    for few in (made, jaxehr.enforce_rules(free, ruled.schema)):
        np.testing.assert_array_equal(few.cohort.static.numeric, other)
    jaxehr.train("cdmt", data, folder, CONFIG, seed=1)


def test_saving_over_another_run_is_refused(trained, tmp_path):
    run, folder = trained
    other = run._replace(info=run.info | {"seed": 9})
    with pytest.raises(jaxehr.InputError, match="seed: 1 -> 9"):
        jaxehr.save(other, folder)
    (tmp_path / "mine").write_text("x")
    with pytest.raises(jaxehr.InputError, match="not empty and not a run"):
        jaxehr.save(run, tmp_path)
    with pytest.raises(jaxehr.InputError, match="is a file"):
        jaxehr.save(run, tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_automatic_sizes_stay_those_of_the_first_call(data, tmp_path):
    from jaxehr.core.configs import to_dict
    from jaxehr.runs.training import settle

    sizes = lambda config: ("cdmt", config, 1000, data.schema)
    found, asked = settle(tmp_path, *sizes(CdmtConfig()))
    assert asked == ["steps", "batch_size"]
    assert found.train.steps > 0
    config = to_dict(found) | {"train": to_dict(found.train) | {"steps": 77}}
    info = {"format": FORMAT, "model": "cdmt", "automatic": asked, "config": config}
    (tmp_path / "run.json").write_text(json.dumps(info))
    assert settle(tmp_path, *sizes(CdmtConfig()))[0].train.steps == 77
    train = TrainConfig(steps=5, batch_size=7)
    found, asked = settle(tmp_path, *sizes(CdmtConfig(train=train)))
    assert (found.train.steps, found.train.batch_size, asked) == (5, 7, [])


def test_a_refused_size_leaves_no_folder(data, tmp_path):
    few = jaxehr.split(data, 0.95)[0]
    with pytest.raises(jaxehr.InputError, match="part is empty"):
        jaxehr.train("cdmt", few, tmp_path / "a" / "b", CONFIG, holdout_fraction=0.001)
    assert not list(tmp_path.iterdir())


def test_evaluation_takes_the_people_that_training_left_out(data, trained, tmp_path):
    run, folder = trained
    made = jaxehr.sample(run, 60, options=SAMPLING)
    found = jaxehr.evaluate(data, made, metrics=["tvd"], seed=3)
    held = jaxehr.split(data, 0.2)[1]
    assert set(found.comparison.holdout.ids) == set(held.ids)
    names = [result.name for result in found.results]
    assert found.value(names[0]) is not None
    with pytest.raises(jaxehr.InputError, match="unknown number 'fid'; known: "):
        found.value("fid")
    with pytest.raises(jaxehr.InputError, match="unknown metric 'fid'; known: "):
        jaxehr.evaluate(data, made, metrics=["fid"])
    lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    from jaxehr.api import describe_run

    described = describe_run(run, made, lines)
    assert described["steps"] == 3
    assert described["sampler"]["steps"] == 3
    assert set(described["schedule"]) >= {"numeric"}
    json.dumps(described)
    again = jaxehr.evaluate(data, made, metrics=["tvd"], seed=3, run=described)
    assert [r.value for r in again.results] == [r.value for r in found.results]
    again.save(tmp_path / "report")
    assert (tmp_path / "report" / "report.html").is_file()


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
        assert "no attack on privacy is made" in found.notes[0]
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
    assert "no attack on privacy is made" in lead
    for synthetic, notes in ((made, 0), (drawn_by(everyone, made), 0)):
        found = jaxehr.evaluate(data, synthetic, held, metrics=["tvd", "mir"])
        assert len(found.notes) == notes
        assert found.value("mir") is not None
    found = jaxehr.evaluate(data, drawn_by(elsewhere, made), held, metrics=["mir"])
    assert found.value("mir") is not None
    assert "was trained on another cohort than the real one" in found.notes[0]


def other_people(seed, count=300):
    """People of the same law with ids of their own."""
    made = simulate(SimulateOptions(n=count, steps=3, numeric=1, seed=seed))
    ids = made.ids + 10_000 * seed
    return made._replace(ids=ids, groups=ids)


def drawn_by(run, data):
    """`data` as if `run` had drawn it."""
    info = {k: v for k, v in run.info.items() if k not in ("schema", "config")}
    return data._replace(provenance={"run": info})


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
    pages = [(tmp_path / n / "audit.html").read_text() for n in ("inside", "outside")]
    assert "names training patients" in pages[0]
    assert 'id="exposed"' in pages[0]
    assert "names training patients" not in pages[1]
    assert 'id="exposed"' not in pages[1]
    assert "Origin" not in pages[1]


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


def test_read_tables_takes_the_options_as_keywords(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text(
        "pid,age,died\n" + "".join(f"{i},{i}.5,{i % 2}\n" for i in range(9))
    )
    data = jaxehr.read_tables(str(path), id="pid", label="died")
    assert num_patients(data.cohort) == 9
    with pytest.raises(jaxehr.InputError, match="unknown option 'ids'; known: static"):
        jaxehr.read_tables(str(path), ids="pid")
    with pytest.raises(jaxehr.InputError, match="read_tables: id is needed"):
        jaxehr.read_tables(str(path))
