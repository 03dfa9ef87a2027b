"""Manifests that say something else than `prepare` wrote, with hashes that fit."""

import hashlib
import json

from lra_bench.data.manifest import FILE, Manifest, PackedFile, fingerprint_of
from lra_bench.paths import write_atomically


def write_fields(folder, **changes):
    """Change fields of a prepared folder's manifest, and its SHA-256 with them, whatever they then claim."""
    values = json.loads((folder / FILE).read_text()) | changes
    del values["manifest_sha256"]
    found = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    write_atomically(folder / FILE, json.dumps(values | {"manifest_sha256": found}))


def rewrite_manifest(folder, **changes):
    """Change fields as a `prepare` with a mistake in it would have written them: the fingerprint fits as well."""
    values = json.loads((folder / FILE).read_text()) | changes
    values["packed"] = [PackedFile.model_validate(file) for file in values["packed"]]
    told = Manifest.model_construct(**values)
    write_fields(
        folder, **changes, fingerprint=fingerprint_of(told.task, told.version, told.protocol, told.layout, told.packed)
    )
