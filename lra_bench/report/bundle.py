"""Records to hand on: packed with tables and recipes for a pull request or an appendix, validated on the way in."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection
from hashlib import sha256
from pathlib import Path
from typing import Any

from lra_bench import UserError
from lra_bench.report import tables_of
from lra_bench.report.choose import Loaded, load, model_name
from lra_bench.results import (
    BenchRecord,
    RobustnessRecord,
    load_any,
    parse_record,
    path_of,
    write_record,
)
from lra_bench.validation import check_record, validate

MANIFEST = "MANIFEST.json"
FORMAT = 1
LARGEST_FILE, LARGEST_BUNDLE = 16 * 2**20, 512 * 2**20
_EPOCH = (1980, 1, 1, 0, 0, 0)


def bundle(results_dir: Path, out: Path, *, models: Collection[str] = (), tasks: Collection[str] = ()) -> Path:
    """Pack the records of these models and tasks (all where none are named), their tables and recipes into a zip file.

    The same records give the same bytes. Raises UserError where nothing is chosen or `validate` finds an error in it.
    """
    loaded, _ = load(results_dir)
    wanted = {model_name(model) for model in models}
    chosen = [
        item
        for item in loaded
        if (not wanted or model_name(item.record.model) in wanted) and (not tasks or _task(item) in tasks)
    ]
    if not chosen:
        raise UserError(
            f"No record in {results_dir} is of these models and tasks. `lra-bench ls runs` shows what is there."
        )
    names = {f"{item.id}.json" for item in chosen}
    errors = [problem for problem in validate(results_dir) if problem.severity == "error" and problem.file in names]
    if errors:
        raise UserError(f"These records cannot be shared as they are: {'; '.join(map(str, errors[:5]))}.")
    content = {f"records/{item.id}.json": (results_dir / f"{item.id}.json").read_bytes() for item in chosen}
    content |= {f"recipes/{name}": text.encode() for name, text in _recipes(chosen).items()}
    for name, made in tables_of(chosen).files.items():
        content[f"tables/{name}"] = made.encode() if isinstance(made, str) else made
    sums = {name: sha256(data).hexdigest() for name, data in sorted(content.items())}
    content[MANIFEST] = (json.dumps({"format": FORMAT, "sha256": sums}, indent=1) + "\n").encode()
    out.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(content.items()):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return out


def receive(bundle_file: Path, results_dir: Path) -> list[Path]:
    """Take the new records of a bundle over into `results_dir`; all of them or, where one is not sound, none.

    Only records are read from it: tables are made anew here. Raises UserError for a file that is no bundle, a checksum
    that does not match, a record with an error, or one that differs from the same run's record here.
    """
    records = []
    for name, data in _checked(bundle_file).items():
        record = parse_record(data.decode("utf-8", errors="replace"), f"{bundle_file}, {name}")
        errors = [message for severity, message in check_record(record) if severity == "error"]
        if errors:
            raise UserError(f"{bundle_file}, {name}: {'; '.join(errors)}. Nothing was taken over.")
        path = path_of(results_dir, record)
        if name != f"records/{path.relative_to(results_dir).as_posix()}":
            raise UserError(f"{bundle_file}, {name}: its content belongs into {path.name}. Nothing was taken over.")
        if path.exists() and load_any(path) != record:
            raise UserError(f"{path} already holds another result of this run. Nothing was taken over.")
        records.append(record)
    new = [record for record in records if not path_of(results_dir, record).exists()]
    return [write_record(results_dir, record) for record in new]


def _checked(bundle_file: Path) -> dict[str, bytes]:
    """The record files of the bundle, each as its checksum says, none too large to be one."""
    try:
        with zipfile.ZipFile(bundle_file) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
            if sum(sizes.values()) > LARGEST_BUNDLE or max(sizes.values(), default=0) > LARGEST_FILE:
                raise UserError(f"{bundle_file} is larger than any bundle of records. Nothing was taken over.")
            manifest: Any = json.loads(archive.read(MANIFEST))
            names = sorted(name for name in sizes if name.startswith("records/") and not name.endswith("/"))
            content = {name: archive.read(name) for name in names}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{bundle_file} is no bundle of `lra-bench report --bundle`: {error}.") from None
    sums = manifest.get("sha256") if isinstance(manifest, dict) and manifest.get("format") == FORMAT else None
    if not isinstance(sums, dict):
        raise UserError(f"{bundle_file} is no bundle this lra-bench reads: {MANIFEST} is not of format {FORMAT}.")
    for name, data in content.items():
        if sums.get(name) != sha256(data).hexdigest():
            raise UserError(
                f"{bundle_file}, {name}: its checksum is not the one in {MANIFEST}. Nothing was taken over."
            )
    return content


def _task(item: Loaded) -> str:
    return item.record.task if isinstance(item.record, BenchRecord) else item.record.data.task


def _recipes(chosen: Collection[Loaded]) -> dict[str, str]:
    """Each configuration's recipe once, by task, model and digest."""
    found = {}
    for item in chosen:
        if not isinstance(item.record, RobustnessRecord):
            recipe = item.record.recipe.model_dump(mode="json")
            name = f"{_task(item)}-{model_name(item.record.model)}-{item.record.digest}.json"
            found[name] = json.dumps(recipe, indent=1, sort_keys=True) + "\n"
    return found
