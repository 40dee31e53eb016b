"""Tables of a BigQuery data set, where PhysioNet hosts MIMIC and eICU.

The queries are those of the other engines. Tables are not files: they are known by
project.dataset.table, the time of their last change and their number of rows.
"""

import importlib
from typing import Any

import ibis

from jaxehr.core.checks import InputError
from jaxehr.data.columns import listing

SCOPES = ("https://www.googleapis.com/auth/bigquery",)
# A time without a zone is DATETIME there, which has no number of seconds; UTC has.
TIME = "timestamp('UTC')"


def connect_bigquery(project: str) -> Any:
    """An Ibis backend that bills `project`, for the person logged in.

    Raises:
      InputError: the packages are not installed, or nobody is logged in.
    """
    try:
        auth: Any = importlib.import_module("google.auth")
        importlib.import_module("google.cloud.bigquery")
    except ImportError:
        raise InputError(
            "engine bigquery: its packages are not installed; run: pip install "
            '"jaxehr[bigquery]".'
        ) from None
    try:
        # Ibis itself would open a browser.
        credentials, _ = auth.default(scopes=SCOPES)
    except auth.exceptions.DefaultCredentialsError as error:
        raise InputError(
            "engine bigquery: nobody is logged in; run: gcloud auth "
            "application-default login."
        ) from error
    return ibis.bigquery.connect(project_id=project, credentials=credentials)


def check_dataset(paths: Any) -> str:
    """The one data set PROJECT.DATASET that `paths` name.

    Raises:
      InputError: several, or another form.
    """
    names = [str(path) for path in paths]
    if len(names) != 1 or len(names[0].split(".")) != 2 or "/" in names[0]:
        raise InputError(
            f"{', '.join(names)}: engine bigquery needs one data set, PROJECT.DATASET, "
            "e.g. physionet-data.mimiciii_clinical."
        )
    return names[0]


def open_table(backend: Any, dataset: str, name: str) -> tuple[str, Any]:
    """The full name of a table, and the table with column names in lower case.

    Raises:
      InputError: no such table.
    """
    names = backend.list_tables(database=dataset)
    found = [other for other in names if other.lower() == name.lower()]
    if not found:
        raise InputError(
            f"{dataset}: table {name} is missing; there are: "
            f"{listing(sorted(names), 40)}."
        )
    table = backend.table(found[0], database=dataset)
    return f"{dataset}.{found[0]}", table.rename(
        {column.lower(): column for column in table.columns}
    )


def state_of(backend: Any, table: str) -> dict[str, Any]:
    """What tells whether a table has changed: the time of its last change, its rows."""
    found = backend.client.get_table(table)
    return {
        "table": table,
        "modified": found.modified.isoformat(),
        "rows": int(found.num_rows),
    }
