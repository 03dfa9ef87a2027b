"""The page report.html: tables that sort and filter, the pictures, and the details of the records behind every cell.

The page is one file that makes no request. Its content security policy allows only our own script and style, by their
hashes. jinja2 escapes text from records, and the script inserts it with `textContent`.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from lra_bench.records.schema import AnyRecord, BenchRecord, NoisePoint, Record, RobustnessRecord, Timing, WindowRecord
from lra_bench.registry import cli_name, has_official_contents, model_title, task_title
from lra_bench.report.drawing import Picture, thinned
from lra_bench.report.page_tables import breakable, is_word, shown_tables
from lra_bench.report.published import published
from lra_bench.report.select import Loaded, settings_of
from lra_bench.report.speed import number
from lra_bench.report.table import ABSENT, MARKS, Table, parts, rounded, tables_with

_PICTURES = re.compile(r"<!-- pictures:.*?<!-- end of pictures -->", re.DOTALL)

POINTS = 40
"""The most points of a curve on the page."""

Facts = list[tuple[str, str]]
"""Labels and values, in the order in which the page shows them."""


def page(tables: Sequence[Table], loaded: Sequence[Loaded], pictures: Sequence[Picture]) -> str:
    """Return the page as HTML; the same records and pictures give the same bytes."""
    package = files("lra_bench.report")
    template, style, *scripts = (
        package.joinpath(name).read_text(encoding="utf-8")
        for name in ("page.html", "page.css", "page_tables.js", "page.js")
    )
    script = "".join(scripts)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"parts": parts, "is_word": is_word, "breakable": breakable}
    environment.filters["base64"] = lambda text: b64encode(text.encode()).decode()
    return environment.from_string(template).render(
        tables=shown_tables(tables, loaded),
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


def with_links(text: str, files: Mapping[str, str]) -> str:
    """Return the page with links to files beside it, from their names to the texts of the links."""
    links = "".join(f'<a href="{name}">{title}</a>' for name, title in files.items())
    return text.replace("</header>", f'<nav aria-label="Files">{links}</nav></header>', 1)


def _hash(text: str) -> str:
    """Return the hash of a script or style as a content security policy names it."""
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()


def _json(value: object) -> str:
    """Return JSON that cannot end the script element that contains it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


