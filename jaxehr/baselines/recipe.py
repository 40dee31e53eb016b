"""From what a baseline adds to a generative model like our own.

A `Recipe` says which form of patients a baseline takes, how it learns and how it draws.
The rest is the same for all: patients who lack a modality are completed or kept, and
encoded; training is resumable; patient i is the same in any batch, and comes back in
the columns, kinds and bounds of the data.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.baselines.forms.complete import complete, fit_donors, in_words
from jaxehr.baselines.forms.layout import Form
from jaxehr.baselines.forms.rows import FLAT, SUMS
from jaxehr.core.blocks import block_rows, blocks_of
from jaxehr.core.checks import InputError, known, positive
from jaxehr.core.cohort import (
    Cohort,
    Schema,
    concatenate,
    make_cohort,
    num_patients,
    rows_of,
)
from jaxehr.core.contracts import Callback, GenerativeModel, Params
from jaxehr.core.keys import draw_cells, patient_keys
from jaxehr.core.labels import PATTERNS, Missing, count_patterns, label_codes, parts_of
from jaxehr.core.sparse import SparseTable
from jaxehr.training.config import resolve
from jaxehr.training.sharding import compiled_rows
from jaxehr.training.stages import Stages

BLOCK_CELLS = 2**29  # of the temporal tables of one block
Rows = Literal["auto", "flat", "sums"]
ROWS: tuple[str, ...] = get_args(Rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing:
    """How patients are drawn from a baseline whose values are always drawn."""

    missing: Missing = "as-training"
    """Which patients lack a modality: as often as in training; no one; all lack the
    static part; all lack the temporal part."""

    def __post_init__(self) -> None:
        known("missing", self.missing, PATTERNS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling(Drawing):
    """How patients are drawn from a baseline that gives every value a chance."""

    decode: Literal["sample", "mode"] = "sample"
    """Draw values from the chances that the baseline gives them, or take the most
    probable (a threshold at 0.5)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        known("decode", self.decode, ("sample", "mode"))


class Task(NamedTuple):
    """What a baseline learns from.

    Attributes:
      form: of the patients. layout, fitted: of the form. data: encoded training
        patients. valid: encoded validation patients, or None. stages: runs its
        trainings.
    """

    form: Form
    layout: Any
    fitted: Params
    data: Any
    valid: Any | None
    stages: Stages


class Recipe(NamedTuple):
    """What a baseline adds; all of it hashable, so that programs are found again.

    Attributes:
      name: of the baseline. config: its choices; the optimisation is `config.train`.
      form: (config, whether the temporal table is sparse) -> Form.
      learn: (key, config, task) -> weights, nested dicts of arrays.
      draw: (layout, config, options, weights, keys [B], label [B]) -> drawn patients of
        the form, without length; patient i from keys[i]; on the device.
      plan: (config, patients) -> steps of every stage of a training, by name.
      conditional: the label is given to `draw`; otherwise it is one of the columns.
      whole: patients who lack a modality are completed by their neighbours; otherwise
        the baseline takes them as they are.
      sampling: the options of `draw`, a `Drawing` with fields of its own.
    """

    name: str
    config: Any
    form: Callable[[Any, bool], Form]
    learn: Callable[..., Params]
    draw: Callable[..., Any]
    plan: Callable[[Any, int], dict[str, int]]
    conditional: bool = True
    whole: bool = True
    sampling: type[Drawing] = Sampling


def rows_form(config: Any, is_sparse: bool) -> Form:
    """The rows that `config.rows` names; `auto` sums a sparse table over time."""
    sums = {"auto": is_sparse, "flat": False, "sums": True}
    return SUMS if sums[config.rows] else FLAT


def one_stage(config: Any, patients: int) -> dict[str, int]:
    """The plan of a baseline that trains once."""
    del patients
    return {"all": config.train.steps}


def no_stage(config: Any, patients: int) -> dict[str, int]:
    """The plan of a baseline without training."""
    del config, patients
    return {}


def build(schema: Schema, recipe: Recipe) -> GenerativeModel:
    """The generative model for cohorts of `schema`.

    `fit` returns nested dicts of arrays: `fitted` (`form`, `presence`), `weights`, and
    `input`, a text on how patients were taken in. `sample` takes `label` None (training
    frequency), "balanced", one code, or an array of codes, `options: Drawing`, `index`
    (numbers of the patients; default 0 .. num - 1) and `progress`.
    """
    bound = functools.partial
    return GenerativeModel(bound(fit, schema, recipe), bound(sample, schema, recipe))


