"""The files of result records: their paths, writing each once, and reading them. This module imports no JAX."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lra_bench.errors import UserError
from lra_bench.json_files import parse_json, read_json
from lra_bench.paths import write_atomically
from lra_bench.plain_text import shortened
from lra_bench.records.proof import contradictions
from lra_bench.records.schema import SCHEMA_VERSION, AnyRecord, Record, RobustnessRecord, WindowRecord, any_record
from lra_bench.spec import digest_of, explain

MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Functions by schema version, each of which changes a record's JSON into that of the next version.

`parse_record` applies them in turn to an older record in memory; the file stays as written.
"""


def record_path(results_dir: Path, task: str, model: str, digest: str, seed: int) -> Path:
    """Return the path of a training record. Raises UserError where a name cannot be a folder or file name."""
    return results_dir / _folder(task) / _folder(model) / f"{_folder(digest)}-s{seed}.json"


def path_of(results_dir: Path, record: AnyRecord) -> Path:
    """Return the path of a record of any kind. Raises UserError where a name cannot be a folder or file name."""
    if isinstance(record, Record):
        return record_path(results_dir, record.data.task, record.model, record.digest, record.seed)
    if isinstance(record, RobustnessRecord):
        folder = results_dir / _folder(record.data.task) / _folder(record.model)
        # The noise of a record of before has no seed of its own, and the record's name does not tell it.
        told = any(point.noise_seed is not None for point in record.points)
        noise = f"-{digest_of(record.noises)[:8]}" if told else ""
        return folder / f"robustness-{_folder(record.digest)}-s{record.seed}{noise}.json"
    if isinstance(record, WindowRecord):
        folder = results_dir / _folder(record.data.task) / _folder(record.model)
        return folder / f"window-{record.window}-{_folder(record.digest)}-s{record.seed}.json"
    return results_dir / _folder(record.task) / _folder(record.model) / f"bench-{_folder(record.digest)}.json"


def _folder(name: str) -> str:
    """Return `name` if it can be one folder or file name; otherwise raise UserError.

    The check keeps a record from elsewhere from being written outside of results/.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]*", name):
        raise UserError(
            f"{name!r} cannot name a results folder: legal are letters, digits and _ . : + -, at first no . : + -."
        )
    return name


def record_text(record: AnyRecord) -> str:
    """Return the content of the record's file."""
    return json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"


def write_record(results_dir: Path, record: AnyRecord) -> Path:
    """Write the record's file and return its path; a file that holds the same record is left alone.

    That may be in the words of an earlier version, which had fewer fields. Raises UserError where the file exists with
    another record.
    """
    path = path_of(results_dir, record)
    text = record_text(record)
    if path.exists() and (path.read_bytes() == text.encode() or _holds(path, record)):
        return path
    if path.exists():
        raise UserError(
            f"{path} already holds another result of this run, and records are never edited. Remove the one that is "
            "wrong, and type the same again, or name another folder with --results-dir."
        )
    write_atomically(path, text)
    return path


def _holds(path: Path, record: AnyRecord) -> bool:
    """Whether the file holds this record."""
    try:
        return unproved(parse_json(path.read_bytes(), path.name), path.name) == record
    except UserError:
        return False


def parse_record(text: str | bytes, name: str) -> AnyRecord:
    """Return the record that the JSON `text` holds, as `record_of` does. Raises UserError as `parse_json`, too."""
    return record_of(parse_json(text, name), name)


def record_of(value: Any, name: str) -> AnyRecord:
    """Return the record with these JSON values, migrated to this schema version. It is proved to be what it says.

    Raises UserError with `name` and the mistake where it is no record, or contradicts the package or itself.
    """
    record = unproved(value, name)
    found = contradictions(record)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UserError(f"{name} is refused: {found[0]}{more}. `lra-bench validate` lists all.")
    return record


def unproved(value: Any, name: str) -> AnyRecord:
    """Return the record with these JSON values, of which only form and size are checked. Raises as `record_of`."""
    found = value.get("schema_version") if isinstance(value, dict) else None
    while isinstance(found, int) and found in MIGRATIONS:
        value = MIGRATIONS[found](value)
        found = value["schema_version"]
    if found != SCHEMA_VERSION or isinstance(found, bool):  # JSON's true equals 1 in Python
        raise UserError(
            f"{name} has schema version {shortened(repr(found))}; this lra-bench reads version {SCHEMA_VERSION}. "
            "Use the lra-bench that wrote it, or remove it."
        )
    try:
        return any_record.validate_python(value, strict=True)
    except ValidationError as error:
        raise UserError(
            f"{name} is not a result record: {explain(error)} Another version of lra-bench may have written it."
        ) from None


def load_any(path: Path) -> AnyRecord:
    """Read one record of any kind, as `record_of` does. Raises UserError with the file's path and the mistake."""
    return record_of(read_json(path), str(path))


def load_record(path: Path) -> Record:
    """Read one training record. Raises UserError with the file's path and the mistake in it."""
    record = load_any(path)
    if not isinstance(record, Record):
        raise UserError(f"{path} is a {record.kind} record; a training record (kind train) is wanted here.")
    return record


def record_files(results_dir: Path) -> list[Path]:
    """Return the paths of all records below `results_dir`, sorted. A pipe or a link to nothing is among them, so that
    reading it says what it is."""
    found = results_dir.glob("*/*/*.json")
    return sorted(path for path in found if path.name[0] != "." and (path.is_symlink() or not path.is_dir()))
