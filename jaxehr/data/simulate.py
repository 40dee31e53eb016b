"""A cohort of a known law, so that tests can hold a sampler against the truth.

With label y of K classes and c = y / (K - 1), patient effect b and AR(1) noise z:

    vital_d[t] = MEAN_d + SCALE (SHIFT_d c + TAU b + z_d[t]),   b ~ N(0, 1),
    z[t] = PHI z[t-1] + sqrt(1 - PHI^2) e[t],   e ~ N(0, R),

with R_dd = 1 and R_de = RHO for d != e.

With u = (TAU b + z) / sqrt(1 + TAU^2) ~ N(0, 1), a vital is missing with chance
2 m Phi(-u): m on average and more often when it is low, hence E[u | observed] =
m / (sqrt(pi) (1 - m)). All other columns are missing at random with chance m, apart
from sex, age and unit, which are always there.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from jaxehr.core.checks import InputError, positive, within
from jaxehr.core.cohort import Dataset, Feature, Label, Schema, Table, make_cohort

LAST_CLASS = 0.3
SCALE, TAU, PHI, RHO = 10.0, 0.7, 0.8, 0.4
COUNT_RATE = (2.0, 4.0)  # Poisson rate at c = 0 and c = 1
LAB_ZERO, LAB_LOG_MEAN, LAB_LOG_STD = 0.6, 0.5, 0.4
STATES = ("sinus", "flutter", "paced")
CHAIN = np.array(
    [
        [[0.90, 0.08, 0.02], [0.30, 0.65, 0.05], [0.05, 0.05, 0.90]],
        [[0.70, 0.25, 0.05], [0.10, 0.80, 0.10], [0.05, 0.15, 0.80]],
    ]
)
SEXES, MALE = ("F", "M"), 0.55
UNITS, UNIT_SHARES = ("CCU", "CSRU", "MICU", "SICU"), (0.4, 0.3, 0.2, 0.1)
STAY = (0.9, 0.6)  # length = 1 + Binomial(steps - 1, STAY)
AGE_LOW, AGE_TRIALS, AGE_RATE = 40, 40, (0.5, 0.6)  # age = 40 + Binomial(40, rate)
WEIGHT, WEIGHT_MALE, WEIGHT_SCALE, WEIGHT_EFFECT = 70.0, 12.0, 12.0, 0.6


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulateOptions:
    """Size and shape of a simulated cohort."""

    n: int = 400
    """Number of patients; the first n patients are the same for every larger n."""
    steps: int = 24
    """Number of hourly steps."""
    numeric: int = 3
    """Number of vitals, beside the count, the lab and the rhythm."""
    classes: int = 2
    """Number of label classes; the last has 30 % of the patients."""
    missing: float = 0.2
    """Share of missing values, in [0, 0.5]."""
    static: bool = True
    """Whether there are static columns (age, sex, weight, unit)."""
    variable_length: bool = True
    """Whether stays differ in length, depending on the label."""
    seed: int = 0
    """Seed of the random numbers."""

    def __post_init__(self) -> None:
        positive(n=self.n, steps=self.steps)
        within("missing", self.missing, 0.0, 0.5)
        if self.classes < 2 or self.numeric < 0 or self.seed < 0:
            raise InputError(
                "simulate: classes must be at least 2, numeric and seed at least 0, "
                f"got {self.classes}, {self.numeric} and {self.seed}."
            )


class Law(NamedTuple):
    """The true moments; K classes, D vitals; before the mask unless named so."""

    prevalence: np.ndarray  # [K]
    vital_mean: np.ndarray  # [K, D]
    vital_std: float  # given the label
    vital_observed_mean: np.ndarray  # [K, D] of the values that are observed
    autocorrelation: np.ndarray  # [steps] at lags 0, 1, ... given the label
    cross_correlation: float  # of two vitals at one time, given the label
    missing: float
    count_rate: np.ndarray  # [K], mean and variance
    lab_zero: float
    lab_log_mean: float  # of the logarithm of values above zero
    lab_log_std: float
    transition: np.ndarray  # [K, 3, 3]
    stationary: np.ndarray  # [K, 3], the distribution of the rhythm at every step
    length_mean: np.ndarray  # [K]
    age_mean: np.ndarray  # [K]
    male: float
    weight_mean: np.ndarray  # [2] of F and M
    weight_std: float  # given the sex
    weight_vital_correlation: float  # given sex and label, at every step
    unit_shares: np.ndarray  # [4]


def between(ends: tuple[float, float], effect: np.ndarray) -> np.ndarray:
    """The value at `effect` in [0, 1] on the line from ends[0] to ends[1]."""
    return ends[0] + (ends[1] - ends[0]) * effect


def vital_means(num: int, effect: np.ndarray) -> np.ndarray:
    """Means [..., num] of the vitals at effects [...]; shifts 0.8, -0.5, 0.8, ..."""
    order = np.arange(num)
    shift = np.where(order % 2 == 0, 0.8, -0.5)
    return 80.0 + 10.0 * order + SCALE * shift * effect[..., None]


def law(options: SimulateOptions) -> Law:
    """The moments of the law that `simulate` draws from."""
    effect = np.arange(options.classes) / (options.classes - 1)
    prevalence = np.full(options.classes, (1 - LAST_CLASS) / (options.classes - 1))
    prevalence[-1] = LAST_CLASS
    mean = vital_means(options.numeric, effect)
    total = 1 + TAU**2
    missing = options.missing
    selection = np.sqrt(total) * missing / (np.sqrt(np.pi) * (1 - missing))
    transition = between((CHAIN[0], CHAIN[1]), effect[:, None, None])  # pyright: ignore
    stay = (
        between(STAY, effect) if options.variable_length else np.ones(options.classes)
    )
    return Law(
        prevalence=prevalence,
        vital_mean=mean,
        vital_std=SCALE * np.sqrt(total),
        vital_observed_mean=mean + SCALE * selection,
        autocorrelation=(TAU**2 + PHI ** np.arange(options.steps)) / total,
        cross_correlation=(TAU**2 + RHO) / total,
        missing=missing,
        count_rate=between(COUNT_RATE, effect),
        lab_zero=LAB_ZERO,
        lab_log_mean=LAB_LOG_MEAN,
        lab_log_std=LAB_LOG_STD,
        transition=transition,
        stationary=np.stack([stationary(matrix) for matrix in transition]),
        length_mean=1 + (options.steps - 1) * stay,
        age_mean=AGE_LOW + AGE_TRIALS * between(AGE_RATE, effect),
        male=MALE,
        weight_mean=np.array([WEIGHT, WEIGHT + WEIGHT_MALE]),
        weight_std=WEIGHT_SCALE,
        weight_vital_correlation=WEIGHT_EFFECT * TAU / np.sqrt(total),
        unit_shares=np.array(UNIT_SHARES),
    )


def stationary(matrix: np.ndarray) -> np.ndarray:
    """The distribution p with p = p P."""
    count = len(matrix)
    equations = np.vstack([matrix.T - np.eye(count), np.ones(count)])
    return np.linalg.lstsq(equations, np.append(np.zeros(count), 1.0), rcond=None)[0]


class Draws(NamedTuple):
    """One generator a quantity, so that patient i does not depend on n."""

    label: np.random.Generator
    effect: np.random.Generator
    noise: np.random.Generator
    count: np.random.Generator
    lab: np.random.Generator
    rhythm: np.random.Generator
    mask: np.random.Generator
    static: np.random.Generator
    length: np.random.Generator


def simulate(options: SimulateOptions) -> Dataset:
    """Draws a cohort of the law in the module docstring; `law` gives its moments.

    Columns: `vital_0`, ... (numeric), `count` (integer, Poisson), `lab` (zero-inflated
    log-normal), `rhythm` (Markov chain of 3 states); static `age` (integer), `sex`
    (binary), `weight` (numeric, correlated with the vitals), `unit` (4 categories).
    """
    draws = Draws(*(np.random.default_rng([options.seed, i]) for i in range(9)))
    truth = law(options)
    edges = np.cumsum(truth.prevalence)[:-1]
    label = np.searchsorted(edges, draws.label.random(options.n), side="right")
    patient = draws.effect.standard_normal(options.n)
    length = np.full(options.n, options.steps)
    if options.variable_length:
        stay = between(STAY, label / (options.classes - 1))
        tosses = draws.length.random((options.n, max(options.steps - 1, 0)))
        length = 1 + (tosses < stay[:, None]).sum(1)
    temporal = draw_temporal(options, draws, truth, label, patient)
    static = draw_static(options, draws, label, patient)
    schema = simulated_schema(options)
    cohort = make_cohort(static, temporal, length, label)
    ids = np.arange(1, options.n + 1)
    provenance = {"source": "simulate", **dataclasses.asdict(options)}
    return Dataset(schema, cohort, ids, ids, provenance)


def simulated_schema(options: SimulateOptions) -> Schema:
    static = (
        Feature(name="age", kind="integer", dtype="int64", unit="years"),
        Feature(name="sex", kind="binary", dtype="string", categories=SEXES),
        Feature(name="weight", kind="numeric", unit="kg"),
        Feature(name="unit", kind="categorical", dtype="string", categories=UNITS),
    )
    vitals = [
        Feature(name=f"vital_{i}", kind="numeric") for i in range(options.numeric)
    ]
    temporal = (
        *vitals,
        Feature(name="count", kind="integer", dtype="int64", lower=0.0),
        Feature(name="lab", kind="numeric", lower=0.0),
        Feature(
            name="rhythm",
            kind="categorical",
            dtype="string",
            categories=STATES,
            aggregate="last",
        ),
    )
    return Schema(
        static=static if options.static else (),
        temporal=temporal,
        num_steps=options.steps,
        label=Label(name="outcome", classes=tuple(range(options.classes))),
    )


def draw_temporal(
    options: SimulateOptions,
    draws: Draws,
    truth: Law,
    label: np.ndarray,
    patient: np.ndarray,
) -> Table:
    """The table [n, steps, numeric + 3] before it is cut to the lengths."""
    shape = (options.n, options.steps)
    noise = draws.noise.standard_normal((*shape, options.numeric + 1))
    shared, own = noise[..., :1], noise[..., 1:]
    z = np.sqrt(RHO) * shared + np.sqrt(1 - RHO) * own
    for t in range(1, options.steps):
        z[:, t] = PHI * z[:, t - 1] + np.sqrt(1 - PHI**2) * z[:, t]
    deviation = TAU * patient[:, None, None] + z
    effect = label / (options.classes - 1)
    vitals = vital_means(options.numeric, effect)[:, None] + SCALE * deviation
    count = poisson(draws.count.random(shape), truth.count_rate[label])
    zero = draws.lab.random(shape) < LAB_ZERO
    log_lab = LAB_LOG_MEAN + LAB_LOG_STD * draws.effect.spawn(1)[0].standard_normal(
        shape
    )
    lab = np.where(zero, 0.0, np.exp(log_lab))
    rhythm = draw_chain(draws.rhythm.random(shape), truth, label)
    probability = np.full((*shape, options.numeric + 3), options.missing)
    u = deviation / np.sqrt(1 + TAU**2)
    probability[..., : options.numeric] = 2 * options.missing * ndtr(-u)
    observed = draws.mask.random(probability.shape) >= probability
    numeric = np.concatenate([vitals, count[..., None], lab[..., None]], axis=-1)
    return Table(numeric, rhythm[..., None].astype(np.int32), observed)


def poisson(uniform: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Poisson counts [n, steps] by inversion, so that one uniform makes one count."""
    order = np.arange(30)  # P(count >= 30) < 1e-15 at the largest rate, 4
    factorial = np.cumprod(np.maximum(order, 1).astype(float))
    mass = np.exp(-rate[:, None]) * rate[:, None] ** order / factorial
    edges = np.cumsum(mass, axis=1)[:, :-1]
    counts = np.zeros(uniform.shape)
    for edge in edges.T:
        counts += uniform > edge[:, None]
    return counts


