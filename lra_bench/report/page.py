"""The page report.html: tables that sort and filter, the pictures, and the details of the records behind every cell.

The page is one file that makes no request. Its content security policy allows only our own script and style, by their
hashes. jinja2 escapes text from records, and the script inserts it with `textContent`.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from lra_bench.records.schema import AnyRecord, BenchRecord, Record, RobustnessRecord, Timing
from lra_bench.registry import cli_name, has_official_contents, task_title
from lra_bench.report.drawing import Picture, thinned
from lra_bench.report.select import Loaded, settings_of
from lra_bench.report.speed import number
from lra_bench.report.table import ABSENT, Cell, Table, tables_with

_PICTURES = re.compile(r"<!-- pictures:.*?<!-- end of pictures -->", re.DOTALL)

Facts = list[tuple[str, str]]
"""Labels and values, in the order in which the page shows them."""


def page(tables: Sequence[Table], loaded: Sequence[Loaded], pictures: Sequence[Picture]) -> str:
    """Return the page as HTML; the same records and pictures give the same bytes."""
    package = files("lra_bench.report")
    template, style, script = (
        package.joinpath(f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    numbers = {item.id: i for i, item in enumerate(loaded)}
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["base64"] = lambda text: b64encode(text.encode()).decode()
    return environment.from_string(template).render(
        tables=[_with_run_numbers(table, numbers) for table in tables],
        pictures=pictures,
        folded=tables_with("folded"),
        summary=f"Made by lra-bench from {len(loaded)} records, and quoted numbers from papers.",
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        data=_json(_page_data(loaded)),
    )


def without_pictures(text: str) -> str:
    """Return the page without its pictures, whose bytes depend on the version of matplotlib."""
    return _PICTURES.sub("", text)


def _hash(text: str) -> str:
    """Return the hash of a script or style as a content security policy names it."""
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()


def _json(value: object) -> str:
    """Return JSON that cannot end the script element that contains it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _with_run_numbers(table: Table, numbers: dict[str, int]) -> Table:
    """Return the table with numbers for the ids in `Cell.runs`; ids of files that could not be read are dropped."""

    def numbered(cell: Cell) -> Cell:
        runs = tuple(str(numbers[run]) for run in cell.runs if run in numbers)
        return replace(cell, runs=runs) if cell.runs else cell

    blocks = [replace(block, rows=tuple(tuple(map(numbered, row)) for row in block.rows)) for block in table.blocks]
    return replace(table, blocks=tuple(blocks))


def _page_data(loaded: Sequence[Loaded]) -> dict[str, Any]:
    """Return the details of all records in order, and each recipe once.

    The script page.js calls the details of a record a run, whatever the kind of the record.
    """
    recipes: dict[str, int] = {}
    runs = []
    for item in loaded:
        record = item.record
        run: dict[str, Any] = {"id": item.id, "recipe": None, "curve": [], "published": None}
        if isinstance(record, RobustnessRecord):
            run |= _robustness(record)
        else:
            recipe = json.dumps(_recipe_facts(record))
            run["recipe"] = recipes.setdefault(recipe, len(recipes))
            run |= _training(record) if isinstance(record, Record) else _bench(record)
        run["command"] = record.provenance.command
        run["sections"] += [
            ("Device and software", _system(record)),
            ("Provenance", [*_provenance(record), ("File", f"{item.id}.json")]),
        ]
        runs.append(run)
    return {"runs": runs, "recipes": [json.loads(recipe) for recipe in recipes]}


