"""The files of result records: their paths, writing each once, and reading them. This module imports no JAX."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lra_bench.errors import UserError
from lra_bench.paths import write_atomically
from lra_bench.records.schema import SCHEMA_VERSION, AnyRecord, Record, RobustnessRecord, any_record
from lra_bench.spec import explain

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
        return folder / f"robustness-{_folder(record.digest)}-s{record.seed}.json"
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
    """Write the record's file and return its path; a file with the same content is left alone.

    Raises UserError where the file exists with other content.
    """
    path = path_of(results_dir, record)
    text = record_text(record)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return path
    if path.exists():
        raise UserError(f"{path} already holds another result of this run. Records are never edited: remove it first.")
    write_atomically(path, text)
    return path


def parse_record(text: str, name: str) -> AnyRecord:
    """Return the record that the JSON `text` holds, migrated to this schema version.

    Raises UserError with `name` and the mistake where the text is no record.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{name} is not JSON: {error}.") from None
    found = data.get("schema_version") if isinstance(data, dict) else None
    while isinstance(found, int) and found in MIGRATIONS:
        data = MIGRATIONS[found](data)
        found = data["schema_version"]
    if found != SCHEMA_VERSION or isinstance(found, bool):  # JSON's true equals 1 in Python
        raise UserError(
            f"{name} has schema version {found!r}; this lra-bench reads version {SCHEMA_VERSION}. "
            "Use the lra-bench that wrote it, or remove it."
        )
    try:
        return any_record.validate_python(data)
    except ValidationError as error:
        raise UserError(
            f"{name} is not a result record: {explain(error)} Another version of lra-bench may have written it; "
            "`report --skip-unreadable` leaves it out."
        ) from None


def load_any(path: Path) -> AnyRecord:
    """Read one record of any kind. Raises UserError with the file's path and the mistake in it."""
    try:
        return parse_record(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError:
        raise UserError(f"{path} is not JSON: it is not UTF-8 text.") from None


def load_record(path: Path) -> Record:
    """Read one training record. Raises UserError with the file's path and the mistake in it."""
    record = load_any(path)
    if not isinstance(record, Record):
        raise UserError(f"{path} is a {record.kind} record; a training record (kind train) is wanted here.")
    return record


def record_files(results_dir: Path) -> list[Path]:
    """Return the paths of all records below `results_dir`, sorted."""
    return sorted(path for path in results_dir.glob("*/*/*.json") if path.is_file() and path.name[0] != ".")