def fit(
    schema: Schema,
    recipe: Recipe,
    key: jax.Array,
    cohort: Cohort,
    *,
    valid: Cohort | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | None = None,
    announce: Callable[[str], None] | None = None,
) -> Params:
    """Completes, encodes and learns; see `training.loop.train`.

    Raises:
      InputError: no patient has any value; what the form or the baseline refuses.
    """
    cohort = with_something(cohort)
    donors = fit_donors(schema, cohort) if recipe.whole else None
    whole = complete(donors, cohort)
    is_sparse = isinstance(whole.temporal, SparseTable)
    form = recipe.form(recipe.config, is_sparse)
    fitted = form.fit(schema, whole, recipe.conditional)
    layout = form.layout(schema, fitted)
    said = [text for text in (form.text(layout), in_words(cohort, whole)) if text]
    if announce:
        announce(f"{recipe.name}: {'; '.join(said)}")
    config = settled(recipe.config, num_patients(cohort), max(layout.steps, 1))
    plan = recipe.plan(config, num_patients(cohort))
    judged = None
    if valid is not None and plan:
        valid = with_something(valid, "validate on")
        judged = form.encode(fitted, layout, complete(donors, valid))
    task = Task(
        form,
        layout,
        fitted,
        form.encode(fitted, layout, whole),
        judged,
        Stages(plan, callbacks, checkpoint, announce),
    )
    weights = recipe.learn(key, config, task)
    presence = count_patterns(schema, cohort)
    return {
        "fitted": {"form": fitted, "presence": presence, "sparse": np.bool_(is_sparse)},
        "weights": jax.tree.map(np.asarray, weights),
        "input": np.array("; ".join(said)),
    }


def with_something(cohort: Cohort, use: str = "learn from") -> Cohort:
    """The patients with at least one modality: the others teach nothing.

    Raises:
      InputError: there are none to `use`.
    """
    keep = np.asarray(cohort.has_static) | np.asarray(cohort.has_temporal)
    if not keep.any():
        raise InputError(f"none of {len(keep)} patients has any value to {use}.")
    return cohort if keep.all() else rows_of(cohort, keep)


def settled(config: Any, patients: int, num_steps: int) -> Any:
    """`config` with the automatic sizes of its training filled in, if it trains."""
    if not hasattr(config, "train"):
        return config
    accelerator = jax.default_backend() != "cpu"
    train = resolve(config.train, patients, num_steps, accelerator=accelerator)
    return dataclasses.replace(config, train=train)


def sample(
    schema: Schema,
    recipe: Recipe,
    key: jax.Array,
    params: Params,
    label: Any | None,
    num: int,
    *,
    options: Any | None = None,
    index: Any | None = None,
    progress: Callable[[int], None] | None = None,
) -> Cohort:
    """Draws patients; patient i depends on key, params, label and i only.

    Raises:
      InputError: a label where the baseline draws it itself; see `label_codes`.
    """
    settings = options or recipe.sampling()
    if label is not None and not recipe.conditional:
        raise InputError(
            f"{recipe.name} draws the label itself and cannot be given one; leave it "
            "out, or train a conditional baseline, such as vae."
        )
    fitted, counts = params["fitted"], np.asarray(params["fitted"]["presence"])
    form = recipe.form(recipe.config, bool(fitted["sparse"]))
    layout = form.layout(schema, fitted["form"])
    numbers = (np.arange(num) if index is None else np.asarray(index)).astype(np.int32)
    codes = label_codes(schema, counts.sum((1, 2)), label, len(numbers))
    positive(num=len(numbers))
    weights, made, done = jax.device_put(params["weights"]), [], 0
    run = program(recipe, form, layout, settings, jax.device_count())
    size = rows_of_block(schema) * jax.device_count()
    for rows, kept in blocks_of(len(numbers), size):
        drawn, cell = jax.tree.map(
            np.asarray, run(key, weights, counts, numbers[rows], codes[rows])
        )
        block = form.decode(fitted["form"], layout, drawn)
        block = without_parts(block, *parts_of(cell, settings.missing))
        made.append(rows_of(block, kept))
        done += len(kept)
        if progress:
            progress(done)
    return concatenate(made)


def rows_of_block(schema: Schema) -> int:
    """Patients drawn at once on one device; fewer of wide tables."""
    cells = max(schema.num_steps * len(schema.temporal), 1)
    return min(block_rows(), max(BLOCK_CELLS // cells, 16))


@functools.lru_cache(maxsize=32)
def program(
    recipe: Recipe, form: Form, layout: Any, options: Any, devices: int
) -> Callable[..., Any]:
    """(key, weights, counts [C, 2, 2], index [N], label [N]) -> drawn patients, and
    their cells of `counts`; one block on each device, compiled."""
    mode = isinstance(options, Sampling) and options.decode == "mode"

    def run(key: Any, weights: Params, counts: Any, index: Any, label: Any) -> Any:
        keys = jax.vmap(functools.partial(jax.random.split, num=3))(
            patient_keys(key, index)
        )
        cells = jnp.asarray(counts).reshape(len(counts), -1)
        code, _ = draw_cells(keys[:, 0], cells, label)
        config = recipe.config
        drawn = recipe.draw(layout, config, options, weights, keys[:, 1], code)
        made = form.finish(layout, keys[:, 2], drawn, mode)
        # A baseline that draws the label may draw one that training did not have.
        cells = jnp.where(cells.sum(1, keepdims=True) > 0, cells, cells.sum(0))
        return made, draw_cells(keys[:, 0], cells, made.label)[1]

    return compiled_rows(run, devices, copied=3)


def without_parts(
    cohort: Cohort, has_static: np.ndarray, has_temporal: np.ndarray
) -> Cohort:
    """The cohort without the parts that a patient does not have."""
    observed = cohort.static.observed & has_static[:, None]
    length = np.where(has_temporal, cohort.length, 0)
    static = cohort.static._replace(observed=observed)
    return make_cohort(static, cohort.temporal, length, cohort.label)
