"""One contract for every model: each is trained once on a small cohort of a known law.

The cohort has numbers, integers, categories, missing values, series of different length
and patients who lack a whole part.
"""

import dataclasses
import functools
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import textwrap
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from jaxehr import runs
from jaxehr.baselines.bootstrap import BootstrapConfig
from jaxehr.baselines.cdtd import CdtdConfig, CdtdSampling
from jaxehr.baselines.copula import CopulaConfig
from jaxehr.baselines.corgan import CorganConfig
from jaxehr.baselines.ehrmgan import EhrmganConfig
from jaxehr.baselines.guided import GuidedSampling
from jaxehr.baselines.halo import HaloConfig
from jaxehr.baselines.independent import IndependentConfig
from jaxehr.baselines.ldm import LdmConfig
from jaxehr.baselines.meddiff import MeddiffConfig, MeddiffSampling
from jaxehr.baselines.medgan import MedganConfig
from jaxehr.baselines.tabddpm import TabddpmConfig
from jaxehr.baselines.tabdiff import TabdiffConfig, TabdiffSampling
from jaxehr.baselines.timediff import TimediffConfig
from jaxehr.baselines.vae import VaeConfig
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Cohort, num_patients, rows_of, valid_steps
from jaxehr.data.missing import drop_modalities
from jaxehr.data.simulate import SimulateOptions, simulate
from jaxehr.models.cdmt.config import CdmtConfig, CdmtSampling
from jaxehr.models.flexgen.config import FlexgenConfig, FlexgenSampling
from jaxehr.ot.config import AlignmentConfig
from jaxehr.registry import MODELS
from jaxehr.training.config import TrainConfig

KEY = jax.random.key(0)
COMPILE = "/jax/core/compile/backend_compile_duration"
compilations = [0]


def count_compilation(event, duration, **_):
    compilations[0] += event == COMPILE


jax.monitoring.register_event_duration_secs_listener(count_compilation)


def brief(steps, **fields):
    """A training of some seconds, with a checkpoint some steps before the end."""
    fixed = {"batch_size": 64, "ema_decay": 0.97, "eval_every": 10**6}
    return TrainConfig(steps=steps, checkpoint_every=steps - 10, **fixed, **fields)


class Tiny(NamedTuple):
    """A model small enough for this suite.

    Attributes:
      breaks: fields that make its loss NaN; a huge learning rate by default.
      conditional: it can be given a label.
      rates: by how much the rates of missing values may err. Adversarial training is
        not calibrated, and other rounding ends elsewhere.
    """

    config: Any
    sampling: Any = None
    breaks: dict[str, Any] = {}  # noqa: RUF012
    conditional: bool = True
    rates: float = 0.12