class _Once:
    """A list in which each value stands once, so that the page says what many records share only once."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def place(self, value: object) -> int:
        """Return the place of the value, which is appended where it is not there yet."""
        return self._places.setdefault(json.dumps(value), len(self._places))

    @property
    def values(self) -> list[Any]:
        """The values in order."""
        return [json.loads(text) for text in self._places]


def _page_data(loaded: Sequence[Loaded]) -> dict[str, Any]:
    """Return the details of all records in order. Their sections name lists of `labels` and `values` by place.

    The script page.js calls the details of a record a run, whatever the kind of the record.
    """
    labels, values, epochs = _Once(), _Once(), _Once()
    runs = []
    for item in loaded:
        record = item.record
        run: dict[str, Any] = {"id": item.id, "command": record.provenance.command}
        if isinstance(record, RobustnessRecord):
            run |= _robustness(record)
        elif isinstance(record, WindowRecord):
            run |= _window(record)
        else:
            run |= _training(record) if isinstance(record, Record) else _bench(record)
        run["sections"] += [
            ("Device and software", _system(record)),
            ("Provenance", [*_provenance(record), ("File", f"{item.id}.json")]),
        ]
        if isinstance(record, Record | BenchRecord):
            run["sections"].append(("Recipe", _recipe_facts(record)))
        run["sections"] = [
            (title, labels.place([label for label, _ in facts]), values.place([value for _, value in facts]))
            for title, facts in run["sections"]
        ]
        if isinstance(record, Record):
            points = thinned(record.curve, POINTS)
            run["epochs"] = epochs.place([round(point.epoch, 3) for point in points])
            run["curve"] = [round(100 * point.val_accuracy, 2) for point in points]
        runs.append(run)
    return {"runs": runs, "labels": labels.values, "values": values.values, "epochs": epochs.values}


def _training(record: Record) -> dict[str, Any]:
    """Return title, sections and published number of a training record."""
    accuracy, speed, data = record.accuracy, record.throughput, record.data
    official = has_official_contents(data.task, data.protocol, data.fingerprint)
    chosen = {"val": "best on validation", "test": "best on the test set"}[accuracy.selection]
    value = record.recipe.published
    marks = "" if value is None else published().marks_of_recipe(cli_name(record.model), data.task, value)
    result: Facts = [
        ("Status", record.status),
        ("Test accuracy", f"{_percent(accuracy.test)} ({chosen}, epoch {number(accuracy.best_epoch)})"),
        ("Best validation", _percent(accuracy.best_val)),
        ("Last step", f"test {_percent(accuracy.last_test)}, validation {_percent(accuracy.last_val)}"),
        ("Majority class", _percent(accuracy.majority)),
        ("Published", _published(value, marks)),
        ("Parameters", f"{record.parameters:,}"),
        (
            "Training",
            f"{speed.steps:,} steps in {number(speed.train_seconds)} s, compilation {number(speed.compile_seconds)} s",
        ),
        ("Throughput", f"{number(speed.examples_per_second_per_device)} examples/s/device"),
        ("Overrides", settings_of(record.overrides, record.pretraining) or "none"),
    ]
    examples: Facts = [
        ("Task", f"{task_title(data.task)} {data.version}, protocol {data.protocol}"),
        ("Source", f"{data.source}, size {data.size}{', official contents' if official else ''}"),
        ("Examples", ", ".join(f"{split} {count:,}" for split, count in data.counts.items())),
        ("Fingerprint", data.fingerprint),
    ]
    name = f"{model_title(record.model)}, {task_title(data.task)}, seed {record.seed}: {_percent(accuracy.test)}"
    sections = [("Result", result), ("Data", examples)]
    if record.note:
        sections.append(("Note", [("Note", record.note)]))
    return {"title": name, "sections": sections, "published": value, "marks": marks}


def _published(value: float | None, marks: str) -> str:
    """Return the published number of the recipe, with the meaning of its footnote letters."""
    if value is None:
        return "not known"
    return "; ".join([f"{rounded(value, 2)} %", *(f"{mark}: {MARKS[mark]}" for mark in marks)])


def _bench(record: BenchRecord) -> dict[str, Any]:
    """Return title and sections of a bench record."""
    rows: Facts = [
        (f"{measured.call}, {measured.input}", _timing(measured.seconds)) for measured in record.measurements
    ]
    counts = {"Length": record.length, "Batch": record.batch_size, "Parameters": record.parameters}
    shape: Facts = [(name, f"{count:,}") for name, count in counts.items()]
    name = f"{model_title(record.model)}, {task_title(record.task)}, L = {record.length:,}, {record.system.device_kind}"
    return {"title": name, "sections": [("Shape", shape), ("Measured", rows)]}


def _timing(seconds: Timing) -> str:
    """Return the median and interquartile range in milliseconds, and how they were measured."""
    spread = number(1000 * (seconds.q3 - seconds.q1))
    how = f"{seconds.windows} windows of {seconds.calls} calls after {seconds.warmup}"
    return f"{number(1000 * seconds.median)} ms, IQR {spread} ms ({how})"


def _robustness(record: RobustnessRecord) -> dict[str, Any]:
    """Return title and sections of a robustness record."""
    rows: Facts = [("Clean", _percent(record.clean)), ("Majority class", _percent(record.majority))]
    rows += [(_noise(point), _percent(point.accuracy)) for point in record.points]
    name = f"{model_title(record.model)}, {task_title(record.data.task)}, seed {record.seed}, under noise"
    return {"title": name, "sections": [("Test accuracy", rows)]}


def _window(record: WindowRecord) -> dict[str, Any]:
    """Return title and sections of a window record."""
    cut = f"every layer cut to {record.window:,} steps"
    rows: Facts = [(cut.capitalize(), _percent(record.accuracy)), ("Whole", _percent(record.whole))]
    rows.append(("Majority class", _percent(record.majority)))
    name = f"{model_title(record.model)}, {task_title(record.data.task)}, seed {record.seed}, {cut}"
    return {"title": name, "sections": [("Test accuracy", rows)]}


def _noise(point: NoisePoint) -> str:
    """Return what the noise of a point was."""
    kind = "Gaussian" if point.frequency is None else f"ω = {point.frequency:g}"
    seed = "" if point.noise_seed is None else f", noise seed {point.noise_seed}"
    where = "on the pixels" if point.place == "input" else "on layers"
    return f"{kind} {where}, amplitude {point.amplitude:g}{seed}"


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
    return ABSENT if share is None else f"{rounded(100 * share, 2)} %"
