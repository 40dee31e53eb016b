"""Do plausibility rules fit the columns, and can all of them hold at once?"""

import graphlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from jaxehr.core.checks import InputError, known
from jaxehr.core.rules import Case, Column, Implies, Monotone, NothingAfter, Order, Rule


def check_rules(rules: tuple[Rule, ...], columns: Mapping[str, Column]) -> None:
    """Raises InputError unless every rule fits its columns, and all can hold at once.

    Args:
      columns: every feature by its name, `Schema.columns`.
    """
    texts = [str(rule) for rule in rules]
    for rule in rules:
        if texts.count(str(rule)) > 1:
            raise InputError(f"rule {str(rule)!r} occurs twice.")
        for name in rule.names:
            try:
                known("column", name, columns)
            except InputError as error:
                raise InputError(f"rule {str(rule)!r}: {error}") from None
        check_rule(rule, columns)
    check_limits(rules, columns)
    check_trends(rules)
    check_consequences(rules, columns)


def check_rule(rule: Rule, columns: Mapping[str, Column]) -> None:
    """Raises InputError unless kinds and parts of the columns suit the rule."""
    if isinstance(rule, Order):
        for name in rule.columns:
            needs(rule, columns[name].feature.is_numeric, name, "numeric")
    elif isinstance(rule, Monotone):
        needs(rule, columns[rule.column].part == "temporal", rule.column, "temporal")
    elif isinstance(rule, NothingAfter):
        check_event(rule, columns)
        for name in rule.columns:
            needs(rule, columns[name].part == "temporal", name, "temporal")
    else:
        check_case(rule, rule.when, columns)
        if rule.when.value is None or rule.when.column == rule.then.column:
            raise InputError(
                f"rule {str(rule)!r}: a value of one column must imply another column."
            )
        if rule.then.value is not None:
            check_case(rule, rule.then, columns)


def check_event(rule: NothingAfter, columns: Mapping[str, Column]) -> None:
    """Raises InputError unless the event is a static time or a temporal value."""
    name, column = rule.event_column, columns[rule.event_column]
    if isinstance(rule.event, Case):
        needs(rule, column.part == "temporal", name, "temporal")
        check_case(rule, rule.event, columns)
    else:
        timed = column.part == "static" and column.feature.is_numeric
        needs(rule, timed, name, "static and numeric, or come with a value")
    if name in rule.columns:
        raise InputError(f"rule {str(rule)!r}: {name!r} is its event and a column.")


def check_case(rule: Rule, case: Case, columns: Mapping[str, Column]) -> None:
    """Raises InputError unless the value is a category of the column."""
    feature = columns[case.column].feature
    needs(rule, not feature.is_numeric, case.column, "coded")
    try:
        known(f"value of column {case.column!r}", case.value, feature.categories)
    except InputError as error:
        raise InputError(f"rule {str(rule)!r}: {error}") from None


def needs(rule: Rule, fits: bool, name: str, what: str) -> None:
    if not fits:
        raise InputError(f"rule {str(rule)!r}: column {name!r} must be {what}.")


def ordered(kind: str, links: Iterable[tuple[str, str]]) -> list[str]:
    """The columns of (before, after) links, each after all that come before it.

    Raises:
      InputError: the rules run in a circle.
    """
    sorter = graphlib.TopologicalSorter()
    for before, after in links:
        sorter.add(after, before)
    try:
        return list(sorter.static_order())
    except graphlib.CycleError as error:
        circle = ", ".join(error.args[1])
        raise InputError(f"{kind} rules run in a circle: {circle}.") from None


def systems(rules: tuple[Rule, ...]) -> list[list[str]]:
    """Columns linked by order rules, lower ones first; a monotone column may be alone.

    Raises:
      InputError: the order rules run in a circle.
    """
    links = [rule.ends for rule in rules if isinstance(rule, Order)]
    alone = [rule.column for rule in rules if isinstance(rule, Monotone)]
    found: list[set[str]] = []
    for link in [*links, *((name,) for name in alone)]:
        touched = [group for group in found if group & set(link)]
        found = [group for group in found if group not in touched]
        found.append(set(link).union(*touched))
    rank = dict.fromkeys([*ordered("order", links), *alone])
    return [[name for name in rank if name in group] for group in found]


def inner_bounds(
    features: Iterable[Any], bounds: Iterable[tuple[float, float]]
) -> list[tuple[float, float]]:
    """The bounds of linked columns; whole ones where one of them holds integers."""
    if not any(f.kind == "integer" for f in features):
        return list(bounds)
    whole = lambda end, to: float(to(end)) if math.isfinite(end) else end
    return [(whole(low, math.ceil), whole(high, math.floor)) for low, high in bounds]


def check_limits(rules: tuple[Rule, ...], columns: Mapping[str, Column]) -> None:
    """Raises InputError where order rules and bounds leave a column no value."""
    for names in systems(rules):
        features = [columns[name].feature for name in names]
        if not features[0].is_numeric:
            continue
        pairs = [
            (
                -math.inf if f.lower is None else f.lower,
                math.inf if f.upper is None else f.upper,
            )
            for f in features
        ]
        bounds = inner_bounds(features, pairs)
        least = {name: low for name, (low, _) in zip(names, bounds, strict=True)}
        links = [r for r in rules if isinstance(r, Order) and r.columns[0] in names]
        if any(f.kind == "integer" for f in features):
            check_margins(links)
        for name, (_, most) in zip(names, bounds, strict=True):
            below = [r for r in links if r.ends[1] == name]
            least[name] = max(
                [least[name], *(least[r.ends[0]] + r.margin for r in below)]
            )
            if least[name] > most:
                raise InputError(
                    f"rules contradict the bounds: {name!r} must be at least "
                    f"{least[name]:g} and at most {most:g}."
                )


def check_margins(links: list[Order]) -> None:
    for rule in links:
        if not float(rule.margin).is_integer():
            raise InputError(
                f"rule {str(rule)!r}: margin must be whole beside integers."
            )


def check_trends(rules: tuple[Rule, ...]) -> None:
    """Raises InputError where a column must neither fall nor rise."""
    trends = [rule.column for rule in rules if isinstance(rule, Monotone)]
    for name in trends:
        if trends.count(name) > 1:
            raise InputError(f"rules contradict: {name!r} must neither fall nor rise.")


def check_consequences(rules: tuple[Rule, ...], columns: Mapping[str, Column]) -> None:
    """Raises InputError where rules may demand two values of one coded column."""
    implied = [rule for rule in rules if isinstance(rule, Implies)]
    ordered("implies", [(r.when.column, r.then.column) for r in implied])
    set_to = [rule for rule in implied if rule.then.value is not None]
    kept = [rule for rule in rules if isinstance(rule, Monotone)]
    for one in set_to:
        name = one.then.column
        for other in kept:
            if other.column == name:
                raise InputError(f"rules contradict: {str(one)!r}, {str(other)!r}.")
        for other in set_to:
            if other.then.column != name or other.then.value == one.then.value:
                continue
            when = columns[one.when.column].part
            apart = one.when.column == other.when.column
            apart &= one.when.value != other.when.value
            apart &= when == "static" or columns[name].part == "temporal"
            if not apart:
                raise InputError(
                    f"rules contradict where both apply: {str(one)!r}, {str(other)!r}."
                )
