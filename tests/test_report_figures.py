"""The pictures: the same bytes again, right in both modes, and no name from a record can break them."""

import io
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image
from rich.console import Console

from lra_bench.errors import WorkError
from lra_bench.records.files import write_record
from lra_bench.report import OLD_FIGURES, report, stamp
from lra_bench.report.drawing import COLORS, DARK, FEATURED, LIGHT, Picture, darken, panels, styles, thinned
from lra_bench.report.figures import pictures
from lra_bench.report.select import Loaded, select_records
from lra_bench.report.stamp import stamp_of
from tests.made_records import bench_record, robustness_record, train_record, window_record

pytestmark = pytest.mark.usefixtures("unproved")

SVG = "{http://www.w3.org/2000/svg}"


def loaded(records):
    return [Loaded(f"r{i}", record) for i, record in enumerate(records)]


def some_records(model="s5"):
    train = [
        train_record(name, task, seed, 0.6 + 0.01 * seed)
        for name in (model, "s4")
        for task in ("listops", "pathx")
        for seed in (0, 1)
    ]
    bench = [
        bench_record(name, length=length, seconds=length / 1e5)
        for name in (model, "s4")
        for length in (1024, 2048, 4096)
    ]
    return loaded(
        [
            *train,
            train_record(model, "listops", 7, None, status="diverged"),
            *bench,
            robustness_record(model),
            *(window_record(window, window / 300, model=model) for window in (5, 61, 257)),
        ]
    )


@pytest.fixture(scope="module")
def drawn() -> dict[str, Picture]:
    records = some_records()
    return {picture.name: picture for picture in pictures(select_records(records), records)}


def test_every_picture_there_are_records_for(drawn):
    assert list(drawn) == [
        "accuracy-throughput-nvidia-h200",
        "seeds",
        "published",
        "curves",
        "scaling",
        "robustness",
        "windows",
    ]
    for picture in drawn.values():
        assert set(picture.files) == {f"figures/{picture.name}{end}" for end in (".svg", ".png", "-dark.png")}
    assert pictures(select_records([]), []) == []


def test_the_same_records_give_the_same_bytes(drawn):
    records = some_records()
    again = {picture.name: picture.files for picture in pictures(select_records(records), records)}
    assert again == {name: picture.files for name, picture in drawn.items()}
    for picture in drawn.values():
        assert b"matplotlib" not in picture.png.lower()
        assert "dc:date" not in picture.svg


def test_each_file_has_the_stamp_of_what_it_is_drawn_from(drawn):
    records = some_records()
    stamped = stamp_of(select_records(records), records)
    assert stamped == stamp_of(select_records(records[::-1]), records[::-1])
    for picture in drawn.values():
        for content in picture.files.values():
            assert stamped.encode() in (content if isinstance(content, bytes) else content.encode())
        assert Image.open(io.BytesIO(picture.png)).info["Comment"] == stamped
    assert stamped != stamp_of(select_records(records), records[:-1])


def test_the_stamp_is_over_every_module_that_decides_what_is_drawn():
    """Those of the report that `figures.py` imports, and those that these import."""
    package, found, new = Path(stamp.__file__).parent, set(), {"figures.py"}
    while new:
        found |= new
        code = "".join((package / name).read_text() for name in new)
        imported = re.findall(r"from lra_bench\.report\.(\w+) import", code)
        new = {f"{name}.py" for name in imported} - found
    assert set(stamp.CODE) == found | {"published.json"}


def test_check_finds_figures_that_are_out_of_date_and_draws_none(tmp_path, monkeypatch):
    def quickly(drawing, stamp):
        svg = f'<svg width="3pt" height="3pt">{stamp}</svg>'
        return Picture(drawing.name, drawing.title, "", svg, stamp.encode(), stamp.encode())

    monkeypatch.setattr("lra_bench.report.figures.render", quickly)
    results, out = tmp_path / "results", tmp_path / "out"
    for seed in (0, 1):
        write_record(results, train_record("s5", seed=seed))
    report(results, out)

    def never(*_):
        raise AssertionError("a check must not draw")

    monkeypatch.setattr("lra_bench.report.figures.render", never)
    report(results, out, check=True)
    said = io.StringIO()
    report(results, out, pictures=False, console=Console(file=said, width=400))
    assert OLD_FIGURES not in said.getvalue(), "they are up to date"
    report(results, out, check=True)
    (out / "figures" / "old.svg").write_text("<svg/>")
    (out / "figures" / "seeds.png").unlink()
    with pytest.raises(WorkError, match=r"seeds\.png is missing; figures/old\.svg has no records, so remove it\."):
        report(results, out, check=True)
    write_record(results, train_record("s5", seed=2))
    report(results, out, pictures=False, console=Console(file=said, width=400))
    assert said.getvalue().count(OLD_FIGURES) == 1
    with pytest.raises(WorkError, match=r"give: figures/accuracy.*svg was drawn from other records or by other code"):
        report(results, out, check=True)
    report(results, out, check=True, pictures=False)
    for path in (out / "figures").iterdir():
        path.unlink()
    report(results, out, check=True)


