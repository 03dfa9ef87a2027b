"""Checksums of the files of a run: written beside them as `SHA256SUMS`, in the format of `sha256sum --check`.

The folder of a saved step has one over all its files, the folder of a run one over its settings and its record. The
settings and the history in a step say that there is one, so that its loss is damage. A folder where neither says so was
written by an earlier lra-bench, and cannot be checked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from lra_bench.errors import UserError
from lra_bench.json_files import read_json
from lra_bench.paths import write_atomically

SUMS = "SHA256SUMS"
"""The name of the file of checksums."""

SETTINGS = "run.json"
"""The name of the file of a run's settings in its folder."""

HISTORY = "progress/metadata"
"""The file of a saved step that holds the history as JSON, where Orbax writes it."""

PROMISE = "has_checksums"
"""The key in either of the two that says that checksums lie in the folder."""

_LINE = re.compile(r"([0-9a-f]{64})  ([^\n]+)\n")


def files_below(folder: Path) -> list[str]:
    """The files below `folder` but for its checksums and what is hidden, as sorted relative paths."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if path.name != SUMS and not path.name.startswith("."))


def checksum_of(content: str | bytes) -> str:
    """The SHA-256 of bytes, or of a text as UTF-8, as hex digits."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def checksums_of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of each of these files, paths relative to `folder`, as hex digits."""
    return {name: _hash_of(folder / name) for name in names}


def write_checksums(folder: Path, checksums: Mapping[str, str]) -> None:
    """Write the checksums of files into their folder."""
    write_atomically(folder / SUMS, "".join(f"{found}  {name}\n" for name, found in checksums.items()))


def promised(values: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON values of settings or of a history with the promise that checksums lie beside them."""
    return {**values, PROMISE: True}


def without_promise(values: Any) -> Any:
    """Undo `promised`. Values that hold no promise are returned as they are."""
    return {key: value for key, value in values.items() if key != PROMISE} if isinstance(values, dict) else values


def recorded_checksums(folder: Path) -> dict[str, str]:
    """Return the checksums that lie in a folder, by the names of the files; none if they are missing or damaged."""
    if not has_checksums(folder):
        return {}
    content = (folder / SUMS).read_bytes().decode("utf-8", errors="replace")
    return {} if _LINE.sub("", content) else {name: expected for expected, name in _LINE.findall(content)}


def has_checksums(folder: Path) -> bool:
    """Whether the folder has checksums, so that it can be checked."""
    return (folder / SUMS).is_file()


def damage_of(folder: Path, names: Collection[str] | None = None) -> str | None:
    """What is not as when the checksums were written, such as `run.json has another SHA-256`; None where all is.

    `names` are the files to check, by default all below the folder and all that have a checksum. Without checksums
    there is nothing to compare with, which is damage only where they are promised.
    """
    if not has_checksums(folder):
        return f"{SUMS} is missing" if _promises(folder / SETTINGS) or _promises(folder / HISTORY) else None
    recorded = recorded_checksums(folder)
    if not recorded:
        return f"{SUMS} is not as it was written"
    for name in sorted({*recorded, *files_below(folder)}) if names is None else names:
        if name not in recorded:
            return f"{name} is not in {SUMS}"
        if not (folder / name).is_file():
            return f"{name} is missing"
        if _hash_of(folder / name) != recorded[name]:
            return f"{name} has another SHA-256 than when it was written"
    return None


def _promises(path: Path) -> bool:
    try:
        values = read_json(path)
    except UserError:
        return False
    return isinstance(values, dict) and values.get(PROMISE) is True


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
