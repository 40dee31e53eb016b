"""How two latent spaces are aligned; free of JAX so that the command line starts fast.

The paper aligns by entropic Gromov-Wasserstein on label-signed cosine similarities
[flexgen2024, Eq. 6]. What each choice means and how it compares is in `align`.
"""

import dataclasses
from typing import Literal, get_args

from jaxehr.core.checks import InputError, known, positive, within

Method = Literal[
    "fused",
    "gromov",
    "signed",
    "ridge",
    "procrustes",
    "bures",
    "knn",
    "class-mean",
    "complete",
]
Imputation = Literal["stochastic", "linear", "sample", "barycentric"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignmentConfig:
    """Alignment of the static and the temporal latents, and imputation by it."""

    method: Method = "fused"
    """fused: Gromov-Wasserstein with label and anchor terms, weighed against ridge by
    cross-validation; gromov: the same without anchors; signed: the paper's; ridge,
    procrustes, bures, knn, class-mean: simple alternatives; complete: none, patients
    who lack a modality are left out. A run of knn holds latents of real patients and is
    as confidential as the cohort."""
    imputation: Imputation = "stochastic"
    """How a missing latent follows from the other one: the map plus residual noise, the
    map, a draw from the coupling, or its barycentre. For the last two a run holds
    latents of real patients and is as confidential as the cohort."""
    rho: float = 0.1
    """Entropic regularisation in units of the spread of the cost (fused, gromov)."""
    epsilon: float = 0.0
    """Absolute entropic regularisation; 0 = rho decides (signed: 0.05)."""
    label_penalty: float = 10.0
    """Cost of coupling two classes, in units of the spread of the cost."""
    anchor_weight: float = 1.0
    """Spread of the anchor term in the same units (fused)."""
    ridge: float = 1e-2
    """Penalty of the linear map per record, in units of the mean latent variance."""
    by_class: bool = True
    """Impute training patients inside their class, with residuals of other patients of
    it (stochastic imputation by a map). Deviation: the missing part would tell too
    little of the label otherwise, and be normal. The label of a patient that is imputed
    later is not read."""
    fallback: bool = True
    """Impute by ridge on complete patients where the coupling collapsed to the product
    plan; without it the map of that plan is used, as the paper would."""
    neighbours: int = 5
    """Complete records that knn averages."""
    starts: int = 8
    """Starts of a coupling without anchors; the lowest value is kept."""
    dense_limit: int = 5000
    """Records a side up to which the whole coupling is solved at once."""
    subsample: int = 2000
    """Records a side of the subsample and of a mini-batch above that."""

    def __post_init__(self) -> None:
        known("method", self.method, get_args(Method))
        known("imputation", self.imputation, get_args(Imputation))
        positive(
            rho=self.rho,
            ridge=self.ridge,
            neighbours=self.neighbours,
            starts=self.starts,
            dense_limit=self.dense_limit,
            subsample=self.subsample,
        )
        for name in ("epsilon", "label_penalty", "anchor_weight"):
            if getattr(self, name) < 0:
                raise InputError(
                    f"{name} must not be negative, got {getattr(self, name)}."
                )
        within("rho", self.rho, 1e-3, 10.0)
        if self.imputation in ("sample", "barycentric") and self.method not in (
            "fused",
            "gromov",
            "signed",
        ):
            raise InputError(
                f"imputation {self.imputation} needs a coupling; method {self.method} "
                "has none. Use stochastic or linear."
            )