def draw_chain(uniform: np.ndarray, truth: Law, label: np.ndarray) -> np.ndarray:
    """States [n, steps]: the first from the stationary law, then by the transitions."""
    states = np.zeros(uniform.shape, np.int64)
    for t in range(uniform.shape[1]):
        start = truth.stationary[label]
        chance = start if t == 0 else truth.transition[label, states[:, t - 1]]
        edges = np.cumsum(chance, axis=1)[:, :-1]
        states[:, t] = (uniform[:, t, None] > edges).sum(1)
    return states


def draw_static(
    options: SimulateOptions, draws: Draws, label: np.ndarray, patient: np.ndarray
) -> Table:
    """The table [n, 4] in the order age, weight | sex, unit; [n, 0] without statics."""
    n = options.n
    if not options.static:
        return Table(
            np.zeros((n, 0)), np.zeros((n, 0), np.int32), np.zeros((n, 0), bool)
        )
    uniform = draws.static.random((n, AGE_TRIALS + 3))
    rate = between(AGE_RATE, label / (options.classes - 1))
    age = AGE_LOW + (uniform[:, :AGE_TRIALS] < rate[:, None]).sum(1)
    male = uniform[:, -1] < MALE
    unit = np.searchsorted(np.cumsum(UNIT_SHARES)[:-1], uniform[:, -2], side="right")
    noise = draws.static.spawn(1)[0].standard_normal(n)
    mixed = WEIGHT_EFFECT * patient + np.sqrt(1 - WEIGHT_EFFECT**2) * noise
    weight = WEIGHT + WEIGHT_MALE * male + WEIGHT_SCALE * mixed
    observed = np.ones((n, 4), bool)
    observed[:, 1] = uniform[:, -3] >= options.missing
    return Table(np.stack([age, weight], 1), np.stack([male, unit], 1), observed)
