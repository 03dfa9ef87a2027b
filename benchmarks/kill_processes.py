"""Kill or stop one of two processes that train a run together, again and again at random moments: is a run ever lost?

    python -m benchmarks.kill_processes --kills 100 --wait 60      in the clone

After each blow both processes must have ended, with one sentence each at most and no traceback, and the same command
continues. A run that ends must have the numbers of the run that was left alone; then it is removed and begun again.
One whose partner is killed before they have found each other waits for it for minutes; `--wait` kills it as well.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from lra_bench.machine.processes import START_SECONDS
from lra_bench.records.files import load_record
from tests.hosts import TwoProcesses

LONGEST = START_SECONDS + 60.0
"""The seconds within which both processes must have ended after a blow. Killed at its start, one is waited for."""

CODES = {signal.SIGTERM: {143, 0}, signal.SIGKILL: {-9, 1, 137, 0}}
"""The exit codes after a blow. 0 is that of a run that had ended, and 137 of a process whose child was killed."""

TOO_EARLY = {-15, 143, -9}
"""Those after a SIGTERM that came before the two had found each other: one has ended, and the other waits for it."""


def numbers(results: Path) -> dict:
    (path,) = results.glob("*/*/*.json")
    return json.loads(load_record(path).model_dump_json(include={"digest", "status", "accuracy", "curve"}))


def strike(home: Path, results: Path, chance: random.Random, longest: float, wait: float) -> str:
    """Start both processes, strike one of them, and check how they end. Returns what was done."""
    both = TwoProcesses(home, results)
    delay = chance.uniform(0, longest)
    signum, number = chance.choice([signal.SIGTERM, signal.SIGKILL]), chance.randrange(2)
    to_child = signum == signal.SIGKILL and chance.random() < 0.5
    until = time.monotonic() + delay
    while both.running and time.monotonic() < until:
        time.sleep(0.01)
    if both.running:
        both.send(signum, number, to_child)
    what = f"{signum.name} to process {number}{' (the one that trains)' if to_child else ''} after {delay:.1f} s"
    print(what, end="", flush=True)
    struck = time.monotonic()
    until = struck + wait
    while both.running and time.monotonic() < until:
        time.sleep(0.01)
    too_early = signum == signal.SIGTERM and both.processes[number].poll() is not None and both.running
    for other in (0, 1):
        if (signum == signal.SIGKILL or too_early) and both.processes[other].poll() is None:
            both.send(signal.SIGKILL, other)
            what += f" and to process {other} after {wait:.0f} s"
    codes, printed = both.end(LONGEST - wait)
    assert not too_early or "compiling" not in printed[0], f"{what}: the other did not stop"
    for code, text in zip(codes, printed, strict=True):
        assert code in (TOO_EARLY if too_early else CODES[signum]), f"{what}: exit codes {codes}\n{text}"
        assert "Traceback" not in text, f"{what}: a traceback\n{text}"
        assert text.count("Error: ") <= 1, f"{what}: more than a sentence\n{text}"
    print(f": exit codes {codes}, {time.monotonic() - struck:.1f} s later", flush=True)
    return signum.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="how many blows [100]")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the signals [0]")
    parser.add_argument(
        "--wait",
        type=float,
        default=LONGEST,
        help="after how many seconds a process that waits for the other is killed",
    )
    asked = parser.parse_args()
    chance, counts = random.Random(asked.seed), Counter()
    with tempfile.TemporaryDirectory() as folder:
        home, results, alone = (Path(folder) / name for name in ("home", "results", "alone"))
        sys.stderr.write("preparing tiny ListOps, and training the run that is left alone\n")
        prepare = [sys.executable, "-m", "lra_bench", "prepare", "listops", "--size", "tiny"]
        environment = {**os.environ, "LRA_BENCH_HOME": str(home)}
        subprocess.run(prepare, env=environment, check=True, capture_output=True)
        codes, printed = TwoProcesses(home, alone).end()
        assert codes == [0, 0], printed
        expected, ended = numbers(alone), 0
        forget(home)
        began = time.monotonic()
        codes, _ = TwoProcesses(home, results).end()  # with the programs compiled: as long as a run takes
        longest = time.monotonic() - began
        while sum(counts.values()) < asked.kills:
            if list(results.glob("*/*/*.json")):
                assert numbers(results) == expected, "the numbers of a run that was struck are others"
                ended += 1
                forget(home, results)
            counts[strike(home, results, chance, longest, asked.wait)] += 1
        codes, printed = TwoProcesses(home, results).end()
        assert codes == [0, 0], printed
        assert numbers(results) == expected, "the numbers of a run that was struck are others"
    done = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    print(f"{done}: {ended + 1} runs ended, each with the numbers of the one left alone; none was lost")


def forget(home: Path, *more: Path) -> None:
    for folder in (home / "runs", *more):
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
