"""Manifests that say something else, as a `prepare` with a mistake in it would have written them: hashes that fit."""

import json

from lra_bench.data.manifest import FILE, Manifest, PackedFile, fingerprint_of, manifest_text
from lra_bench.paths import write_atomically


def rewrite_manifest(folder, **changes):
    """Change fields of a prepared folder's manifest, and its fingerprint and SHA-256 with them."""
    values = json.loads((folder / FILE).read_text()) | changes
    values["packed"] = [PackedFile.model_validate(file) for file in values["packed"]]
    told = Manifest.model_construct(**values)
    fingerprint = fingerprint_of(told.task, told.version, told.protocol, told.layout, told.packed)
    write_atomically(folder / FILE, manifest_text(Manifest.model_validate(values | {"fingerprint": fingerprint})))
