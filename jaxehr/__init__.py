"""Synthetic patients from static and time-series health records, on JAX.

The names below load their modules on first use, so that `import jaxehr` stays fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxehr.api import Audit as Audit
    from jaxehr.api import Report as Report
    from jaxehr.api import audit as audit
    from jaxehr.api import evaluate as evaluate
    from jaxehr.api import read_tables as read_tables
    from jaxehr.core.checks import InputError as InputError
    from jaxehr.data.enforce import enforce_rules as enforce_rules
    from jaxehr.data.split import split as split
    from jaxehr.data.store import load_cohort as load_cohort
    from jaxehr.data.store import save_cohort as save_cohort
    from jaxehr.runs import load_run as load
    from jaxehr.runs import make as make
    from jaxehr.runs import sample_run as sample
    from jaxehr.runs import save_run as save
    from jaxehr.runs import train_run as train

_PUBLIC = {
    "Audit": "jaxehr.api:Audit",
    "InputError": "jaxehr.core.checks:InputError",
    "Report": "jaxehr.api:Report",
    "audit": "jaxehr.api:audit",
    "enforce_rules": "jaxehr.data.enforce:enforce_rules",
    "evaluate": "jaxehr.api:evaluate",
    "load": "jaxehr.runs:load_run",
    "load_cohort": "jaxehr.data.store:load_cohort",
    "make": "jaxehr.runs:make",
    "read_tables": "jaxehr.api:read_tables",
    "sample": "jaxehr.runs:sample_run",
    "save": "jaxehr.runs:save_run",
    "save_cohort": "jaxehr.data.store:save_cohort",
    "split": "jaxehr.data.split:split",
    "train": "jaxehr.runs:train_run",
}

__all__ = [
    "Audit",
    "InputError",
    "Report",
    "audit",
    "enforce_rules",
    "evaluate",
    "load",
    "load_cohort",
    "make",
    "read_tables",
    "sample",
    "save",
    "save_cohort",
    "split",
    "train",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'jaxehr' has no attribute {name!r}")
    module, attribute = _PUBLIC[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
