"""A trained model with what it needs to draw patients."""

from typing import Any, NamedTuple

import jax

from jaxehr.core.checks import check_type, positive, whole
from jaxehr.core.cohort import Cohort, Schema
from jaxehr.core.contracts import GenerativeModel, Params
from jaxehr.data.dataset_checks import check_cohort
from jaxehr.registry import find, model_entry


class Run(NamedTuple):
    """A trained model: everything `sample` needs."""

    name: str
    config: Any
    schema: Schema
    params: Params
    info: dict[str, Any]

    @property
    def model(self) -> GenerativeModel:
        return make(self.name, self.schema, self.config)


def make(name: str, schema: Schema, config: Any = None) -> GenerativeModel:
    """The generative model `name` for cohorts of `schema`.

    Its `fit` and `impute` refuse cohorts that do not fit the schema (InputError),
    `sample` what is no number of patients, or options of another model.

    Args:
      config: the model's own, e.g. a `CdmtConfig`; None = its defaults.
    """
    config = config_of(name, config)
    entry = model_entry(name)
    model = find(entry.factory)(schema, config)

    def fit(
        key: jax.Array, cohort: Cohort, *, valid: Cohort | None = None, **options: Any
    ) -> Params:
        check_cohort(schema, cohort)
        if valid is not None:
            check_cohort(schema, valid, "the people who validate")
        return model.fit(key, cohort, valid=valid, **options)

    def impute(
        key: jax.Array, params: Params, cohort: Cohort, **options: Any
    ) -> Cohort:
        assert model.impute is not None
        check_cohort(schema, cohort)
        return model.impute(key, params, cohort, **options)

    def sample(
        key: jax.Array,
        params: Params,
        label: Any | None,
        num: int,
        *,
        options: Any | None = None,
        **others: Any,
    ) -> Cohort:
        positive(num=whole("num", num))
        if options is not None:
            check_type(f"options of {name}", options, find(entry.sampling))
        return model.sample(key, params, label, num, options=options, **others)

    return model._replace(fit=fit, sample=sample, impute=model.impute and impute)


def config_of(name: str, config: Any) -> Any:
    """The configuration of a model, its defaults in place of None.

    Raises:
      InputError: it is none of this model.
    """
    kind = find(model_entry(name).config)
    if config is None:
        return kind()
    check_type(f"config of {name}", config, kind)
    return config