def _training(record: Record) -> dict[str, Any]:
    """Return title, sections and curve of a training record."""
    accuracy, speed, data = record.accuracy, record.throughput, record.data
    official = has_official_contents(data.task, data.protocol, data.fingerprint)
    chosen = {"val": "best on validation", "test": "best on the test set"}[accuracy.selection]
    result: Facts = [
        ("Status", record.status),
        ("Test accuracy", f"{_percent(accuracy.test)} ({chosen}, epoch {number(accuracy.best_epoch)})"),
        ("Best validation", _percent(accuracy.best_val)),
        ("Last step", f"test {_percent(accuracy.last_test)}, validation {_percent(accuracy.last_val)}"),
        ("Majority class", _percent(accuracy.majority)),
        ("Published", "not known" if record.recipe.published is None else f"{record.recipe.published:.2f} %"),
        ("Parameters", f"{record.parameters:,}"),
        (
            "Training",
            f"{speed.steps:,} steps in {number(speed.train_seconds)} s, compilation {number(speed.compile_seconds)} s",
        ),
        ("Throughput", f"{number(speed.examples_per_second_per_device)} examples/s/device"),
        ("Overrides", settings_of(record.overrides) or "none"),
    ]
    examples: Facts = [
        ("Task", f"{task_title(data.task)} {data.version}, protocol {data.protocol}"),
        ("Source", f"{data.source}, size {data.size}{', official contents' if official else ''}"),
        ("Examples", ", ".join(f"{split} {count:,}" for split, count in data.counts.items())),
        ("Fingerprint", data.fingerprint),
    ]
    curve = [(_short(point.epoch), _short(100 * point.val_accuracy)) for point in thinned(record.curve, 60)]
    name = f"{cli_name(record.model)}, {task_title(data.task)}, seed {record.seed}: {_percent(accuracy.test)}"
    sections = [("Result", result), ("Data", examples)]
    if record.note:
        sections.append(("Note", [("Note", record.note)]))
    return {"title": name, "sections": sections, "curve": curve, "published": record.recipe.published}


def _bench(record: BenchRecord) -> dict[str, Any]:
    """Return title and sections of a bench record."""
    rows: Facts = [
        (f"{measured.call}, {measured.input}", _timing(measured.seconds)) for measured in record.measurements
    ]
    counts = {"Length": record.length, "Batch": record.batch_size, "Parameters": record.parameters}
    shape: Facts = [(name, f"{count:,}") for name, count in counts.items()]
    name = f"{cli_name(record.model)}, {task_title(record.task)}, L = {record.length:,}, {record.system.device_kind}"
    return {"title": name, "sections": [("Shape", shape), ("Measured", rows)]}


def _timing(seconds: Timing) -> str:
    """Return the median and interquartile range in milliseconds, and how they were measured."""
    spread = number(1000 * (seconds.q3 - seconds.q1))
    how = f"{seconds.windows} windows of {seconds.calls} calls after {seconds.warmup}"
    return f"{number(1000 * seconds.median)} ms, IQR {spread} ms ({how})"


def _robustness(record: RobustnessRecord) -> dict[str, Any]:
    """Return title and sections of a robustness record."""
    rows: Facts = [("Clean", _percent(record.clean)), ("Majority class", _percent(record.majority))]
    rows += [
        (f"ω = {point.frequency:g}, amplitude {point.amplitude:g}", _percent(point.accuracy)) for point in record.points
    ]
    name = f"{cli_name(record.model)}, {task_title(record.data.task)}, seed {record.seed}, Fourier-mode noise"
    return {"title": name, "sections": [("Test accuracy", rows)]}


def _recipe_facts(record: Record | BenchRecord) -> Facts:
    """Return the fields of the recipe that are not empty."""
    fields = record.recipe.model_dump(mode="json")
    return [
        (key, value if isinstance(value, str) else json.dumps(value)) for key, value in fields.items() if value != ""
    ]


def _system(record: AnyRecord) -> Facts:
    system = record.system
    versions = ", ".join(f"{name} {version}" for name, version in sorted(system.versions.items()))
    return [
        ("Device", f"{system.devices} × {system.device_kind} ({system.platform}), {system.processes} process(es)"),
        ("Host", f"{system.cpu}, {system.cores} cores, {system.memory_gib:.0f} GiB, {system.os}"),
        ("Precision", f"{system.precision}, matrix products {system.matmul_precision}"),
        ("Software", f"Python {system.python}, {versions}"),
    ]


def _provenance(record: AnyRecord) -> Facts:
    origin = record.provenance
    commit = origin.git_commit or "not known"
    return [
        ("lra-bench", origin.lra_bench_version),
        ("Commit", commit + (" with uncommitted changes" if origin.git_dirty else "")),
        ("Finished", origin.finished),
        ("Digest", record.digest),
    ]


def _percent(share: float | None) -> str:
    return ABSENT if share is None else f"{100 * share:.2f} %"


def _short(value: float) -> float:
    """Round to three decimals, which keeps the page's curves small."""
    return round(value, 3)
