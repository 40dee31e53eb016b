"""Texts that stand among the numbers of a CSV column, and what to do about them."""

from jaxehr.data.columns import listing
from jaxehr.data.raw_tables import (
    CSV,
    Raw,
    Rule,
    finite,
    not_finite,
    number,
    refuse_any,
    scalar,
)

NUMERIC_SHARE = 0.9  # a text column with this share of numbers is meant to be numeric
MOST_ODD = 2  # and so is one with so few distinct texts among its numbers
FORMS = {"commas": r"^[+-]?[0-9]+,[0-9]+$", "limits": r"^[<>]=? *[0-9]+[.]?[0-9]*$"}
EMPTY = "Leave the cell empty for a missing value, or add its text to --missing-values."
WORDS = "if the column holds words or codes, name it in --text-columns."
RULES = {
    "commas": (
        "numbers are written with a decimal point and without other signs",
        f"Write 36.6 for 36,6 and 1234 for 1,234; {WORDS}",
    ),
    "limits": (
        "values must be numbers, not limits of what could be measured",
        f"Write the number that stands for it, such as 0.05 or 0.1 for <0.1; {WORDS}",
    ),
}


def empty(raw: Raw, name: str) -> str:
    """How a missing number is written in the file."""
    return EMPTY if raw.types[name] == CSV else "Write null for a missing value."


def refuse_strange(raw: Raw, name: str) -> None:
    """Raises InputError with the first NaN or infinity."""
    bad = not_finite(number(raw, name))
    refuse_any(raw, [Rule(name, bad, "values must be finite", empty(raw, name))])


def refuse_forms(raw: Raw, name: str, found: dict[str, int]) -> None:
    """Raises InputError when half of the values are numbers, some in another form.

    Limits are only among plain numbers: `<65` and `>=65` alone are groups.
    """
    for form, (rule, advice) in RULES.items():
        count, numbers = found[form], found["numbers"]
        if form == "limits" and not numbers:
            continue
        if count and 2 * (count + numbers) >= found["seen"]:
            bad = raw.table[name].re_search(FORMS[form])
            refuse_any(raw, [Rule(name, bad, rule, advice)])


def refuse_odd(raw: Raw, name: str, zeros: bool, numbers: int, seen: int) -> None:
    """Raises InputError when most values, or most distinct values, are numbers.

    Args:
      zeros: whether some have leading zeros, as codes have.
      numbers, seen: how many values are numbers, and how many there are.
    """
    most = numbers >= NUMERIC_SHARE * seen and not zeros
    odd = odd_values(raw, name) if numbers else []
    if most or odd:
        rule = f"values must be numbers as {numbers} of {seen} are"
        advice = f"Not a number: {listing(odd)}. " if odd else ""
        advice += "Add what means a missing value to --missing-values; " + WORDS
        bad = raw.table[name].notnull() & ~finite(number(raw, name))
        refuse_any(raw, [Rule(name, bad, rule, advice)])


def odd_values(raw: Raw, name: str) -> list[str]:
    """The distinct texts among numbers if one or two, and numbers at least as many."""
    rows = raw.table.select(text=raw.table[name], odd=~finite(number(raw, name)))
    rows = rows.filter(rows["text"].notnull()).distinct()
    numbers = scalar((~rows.odd).sum())
    texts = rows.filter(rows.odd).limit(MOST_ODD + 1).to_pyarrow()["text"].to_pylist()
    return sorted(texts) if len(texts) <= min(MOST_ODD, numbers) else []
