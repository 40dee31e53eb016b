"""What a cohort is known by: a hash of its schema, its people and every value.

The hash is made of one digest a patient, in the order of the cohort, so that it can be
computed shard after shard and is the same in memory and on disk. Persons count where
stays have them: they decide who is held out.
"""

import hashlib
import json

import numpy as np

from jaxehr.core.cohort import Cohort, Dataset, Schema, cleared
from jaxehr.core.sparse import SparseTable
from jaxehr.data.schema_json import schema_to_json
from jaxehr.data.shards import Shards, pieces

DIGEST = 16  # bytes


def fingerprint(data: Dataset) -> str:
    """The hash of a cohort in memory; rules of the schema do not count."""
    return combined(data.schema, data.ids, data.groups, patient_digests(data.cohort))


def fingerprint_of_shards(shards: Shards) -> str:
    """The same of a cohort in shards, with one shard in memory at a time."""
    found = np.zeros((len(shards.ids), DIGEST), np.uint8)
    for data, rows in pieces(shards):
        found[rows] = patient_digests(data.cohort)
    return combined(shards.schema, shards.ids, shards.groups, found)


def combined(
    schema: Schema, ids: np.ndarray, groups: np.ndarray, digests: np.ndarray
) -> str:
    written = schema_to_json(schema)
    del written["rules"]
    whole = hashlib.sha256(json.dumps(written).encode())
    whole.update(digests.tobytes())
    stays, persons = ("\0".join(map(str, names)) for names in (ids, groups))
    whole.update(stays.encode())
    if persons != stays:
        whole.update(f"\0\0{persons}".encode())
    return whole.hexdigest()[:16]


def patient_digests(cohort: Cohort) -> np.ndarray:
    """UInt8 [N, 16]: a digest of everything that is known of each patient.

    What stands beside a missing cell or in the padding does not count.
    """
    cohort = cleared(cohort)
    series = cohort.temporal
    thin = isinstance(series, SparseTable)
    leaves = [*cohort.static, *(() if thin else series), *cohort[2:]]
    leaves = [np.ascontiguousarray(leaf) for leaf in leaves]
    found = np.zeros((len(cohort.label), DIGEST), np.uint8)
    for i in range(len(found)):
        digest = hashlib.blake2b(digest_size=DIGEST)
        for leaf in leaves:
            digest.update(leaf[i].tobytes())
        if thin:
            cells = series.cells[series.offsets[i] : series.offsets[i + 1]]
            digest.update(cells.tobytes())
        found[i] = np.frombuffer(digest.digest(), np.uint8)
    return found
