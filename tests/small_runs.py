"""A run of a few steps on a small cohort, and data sets as if runs had drawn them."""

from jaxehr.data.simulate import SimulateOptions, simulate
from jaxehr.models.cdmt.config import CdmtConfig, CdmtSampling
from jaxehr.training.config import TrainConfig

CONFIG = CdmtConfig(
    hidden=4, num_layers=1, train=TrainConfig(steps=3, batch_size=32, eval_every=1)
)
SAMPLING = CdmtSampling(steps=3)


def people(count=300, **options):
    """A cohort that takes no time."""
    return simulate(SimulateOptions(n=count, steps=3, numeric=1, **options))


def other_people(seed, count=300):
    """People of the same law with ids of their own."""
    made = people(count, seed=seed)
    ids = made.ids + 10_000 * seed
    return made._replace(ids=ids, groups=ids)


def drawn_by(run, data):
    """`data` as if `run` had drawn it."""
    info = {k: v for k, v in run.info.items() if k not in ("schema", "config")}
    return data._replace(provenance={"run": info})
