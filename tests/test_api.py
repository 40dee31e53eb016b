"""The same from Python: read, train, sample, evaluate, save and load."""

import json

import jax
import numpy as np
import pytest
from small_runs import CONFIG, SAMPLING, other_people, people

import jaxehr
from jaxehr.baselines.bootstrap import BootstrapConfig
from jaxehr.core.cohort import num_patients, take
from jaxehr.core.rules import Order
from jaxehr.data.split import held_out
from jaxehr.models.cdmt.config import CdmtConfig, CdmtSampling
from jaxehr.registry import MODELS
from jaxehr.runs.folder import FORMAT, changes
from jaxehr.runs.imputing import impute_run
from jaxehr.training.config import TrainConfig


@pytest.fixture(scope="module")
def data():
    return people()


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
        (0, None, "num must be positive, got 0"),
        (3, 2, "unknown class of label 'outcome' '2'; known: 0, 1"),
        (3, "", "unknown class of label 'outcome' ''; known: 0, 1"),
        (3, 0.7, "unknown class of label 'outcome' '0.7'; known: 0, 1"),
        (3, np.array([0, 1, 0]), r"unknown class of .* '\[0 1 0\]'; known: 0, 1"),
        (2.5, None, "num must be a whole number, got 2.5"),
        ("3", None, "num must be a whole number, got '3'"),
    ],
)
def test_refused_samples(count, label, text, trained):
    with pytest.raises(jaxehr.InputError, match=text):
        jaxehr.sample(trained[0], count, label=label)


def test_more_patients_than_ids_are_refused_before_they_are_drawn(trained):
    few = trained[0]._replace(schema=trained[0].schema.replace(id_dtype="int8"))
    drawn = lambda done: pytest.fail("drawn")
    with pytest.raises(jaxehr.InputError, match=r"'int8' \(Integer value 128 not"):
        jaxehr.sample(few, 128, options=SAMPLING, progress=drawn)


@pytest.mark.parametrize(
    ("label", "text"),
    [
        (
            "1",
            r"an array of 3 codes, .* got <U1 \[\]; the classes are \[0, 1",
        ),
        (0.7, r"got float64 \[\]"),
        ("x", r"got <U1 \[\]"),
        (np.zeros(2, int), r"got int64 \[2\]"),
    ],
)
def test_labels_of_a_model_are_codes(label, text, trained):
    run, _ = trained
    with pytest.raises(jaxehr.InputError, match=text):
        run.model.sample(jax.random.key(0), run.params, label, 3, options=SAMPLING)


def test_options_and_seeds_of_another_kind_are_refused(trained):
    run, _ = trained
    text = "options of cdmt: must be a CdmtSampling, got dict"
    with pytest.raises(jaxehr.InputError, match=text):
        jaxehr.sample(run, 3, options={"steps": 3})
    for seed in (jax.random.key(0), 1.5, "1"):
        with pytest.raises(jaxehr.InputError, match="seed must be a whole number, got"):
            jaxehr.sample(run, 3, seed=seed)


@pytest.mark.parametrize("name", MODELS)
def test_no_patient_is_refused_by_every_model(name, data):
    model = jaxehr.make(name, data.schema)
    with pytest.raises(jaxehr.InputError, match="num must be positive"):
        model.sample(None, None, None, 0)


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


@pytest.mark.parametrize("config", [{"hidden": 4}, TrainConfig(), CdmtConfig])
def test_a_config_of_another_kind_is_refused(data, tmp_path, config):
    text = "config of cdmt: must be a CdmtConfig, got (dict|TrainConfig|type)"
    with pytest.raises(jaxehr.InputError, match=text):
        jaxehr.train("cdmt", data, tmp_path / "run", config)
    with pytest.raises(jaxehr.InputError, match=text):
        jaxehr.make("cdmt", data.schema, config)
    assert not list(tmp_path.iterdir())


def test_without_a_config_the_model_has_its_defaults(data, tmp_path):
    run = jaxehr.train("bootstrap", data, tmp_path / "run")
    assert run.config == BootstrapConfig()
    assert jaxehr.load(tmp_path / "run").config == run.config


def test_too_few_people_to_choose_the_weights_by_is_said_so(data, tmp_path):
    groups = np.arange(10_000)
    few = groups[~held_out(groups, 0.1, "valid")][:16]  # nobody of these judges
    people = take(data, np.arange(16))._replace(ids=few, groups=few)
    text = "16 people to learn from are too few to set a tenth .* bring more people"
    with pytest.raises(jaxehr.InputError, match=text):
        jaxehr.train("cdmt", people, tmp_path / "run", CONFIG, holdout_fraction=0.0)
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
    assert describe_run(run, made)["steps"] is None  # those made, not those wanted
    assert described["sampler"]["steps"] == 3
    assert set(described["schedule"]) >= {"numeric"}
    json.dumps(described)
    again = jaxehr.evaluate(data, made, metrics=["tvd"], seed=3, run=described)
    assert [r.value for r in again.results] == [r.value for r in found.results]
    again.save(tmp_path / "report")
    assert (tmp_path / "report" / "report.html").is_file()


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_jax_would_wrap_is_refused(seed, tmp_path):
    """key(2**32) is key(0)."""
    calls = [
        lambda: jaxehr.train("cdmt", None, tmp_path / "run", CONFIG, seed=seed),
        lambda: jaxehr.sample(None, 1, seed=seed),
        lambda: impute_run(None, None, seed=seed),
        lambda: jaxehr.evaluate(None, None, seed=seed),
        lambda: jaxehr.audit(None, None, seed=seed),
    ]
    for call in calls:
        with pytest.raises(jaxehr.InputError, match=rf"seed must lie in .* got {seed}"):
            call()
    assert not list(tmp_path.iterdir())


def test_an_observed_nan_is_refused_wherever_data_come_in(data, tmp_path):
    """It would falsify metrics, attacks and parameters."""
    table = data.cohort.temporal
    row = int(np.flatnonzero(table.observed[:, 0, 0])[0])
    numeric = table.numeric.copy()
    numeric[row, 0, 0] = np.nan
    broken = data.cohort._replace(temporal=table._replace(numeric=numeric))
    bad = data._replace(cohort=broken)
    model = jaxehr.make("flexgen", data.schema)
    calls = [
        lambda: jaxehr.train("cdmt", bad, tmp_path / "run", CONFIG),
        lambda: jaxehr.evaluate(data, bad),
        lambda: jaxehr.audit(data, other_people(7), bad),
        lambda: jaxehr.save_cohort(bad, tmp_path / "cohort"),
        lambda: model.fit(None, broken),
        lambda: model.fit(None, data.cohort, valid=broken),
        lambda: model.impute(None, None, broken),
    ]
    for call in calls:
        text = f"'vital_0': observed values .* got nan in row {row}, step 0"
        with pytest.raises(jaxehr.InputError, match=text):
            call()
    assert not list(tmp_path.iterdir())


def test_what_stands_beside_a_gap_changes_no_number(data):
    table = data.cohort.temporal
    seen = table.observed[..., : table.numeric.shape[-1]]
    dirty = table._replace(numeric=np.where(seen, table.numeric, np.nan))
    made = data._replace(cohort=data.cohort._replace(temporal=dirty))
    made = made._replace(ids=data.ids + 1000, groups=data.ids + 1000)
    found = jaxehr.evaluate(data, made, other_people(7), metrics=["copies"])
    assert found.value("exact_copies") == 1.0


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
