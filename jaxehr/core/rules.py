"""Plausibility rules: what the values of one patient may not say together.

| rule | meaning |
|---|---|
| `Order` | one number is at least another one, plus a margin |
| `Monotone` | a temporal column never falls, or never rises |
| `NothingAfter` | nothing is measured after an event |
| `Implies` | where a coded column has a value, another has a given one or is missing |

A rule speaks of observed values only. Static and temporal columns mix: a static value
stands at every step, and a static value that follows from a temporal one does so from
any step. Bounds of one number are no rule here; they belong to its `Feature`. An event
that stays is a `Monotone` binary column. Columns are named as in `Schema.columns`.
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, get_args

from jaxehr.core.checks import InputError

Relation = Literal[">=", "<="]
RELATIONS: tuple[str, ...] = get_args(Relation)


class Column(NamedTuple):
    """Where a feature stands."""

    part: str  # "static" or "temporal"
    place: int  # in that part of the schema
    feature: Any  # Feature


class Case(NamedTuple):
    """A column has this value; None = is missing."""

    column: str
    value: Any

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.column} missing"
        return f"{self.column} = {self.value}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """columns[0] >= columns[1] + margin, or columns[0] <= columns[1] - margin."""

    columns: tuple[str, str]
    relation: Relation = ">="
    margin: float = 0.0

    def __post_init__(self) -> None:
        if len(self.columns) != 2 or len(set(self.columns)) != 2:
            raise InputError(
                f"rule order: columns must be two names, got {list(self.columns)}; "
                "write a longer chain as its pairs."
            )
        check_relation("order", self.relation)
        if not math.isfinite(self.margin):
            raise InputError(f"rule {str(self)!r}: margin must be finite.")

    def __str__(self) -> str:
        margin = self.margin if self.relation == ">=" else -self.margin
        tail = f" {'-' if margin < 0 else '+'} {abs(margin):g}" if margin else ""
        return f"{self.columns[0]} {self.relation} {self.columns[1]}{tail}"

    @property
    def names(self) -> tuple[str, ...]:
        return self.columns

    @property
    def ends(self) -> tuple[str, str]:
        """The lower and the higher column."""
        one, two = self.columns
        return (two, one) if self.relation == ">=" else (one, two)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Monotone:
    """Each value of a temporal column is >= (or <=) every earlier one.

    Coded columns are compared in the order of their categories.
    """

    column: str
    relation: Relation = ">="

    def __post_init__(self) -> None:
        check_relation("monotone", self.relation)

    def __str__(self) -> str:
        return f"{self.column} never {'falls' if self.relation == '>=' else 'rises'}"

    @property
    def names(self) -> tuple[str, ...]:
        return (self.column,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NothingAfter:
    """No value of `columns` at a step later than an event.

    Attributes:
      event: a static number, the time of the event in the unit of the grid; or the
        value of a temporal coded column, whose first step counts.
      columns: temporal ones; empty = all but the event's.
    """

    event: str | Case
    columns: tuple[str, ...] = ()

    def __str__(self) -> str:
        which = ", ".join(self.columns)
        return f"nothing{' of ' if which else ''}{which} after {self.event}"

    @property
    def event_column(self) -> str:
        return self.event if isinstance(self.event, str) else self.event.column

    @property
    def names(self) -> tuple[str, ...]:
        return (self.event_column, *self.columns)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Implies:
    """Where `when` holds, an observed `then.column` is `then.value` (None: missing)."""

    when: Case
    then: Case

    def __str__(self) -> str:
        return f"{self.when} implies {self.then}"

    @property
    def names(self) -> tuple[str, ...]:
        return (self.when.column, self.then.column)


Rule = Order | Monotone | NothingAfter | Implies


def check_relation(kind: str, relation: str) -> None:
    if relation not in RELATIONS:
        raise InputError(
            f"rule {kind}: relation must be '>=' or '<=', got {relation!r}; for "
            "strictly more give a margin (1 for whole numbers)."
        )


def descending(*names: str, among: Iterable[str] | None = None) -> tuple[Order, ...]:
    """Each of these columns is at least every later one.

    Args:
      among: the columns that there are; others are left out. None = all are there.
    """
    kept = [name for name in names if among is None or name in among]
    pairs = [(a, b) for i, a in enumerate(kept) for b in kept[i + 1 :]]
    return tuple(Order(columns=pair) for pair in pairs)