# A new model needs one line here.
TINY = {
    "cdmt": Tiny(
        CdmtConfig(
            hidden=24,
            num_layers=1,
            embedding_dim=4,
            train=brief(600, learning_rate=1e-2),
        ),
        CdmtSampling(steps=20),
    ),
    "flexgen": Tiny(
        FlexgenConfig(
            latent=8,
            hidden=32,
            hidden_sequence=16,
            width=32,
            encoder="sum",
            autoencoder_epochs=30,
            autoencoder_learning_rate=5e-3,
            alignment=AlignmentConfig(method="ridge"),
            train=brief(300),
        ),
        FlexgenSampling(solver="ddim", steps=10),
        breaks={"autoencoder_learning_rate": 1e30},
    ),
    "independent": Tiny(IndependentConfig()),
    "bootstrap": Tiny(BootstrapConfig()),
    "copula": Tiny(CopulaConfig()),
    "vae": Tiny(
        VaeConfig(
            hidden=32, num_layers=1, latent=8, train=brief(400, learning_rate=3e-3)
        )
    ),
    "ldm": Tiny(
        LdmConfig(
            hidden=32,
            num_layers=1,
            latent=12,
            width=64,
            autoencoder_epochs=60,
            autoencoder_learning_rate=5e-3,
            train=brief(600, learning_rate=2e-3),
        ),
        GuidedSampling(solver="ddim", steps=20),
        breaks={"autoencoder_learning_rate": 1e30},
    ),
    "meddiff": Tiny(
        MeddiffConfig(width=64, train=brief(800, learning_rate=3e-3)),
        MeddiffSampling(steps=20),
    ),
    "timediff": Tiny(
        TimediffConfig(
            hidden=24,
            num_layers=1,
            diffusion_steps=50,
            train=brief(400, learning_rate=5e-3),
        ),
        conditional=False,
    ),
    "tabddpm": Tiny(
        TabddpmConfig(
            num_steps=30,
            num_layers=2,
            first=96,
            last=96,
            embedding=64,
            train=brief(600, learning_rate=3e-3, lr_schedule="linear"),
        )
    ),
    "cdtd": Tiny(
        CdtdConfig(
            embedding_dim=4,
            embedding=64,
            num_layers=2,
            hidden=96,
            low_noise=30.0,
            train=brief(600, learning_rate=6e-3, lr_schedule="linear"),
        ),
        CdtdSampling(steps=30),
    ),
    "medgan": Tiny(
        MedganConfig(
            latent=16,
            discriminator=32,
            autoencoder_epochs=150,
            autoencoder_batch=64,
            train=brief(700, learning_rate=3e-3, chunk_rows=64),
        ),
        conditional=False,
        rates=0.25,
    ),
    "halo": Tiny(
        HaloConfig(
            bins=8,
            width=32,
            num_layers=1,
            train=brief(400, learning_rate=3e-3, chunk_rows=64),
        )
    ),
    "tabdiff": Tiny(
        TabdiffConfig(
            num_layers=1,
            expansion=4,
            width=128,
            anneal=False,
            train=brief(1200, learning_rate=3e-3, lr_schedule="cosine"),
        ),
        TabdiffSampling(steps=20),
        conditional=False,
    ),
    "corgan": Tiny(
        CorganConfig(
            channels=1,
            critic=64,
            critic_updates=3,
            clip=0.05,
            decoder_rate=1.0,
            autoencoder_epochs=28,
            autoencoder_learning_rate=1e-2,
            train=dataclasses.replace(brief(400), batch_size=32),
        ),
        breaks={"autoencoder_learning_rate": 1e30},
        conditional=False,
        rates=0.25,
    ),
    "ehrmgan": Tiny(
        EhrmganConfig(
            hidden=24,
            generator=48,
            discriminator=48,
            num_layers=2,
            latent=8,
            dropout=0.0,
            features=5.0,
            discriminator_updates=2,
            generator_updates=1,
            autoencoder_epochs=50,
            autoencoder_learning_rate=1e-2,
            train=dataclasses.replace(
                brief(600, learning_rate=3e-3), batch_size=32, ema_decay=0.98
            ),
        ),
        breaks={"autoencoder_learning_rate": 1e30},
        rates=0.25,
    ),
}
TRAINED = [name for name, tiny in TINY.items() if hasattr(tiny.config, "train")]
LEARNED = [name for name in TINY if name not in ("independent", "bootstrap")]


def parametrized(names):
    """Of each model; all tests of a file run in one process, which trains it once."""
    return pytest.mark.parametrize("name", list(names))


every = parametrized(TINY)


def law(**changes):
    return simulate(SimulateOptions(steps=3, numeric=2, missing=0.1, **changes))


@functools.cache
def data():
    return drop_modalities(law(n=400), 0.1, 0.1)[0]


def model(name):
    return runs.make(name, data().schema, TINY[name].config)


@functools.cache
def checkpoints(name):
    """Where the training of a model leaves its checkpoints."""
    return tempfile.mkdtemp(prefix=f"jaxehr-{name}-")


@functools.cache
def trained(name):
    return model(name).fit(KEY, data().cohort, checkpoint=checkpoints(name))


@pytest.fixture(autouse=True, scope="session")
def tidy():
    yield
    for name in TINY:
        shutil.rmtree(checkpoints(name), ignore_errors=True)


def draw(name, num=40, *, key=KEY, label=None, **options):
    chosen = {"options": TINY[name].sampling} | options
    return model(name).sample(key, trained(name), label, num, **chosen)


def leaves(cohort: Cohort):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(cohort)]


