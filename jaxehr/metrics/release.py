"""The release gate: limits on what attacks may reach, and the verdict.

A limit holds for the upper end of the 95 % interval: few patients give wide intervals,
and no evidence is no pass. Neither is an attack that misses its control. Exact copies
are counted, not inferred, and among few columns real people equal each other too:
`max_sure_excess` limits the lower end of their excess over those of the hold-out.
"""

import importlib.resources
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxehr.core.checks import InputError, known
from jaxehr.core.contracts import Result, Value

# Distances to the nearest patient pass generators that leak: no evidence.
DIAGNOSTICS = ("dcr_share", "nndr", "nnaa_train", "nnaa_holdout")
COPIES = "exact_copies"  # no attack either, but too many of them are a leak
BOUNDS = {  # of the 95 % interval
    "max": "upper bound",
    "max_excess": "upper bound of the excess over real patients",
    "max_sure_excess": "lower bound of the excess over real patients",
}
Policy = dict[str, dict[str, float]]  # number -> bound -> limit


class Verdict(NamedTuple):
    """One limit of the policy, held against the number."""

    name: str
    bound: str  # a key of BOUNDS
    limit: float
    reached: float | None  # None = not defined
    passed: bool
    reason: str  # why not


def default_policy() -> Policy:
    """The policy that the package carries."""
    path = importlib.resources.files("jaxehr.metrics").joinpath("policy.json")
    return json.loads(path.read_text(encoding="utf-8"))


def check_policy(content: Any, names: Sequence[str], where: str = "policy") -> Policy:
    """The content of a policy file, checked.

    Args:
      names: the numbers of attacks.

    Raises:
      InputError: no object of objects, an unknown number or bound, a limit that is no
        finite number, no limit at all, or a limit on a diagnostic.
    """
    if not isinstance(content, dict) or not content:
        raise InputError(
            f'{where}: is an object such as {{"mir": {{"max_excess": 0.1}}}} with at '
            f"least one number; got {json.dumps(content)[:60]}."
        )
    for name, limits in content.items():
        if name in DIAGNOSTICS:
            raise InputError(
                f"{where}: {name} is a diagnostic and no limit; generators that leak "
                "pass distances, so limit an attack, such as "
                "membership_hamming_advantage."
            )
        known(f"number in {where}", name, [n for n in names if n not in DIAGNOSTICS])
        if not isinstance(limits, dict) or not limits:
            raise InputError(
                f"{where}: {name}: give one or more of {', '.join(BOUNDS)}, such as "
                f'{{"max": 0.2}}; got {json.dumps(limits)[:60]}.'
            )
        for bound, limit in limits.items():
            known(f"bound of {name} in {where}", bound, BOUNDS)
            number = isinstance(limit, int | float) and not isinstance(limit, bool)
            if not number or not math.isfinite(limit):
                raise InputError(
                    f"{where}: {name}: {bound} must be a number, got "
                    f"{json.dumps(limit)[:60]}."
                )
    return content


def judge(results: Sequence[Result], policy: Policy) -> list[Verdict]:
    """Holds every limit of the policy against its number."""
    values = {result.name: result.value for result in results}
    return [
        verdict(name, values.get(name), bound, limit)
        for name, limits in policy.items()
        for bound, limit in limits.items()
    ]


def verdict(name: str, value: Value | None, bound: str, limit: float) -> Verdict:
    """One limit; what was not measured, or by an attack without power, fails."""
    reached = None if value is None else bounded(value, bound)
    if value is None:
        reason = "not measured: this attack is made on request only, with --shadow"
    elif value.value is None:
        reason = f"not defined: {value.reason}"
    elif reached is None:
        reason = f"no interval, so no {BOUNDS[bound]}"
    elif (value.detail or {}).get("leaky_generator_caught") is False:
        reason = "no power on these data: the attack misses its control too"
    elif reached > limit:
        reason = f"{BOUNDS[bound]} {reached:.3g} exceeds {limit:g}"
    else:
        reason = ""
    return Verdict(name, bound, limit, reached, not reason, reason)


def bounded(value: Value, bound: str) -> float | None:
    """What a bound limits: an end of the interval of a number, or of its excess.

    The excess v - r of two intervals lies between v - r - |(v - v_low, r_high - r)| and
    v - r + |(v_high - v, r - r_low)| [newcombe1998, Method 10].
    """
    detail: Mapping[str, Any] = value.detail or {}
    low, high = detail.get("reference_interval", [None, None])
    needed = {
        "max": [value.value, value.high],
        "max_excess": [value.value, value.high, value.reference, low],
        "max_sure_excess": [value.value, value.low, value.reference, high],
    }[bound]
    numbers = [float(n) for n in needed if n is not None and math.isfinite(n)]
    if len(numbers) < len(needed):
        return None
    if bound == "max":
        return numbers[1]
    v, end, r, other = numbers
    half = math.hypot(end - v, r - other)
    return v - r + (half if bound == "max_excess" else -half)
