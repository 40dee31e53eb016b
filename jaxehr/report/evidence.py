"""The sections a governance board reads first: what attacks learn, and from whom."""

from jaxehr.core.contracts import Result
from jaxehr.report import words
from jaxehr.report.page import Rows, Section
from jaxehr.report.template import metric_row


def privacy(results: list[Result]) -> Section | None:
    """Every number of every attack beside both controls; who the attacker is."""
    made = words.attacks(results)
    if not made:
        return None
    rows = []
    for result in made:
        shown = metric_row(result)
        cells = [shown[name] for name in ("value", "interval", "reference")]
        rows.append([result.definition.title, *cells, words.control(result)])
    head = ["Attack", "Synthetic", "Interval", "Fresh real patients", "Copies of real"]
    text = [
        "Each attack is made three times: on the synthetic patients; on fresh real "
        "patients in their place, who give nothing away; and on copies of training "
        "patients, whom it has to recognise, or it is too weak to show anything.",
    ]
    attackers = [
        [name, threat]
        for name, threat in dict.fromkeys(
            (r.definition.title.split(":")[0], words.threat(r)) for r in made
        )
    ]
    blocks = [
        Rows("What attacks learn of training patients", head, rows),
        Rows("Who attacks", ["Attack", "The attacker"], attackers, numeric=False),
    ]
    return Section("privacy", "Privacy by attack", text, blocks)