def assert_same(one, two):
    for a, b in zip(leaves(one), leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_model_is_here():
    assert set(TINY) == set(MODELS)


@every
def test_the_columns_kinds_and_bounds_of_the_data(name):
    made, schema = draw(name, 150), data().schema
    assert num_patients(made) == 150
    for one, two in zip(leaves(made), leaves(data().cohort), strict=True):
        assert one.dtype == two.dtype
        assert one.shape[1:] == two.shape[1:]
    valid = valid_steps(made)
    assert set(made.length) <= set(data().cohort.length)
    assert not made.temporal.observed[~valid].any()
    np.testing.assert_array_equal(made.has_temporal, made.length > 0)
    np.testing.assert_array_equal(made.has_static, made.static.observed.any(-1))
    assert set(made.label) == {0, 1}
    for part in ("static", "temporal"):
        check_values(getattr(schema, part), getattr(made, part))


def check_values(features, table):
    """Whole numbers, bounds, codes below their cardinality; 0 where missing."""
    numeric = [f for f in features if f.is_numeric]
    coded = [f for f in features if not f.is_numeric]
    seen = table.observed
    assert np.isfinite(table.numeric).all()
    for place, feature in enumerate(numeric):
        values = table.numeric[..., place][seen[..., place]]
        assert len(values)
        assert not table.numeric[..., place][~seen[..., place]].any()
        if feature.kind == "integer":
            assert (values == np.round(values)).all()
        if feature.lower is not None:
            assert values.min() >= feature.lower
    for place, feature in enumerate(coded):
        codes = table.codes[..., place]
        assert codes.min() >= 0
        assert codes.max() < feature.cardinality
        assert not codes[~seen[..., len(numeric) + place]].any()


@every
def test_missing_values_and_parts_are_as_common_as_in_the_data(name):
    """Within `rates` of the rate in the data: of 150 patients, or 450 steps."""
    made, real = draw(name, 150), data().cohort
    rates = lambda c: np.concatenate(
        [
            [1 - c.has_static.mean(), 1 - c.has_temporal.mean()],
            1 - c.static.observed[c.has_static].mean(0),
            1 - c.temporal.observed[valid_steps(c)].mean(0),
        ]
    )
    assert np.abs(rates(made) - rates(real)).max() < TINY[name].rates


@every
def test_the_same_key_draws_the_same_and_another_key_others(name):
    first, again, other = draw(name), draw(name), draw(name, key=jax.random.key(9))
    assert_same(first, again)
    assert any((a != b).any() for a, b in zip(leaves(first), leaves(other)))


@every
def test_a_patient_is_the_same_in_any_number(name):
    many = draw(name, 150)  # no multiple of a block
    assert_same(draw(name, 1), rows_of(many, np.array([0])))
    assert_same(draw(name, 2, index=[149, 3]), rows_of(many, np.array([149, 3])))
    assert len(np.unique(many.temporal.numeric.reshape(150, -1), axis=0)) > 50


@every
def test_a_label_is_obeyed_or_refused(name):
    if not TINY[name].conditional:
        with pytest.raises(InputError, match="draws the label itself"):
            draw(name, label=1)
        return
    assert (draw(name, label=1).label == 1).all()
    wanted = np.arange(40) % 2
    np.testing.assert_array_equal(draw(name, label=wanted).label, wanted)
    assert abs(draw(name, 150, label="balanced").label.mean() - 0.5) < 0.17  # 4 s.e.


@every
def test_a_second_call_compiles_nothing_for_any_number(name):
    draw(name, 30)
    before = compilations[0]
    draw(name, 30, key=jax.random.key(4))
    draw(name, 23)
    assert compilations[0] == before


@every
def test_saved_and_loaded_runs_sample_the_same(name, tmp_path):
    tiny, params = TINY[name], trained(name)
    info = runs.describe(name, data(), tiny.config, 3, 0.2)
    run = runs.Run(name, tiny.config, data().schema, params, info)
    runs.save_run(run, tmp_path / "run")
    loaded = runs.load_run(tmp_path / "run")
    assert loaded.config == tiny.config
    found, wanted = (
        runs.sample_run(r, 7, seed=1, options=tiny.sampling) for r in (loaded, run)
    )
    assert_same(found.cohort, wanted.cohort)


EIGHT_DEVICES = """
    import sys
    import jax
    import numpy as np
    jax.config.update("jax_num_cpu_devices", 8)
    from test_contract import TINY, leaves
    from jaxehr import runs

    run = runs.load_run(sys.argv[1])
    options = TINY[run.name].sampling
    assert jax.device_count() == 8
    found = runs.sample_run(run, 150, seed=1, options=options)
    np.savez(sys.argv[2], *leaves(found.cohort))
"""


@pytest.mark.slow
@every
def test_eight_devices_draw_what_one_draws(name, tmp_path):
    info = runs.describe(name, data(), TINY[name].config, 3, 0.2)
    run = runs.Run(name, TINY[name].config, data().schema, trained(name), info)
    runs.save_run(run, tmp_path / "run")
    here = pathlib.Path(__file__).parent
    paths = [str(here), str(here.parent), os.environ.get("PYTHONPATH", "")]
    words = [textwrap.dedent(EIGHT_DEVICES), tmp_path / "run", tmp_path / "drawn.npz"]
    subprocess.run(
        [sys.executable, "-c", *words],
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "JAX_PLATFORMS": "cpu"},
    )
    alone = runs.sample_run(run, 150, seed=1, options=TINY[name].sampling)
    with np.load(tmp_path / "drawn.npz") as archive:
        for one, eight in zip(leaves(alone.cohort), archive.values(), strict=True):
            # XLA fuses attention otherwise where there are several devices.
            error = 1e-6 if name == "tabdiff" and one.dtype.kind == "f" else 0.0
            np.testing.assert_allclose(eight, one, rtol=error, atol=0.0)