def test_light_and_dark(drawn):
    for picture in drawn.values():
        light, dark = (
            np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in (picture.png, picture.png_dark)
        )
        assert light.shape == dark.shape
        assert tuple(light[0, 0]) == tuple(bytes.fromhex(LIGHT.paper[1:]))
        assert tuple(dark[0, 0]) == tuple(bytes.fromhex(DARK.paper[1:]))
        ink = bytes.fromhex(LIGHT.ink[1:])
        assert (light == np.frombuffer(ink, np.uint8)).all(axis=2).any(), "text is drawn in ink"
        assert not (dark == np.frombuffer(ink, np.uint8)).all(axis=2).any(), "and not on a dark page"
        style = ET.fromstring(picture.svg).find(f"{SVG}style").text
        assert "prefers-color-scheme: dark" in style
        for before, after in ((LIGHT.ink, DARK.ink), (LIGHT.paper, DARK.paper)):
            assert f'[style*="fill: {before}"]{{fill:{after} !important}}' in style
            assert f"fill: {before}" in picture.svg


def test_nothing_of_the_light_page_stays_in_the_dark():
    """Text, its background, lines, patches and collections, each in the ink, gray or paper of the light page."""
    made, (ax,) = panels(3, 2, 1, 1)
    ax.text(0, 0, "a", color=LIGHT.ink, bbox={"facecolor": LIGHT.paper, "edgecolor": LIGHT.muted})
    ax.plot([0, 1], color=LIGHT.muted)
    ax.scatter([0], [1], facecolor=LIGHT.ink, edgecolor=COLORS[0], alpha=0.5)
    darken(made)
    (text,), line, dots = ax.texts, ax.lines[0], ax.collections[0]
    found = [
        text.get_color(),
        text.get_bbox_patch().get_facecolor(),
        text.get_bbox_patch().get_edgecolor(),
        line.get_color(),
    ]
    found += [dots.get_facecolor()[0], dots.get_edgecolor()[0], ax.patch.get_facecolor(), made.patch.get_facecolor()]
    assert [to_hex(color) for color in found] == [
        DARK.ink,
        DARK.paper,
        DARK.muted,
        DARK.muted,
        DARK.ink,
        COLORS[0],
        DARK.paper,
        DARK.paper,
    ]
    assert dots.get_facecolor()[0][3] == 0.5
    ax.text(0, 0, "b", bbox={"facecolor": LIGHT.paper, "edgecolor": "none", "alpha": 0.6})
    darken(made)
    assert ax.texts[1].get_bbox_patch().get_edgecolor()[3] == 0, "what was not drawn is not drawn now"


def test_colors_are_told_apart_in_gray_and_by_the_color_blind():
    """Distances in CIE Lab after Machado's (2009) matrices for full protanopia, deuteranopia and tritanopia."""
    matrices = {
        "normal": np.eye(3),
        "protanopia": [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        "deuteranopia": [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
        "tritanopia": [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ],
    }
    srgb = np.array([list(bytes.fromhex(color[1:])) for color in COLORS]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    xyz_of = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    for kind, matrix in matrices.items():
        xyz = np.clip(linear @ np.array(matrix).T, 0, 1) @ xyz_of.T / np.array([0.9505, 1.0, 1.089])
        f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        setup = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
        distance = np.linalg.norm(setup[:, None] - setup[None], axis=2) + 1e9 * np.eye(len(setup))
        assert distance.min() > 10, (kind, distance.min())


def test_no_name_breaks_a_picture():
    names = ("$\\frac{$", "<b>&amp;", "a" * 200, "new\nline", "_hidden", "ÄЖ")
    train = [train_record(name, "listops") for name in names]
    bench = [bench_record(name, length=length, digest=f"{length}") for name in names for length in (1024, 2048, 4096)]
    records = loaded([*train, *bench, *(robustness_record(name) for name in names)])
    for picture in pictures(select_records(records), records):
        ET.fromstring(picture.svg)
        assert Image.open(io.BytesIO(picture.png)).width < 1300


def test_twelve_models_differ_in_color_and_marker_together():
    names = [f"m{i:02d}" for i in range(FEATURED)]
    looks = styles(names, names)
    assert len({(look.color, look.marker) for look in looks.values()}) == FEATURED == 12


@pytest.mark.parametrize("n", [0, 1, 59, 60, 61, 1000])
def test_thinned_keeps_the_end_and_the_order(n):
    found = thinned(range(n), 60)
    assert len(found) <= 60
    assert found == sorted(set(found))
    assert found[-1:] == list(range(n))[-1:]
    assert len(found) >= min(n, 30)
