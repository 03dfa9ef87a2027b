"""Progress on a terminal and in a log."""

import pytest

from lra_bench import progress as module
from lra_bench.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when told to."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_log_lines_come_now_and_then(capfd, clock):
    with Progress("x.bin", total=4_000_000, unit="B") as progress:
        for _ in range(4):
            clock[0] += 10
            progress.advance(1_000_000)
    lines = capfd.readouterr().err.splitlines()
    assert lines == [
        "x.bin: 2.0 MB of 4.0 MB, 100.0 kB/s, 0:00:20 left",
        "x.bin: 4.0 MB of 4.0 MB, 100.0 kB/s, 0:00:00 left",
    ]


def test_what_was_there_before_is_not_counted_into_the_rate(capfd, clock):
    with Progress("x", total=None, unit="images") as progress:
        progress.at(9_000, 10_000)
        clock[0] += 20
        progress.note = "all well"
        progress.advance(200)
    assert capfd.readouterr().err.strip() == "x: 9,200 of 10,000 images, 10/s, all well, 0:01:20 left"


def test_short_work_is_silent(capfd):
    with Progress("x", total=None, unit="files") as progress:
        progress.advance(1)
    assert capfd.readouterr().err == ""


def test_bar_on_a_terminal(capfd, clock, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with Progress("x.bin", total=4_000_000, unit="B") as progress:
        clock[0] += 10
        progress.advance(1_000_000)
        progress.log("the connection was cut; next try in 1 s")
    shown = capfd.readouterr().err
    assert "1.0 MB of 4.0 MB, 100.0 kB/s" in shown
    assert "x.bin: the connection was cut; next try in 1 s" in shown