@parametrized(TRAINED)
def test_a_training_goes_on_bit_for_bit(name, tmp_path):
    """As after a crash between the last two checkpoints of the last stage."""
    wanted, folder, heard = trained(name), tmp_path / "checkpoints", []
    shutil.copytree(checkpoints(name), folder)
    saved = [path for path in folder.rglob("*") if path.name.isdigit()]
    last = max(saved, key=lambda path: path.stat().st_mtime)
    assert len([path for path in saved if path.parent == last.parent]) == 2
    shutil.rmtree(last)
    tell = lambda step, metrics: heard.append((step, metrics["steps_left"]))
    found = model(name).fit(
        KEY, data().cohort, checkpoint=str(folder), callbacks=[tell]
    )
    assert heard[0][1] < 10
    assert heard[-1][1] == 0
    pairs = zip(jax.tree.leaves(found["weights"]), jax.tree.leaves(wanted["weights"]))
    for one, two in pairs:
        np.testing.assert_array_equal(one, two)


@parametrized(TRAINED)
def test_a_loss_that_is_not_finite_stops(name):
    tiny = TINY[name]
    rate = dataclasses.replace(tiny.config.train, learning_rate=1e30)
    config = dataclasses.replace(tiny.config, train=rate, **tiny.breaks)
    advice = r"at step \d+; lower --learning-rate and train into another folder"
    with pytest.raises(FloatingPointError, match=advice):
        runs.make(name, data().schema, config).fit(KEY, data().cohort)


def correlations(cohort: Cohort):
    """Of both vitals at all steps and of the weight, over whom both are observed."""
    vitals = cohort.temporal.numeric[..., :2].reshape(len(cohort.label), -1)
    seen = cohort.temporal.observed[..., :2].reshape(len(cohort.label), -1)
    columns = np.concatenate([vitals, cohort.static.numeric[:, 1:]], 1)
    seen = np.concatenate([seen, cohort.static.observed[:, 1:2]], 1)
    table = np.ma.masked_array(columns, ~seen)
    return np.asarray(np.ma.corrcoef(table, rowvar=False))


@functools.cache
def distance(name):
    """Mean absolute error of the correlations of 400 patients."""
    truth = correlations(law(n=20_000, seed=7).cohort)
    return np.abs(correlations(draw(name, 400)) - truth).mean()


@parametrized(LEARNED)
def test_the_law_is_learned_better_than_by_the_floor(name):
    """The floor errs by the mean correlation of the law, half the columns by 0.6."""
    assert distance("independent") > 0.3
    assert distance(name) < 0.6 * distance("independent")


def test_copies_are_as_near_the_law_as_the_data():
    assert distance("bootstrap") < 0.1
