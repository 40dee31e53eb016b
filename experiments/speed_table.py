"""The numbers of `experiments.speed` as rows, and rows as Markdown."""

from statistics import median
from typing import Any

TITLES = (
    *("case", "contender", "s", "CPU s", "times ours", "spread", "compile s"),
    *("peak GiB", "GFLOP", "of GEMM", "of copy", "foreign cores", "told"),
)
COMPARED = ("case", "contender", "old s", "new s", "new / old", "GEMM new / old")


def ratios(rival: list[float], ours: list[float]) -> dict[str, float] | None:
    """Median and ends of rival / ours over the rounds that both ended; None if none."""
    each = [a / b for a, b in zip(rival, ours) if b > 0]
    if not each:
        return None
    return {"median": median(each), "low": min(each), "high": max(each)}


def rows_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a contender of a case; the first is what the ratios divide by."""
    contenders, by = found["contenders"], found["by"]
    ours = contenders[0][by] if by else []
    rows = [row_of(found, entry, ours) for entry in contenders]
    for quoted in found["quoted"]:
        ratio = quoted["value"] / median(ours) if ours else None
        rows.append(
            {
                "case": found["case"],
                "contender": quoted["name"],
                by: quoted["value"],
                "ratio": ratio and {"median": ratio, "low": None, "high": None},
                "reason": f"quoted: {quoted['source']}",
            }
        )
    return rows


def row_of(
    found: dict[str, Any], entry: dict[str, Any], ours: list[float]
) -> dict[str, Any]:
    """Medians of a contender; seconds are of one step or call, shares of the whole."""
    row = {"case": found["case"], "contender": entry["name"], "reason": entry["reason"]}
    if not entry["seconds"]:
        return row
    seconds, per = median(entry["seconds"]), found["per"]
    gemm, copy = (median(rates or [0.0]) for rates in rates_of(found))
    share = lambda work, rate: work / seconds / rate if work and rate else None
    foreign = [load for load in entry["foreign"] if load is not None]
    return row | {
        "seconds": seconds / per,
        "cpu": median(entry["cpu"]) / per,
        "ratio": ratios(entry[found["by"]], ours) if found["by"] else None,
        # The first piece of work held it too; noise must not make it negative.
        "compile": max(entry["first"] - seconds, 0.0),
        "peak": entry["peak"],
        "flop": entry["flop"] and entry["flop"] / per,
        "bytes": entry["bytes"] and entry["bytes"] / per,
        "of_gemm": share(entry["flop"], gemm),
        "of_copy": share(entry["bytes"], copy),
        "foreign": median(foreign) if foreign else None,
        "foreign_most": max(foreign, default=None),
        "told": entry["told"][-1],
    }


def rates_of(found: dict[str, Any]) -> tuple[list[float], list[float]]:
    """FLOP/s and bytes/s of the machine, a number a round."""
    return found["machine"]["gemm"], found["machine"]["copy"]


def table(rows: list[dict[str, Any]]) -> str:
    """All rows as a Markdown table."""
    return markdown(TITLES, [cells(row) for row in rows])


def cells(row: dict[str, Any]) -> list[str]:
    """One line of the table; empty where a number is not known."""
    ratio = row.get("ratio") or {}
    low, high = ratio.get("low"), ratio.get("high")
    spread = f"{low:.2f} to {high:.2f}" if low is not None and high is not None else ""
    scaled = lambda name, unit: row[name] / unit if row.get(name) else None
    foreign = number(row.get("foreign"))
    if row.get("foreign_most") is not None:
        foreign += f" (at most {row['foreign_most']:.2f})"
    return [
        row["case"],
        row["contender"],
        number(row.get("seconds")),
        number(row.get("cpu")),
        number(ratio.get("median")),
        spread,
        number(row.get("compile")),
        number(scaled("peak", 2**30)),
        number(scaled("flop", 1e9)),
        percent(row.get("of_gemm")),
        percent(row.get("of_copy")),
        foreign,
        row.get("reason") or words(row.get("told") or {}),
    ]


def words(told: dict[str, Any]) -> str:
    """What a contender told of its result; lists stay in the JSON."""
    said = {name: value for name, value in told.items() if not isinstance(value, list)}
    show = lambda value: number(value) if isinstance(value, float) else str(value)
    return ", ".join(f"{name} {show(value)}" for name, value in said.items())


def number(value: float | None) -> str:
    """Three digits, without an exponent where there is room."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def percent(value: float | None) -> str:
    return "" if value is None else f"{100.0 * value:.0f} %"


def machine_line(found: dict[str, Any]) -> str:
    """What a case is; the rates of the machine in its rounds, and how they spread."""
    name = f"{found['case']} ({found['text']})"
    if not found["machine"]["gemm"]:
        return f"{name}: machine not measured: {found['machine_reason']}"
    told = []
    for what, rates, unit in zip(
        ("GEMM", "copy"), rates_of(found), ("GFLOP/s", "GB/s"), strict=True
    ):
        low, mid, high = (number(f(rates) / 1e9) for f in (min, median, max))
        told.append(f"{what} {mid} {unit} ({low} to {high})")
    return f"{name}: {', '.join(told)}"


def compare(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Medians of two runs side by side; seconds by the clock.

    Of what both hold at one size: other sizes are other work.
    """
    before = {(row["case"], row["contender"]): row for row in old["rows"]}
    gemm = {
        name: {one["case"]: median(one["machine"]["gemm"] or [0.0]) for one in run}
        for name, run in (("old", old["cases"]), ("new", new["cases"]))
    }
    size = lambda run: {one["case"]: one["sizes"] for one in run["cases"]}
    asked, lines = size(old), []
    alike = [name for name, sizes in size(new).items() if asked.get(name) == sizes]
    for row in (row for row in new["rows"] if row["case"] in alike):
        was = before.get((row["case"], row["contender"]), {}).get("seconds")
        now, case = row.get("seconds"), row["case"]
        if was and now:
            speed = gemm["old"].get(case)
            machine = gemm["new"][case] / speed if speed else None
            lines.append(
                [case, row["contender"], *map(number, (was, now, now / was, machine))]
            )
    return markdown(COMPARED, lines) if lines else "nothing to compare"


def markdown(titles: tuple[str, ...], lines: list[list[str]]) -> str:
    """A table: two columns of words, numbers, and words in a column called told."""
    marks = ["---" if i < 2 or t == "told" else "---:" for i, t in enumerate(titles)]
    rows = [list(titles), marks, *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
