"""The cases of `experiments.speed`; the first contender of each is ours."""

from typing import Any, Literal, NamedTuple

MACHINE = "experiments.speed_machine:rates"
DENOISER = "experiments.speed_denoiser:{}"
TORCH = "experiments.speed_torch:{}"
ALIGN = "experiments.speed_align:{}"
COLD = "experiments.speed_cold:{}"


BFLOAT16 = {"products": "bfloat16"}
BLOCKED = {"gru": "blocked"}


class Quoted(NamedTuple):
    """A number that somebody else measured, with where it stands."""

    name: str
    value: float
    source: str


class Case(NamedTuple):
    """Contenders of one task, each (name, MODULE:FUNCTION, further sizes).

    by: what ratios compare; "" = no rivals, no ratios. repeats: the size that a piece
    of work is divided by, so that seconds are those of one optimiser step or network
    call; "" = none.
    """

    name: str
    text: str
    contenders: list[tuple[str, str, dict[str, Any]]]
    sizes: dict[str, Any]
    small: dict[str, Any]
    by: Literal["seconds", "cpu", ""] = "seconds"
    repeats: str = ""
    quoted: tuple[Quoted, ...] = ()

    def per(self, sizes: dict[str, Any]) -> int:
        return sizes[self.repeats] if self.repeats else 1


def denoiser(
    name: str, text: str, kind: str, rows: int, steps: int, n: int, **more: Any
) -> Case:
    """Ours, flax and torch on one network."""
    sources = (
        ("ours", DENOISER.format(f"ours_{kind}"), {}),
        ("ours, bfloat16", DENOISER.format(f"ours_{kind}"), BFLOAT16),
        ("ours, no GPU kernel", DENOISER.format(f"ours_{kind}"), BLOCKED),
        ("flax nn.RNN", DENOISER.format(f"flax_{kind}"), {}),
        ("torch nn.GRU", TORCH.format(kind), {}),
    )
    sizes = {"rows": rows, "steps": steps, "repeats": n, **more}
    small = {"rows": 16, "steps": 3, "repeats": 2, **more}
    small |= {"channels": 5, "hidden": 4, "layers": 2}
    return Case(name, text, [*sources], sizes, small, repeats="repeats")


TIMEDIFF = Quoted(
    "TimeDiff, public code, 1,000 steps",
    565.0,
    "our run of the authors' code [timediff2023] on an AMD EPYC, CPU seconds of one "
    "thread, extrapolated from 20 steps (a full run of 100 stays was within 5 %)",
)
DPMPP = {"solver": "dpmpp-2m", "levels": 20}
STAYS = "experiments.speed_stays:stays"

CASES = {
    case.name: case
    for case in (
        denoiser("train-25", "an optimiser step", "train", 4096, 25, 2),
        denoiser("train-272", "an optimiser step", "train", 1024, 272, 1),
        denoiser("train-ends", "an optimiser step", "train", 1024, 72, 2, ragged=True),
        denoiser("sample-25", "a network call", "sample", 2048, 25, 10),
        denoiser("sample-272", "a network call", "sample", 256, 272, 5),
        Case(
            "stays",
            "1,000 stays of 25 x (7 numbers + 7 masks) by CDMT-EHR",
            [
                ("dpmpp-2m, 20 steps", STAYS, DPMPP),
                ("the same, bfloat16", STAYS, DPMPP | BFLOAT16),
                ("adams-3, 10 steps", STAYS, {"solver": "adams-3", "levels": 10}),
                ("euler, 50 steps", STAYS, {"solver": "euler", "levels": 50}),
            ],
            {"stays": 1000, "steps": 25, "preset": ""},
            {"stays": 4, "steps": 3, "preset": "small"},
            by="cpu",
            quoted=(TIMEDIFF,),
        ),
        Case(
            "align-2000",
            "Gromov-Wasserstein of two clouds",
            [
                ("ours", ALIGN.format("ours"), {}),
                ("ott LRCGeometry", ALIGN.format("by_ott"), {}),
                ("POT, defaults", ALIGN.format("by_pot"), {}),
            ],
            # About half the spread of the cost. Smaller ones favour ours more, and at
            # 1e-3 the plan of POT loses its mass.
            {"rows": 2000, "latent": 64, "epsilon": 0.02},
            {"rows": 60, "latent": 4, "epsilon": 0.05},
        ),
        Case(
            "align-5000-error",
            "the recipe for many records against the dense solution",
            [
                ("streamed", ALIGN.format("large"), {"limit": 4000, "against": True}),
                ("dense", ALIGN.format("large"), {"limit": 5000}),
            ],
            {"rows": 5000, "latent": 64, "subsample": 2000},
            {"rows": 200, "latent": 4, "subsample": 80},
        ),
        Case(
            "align-large",
            "138,840 x 138,840 records",
            [("ours", ALIGN.format("large"), {"limit": 5000})],
            {"rows": 138_840, "latent": 64, "subsample": 2000},
            {"rows": 300, "latent": 4, "subsample": 80},
        ),
        Case(
            "cold",
            "a first start",
            [
                ("help", COLD.format("help"), {}),
                ("first sample, empty cache", COLD.format("first"), {"keep": False}),
                ("first sample, kept cache", COLD.format("first"), {"keep": True}),
            ],
            {"preset": "", "steps": 25},
            {"preset": "small", "steps": 3},
            by="",
        ),
    )
}
