"""Compare our training step and forward pass with those of published S5 on all six tasks: time, memory, compile time.

    python benchmarks/train_step.py                          # the tables of docs/measured.md, about fifteen minutes
    python benchmarks/train_step.py --task image --batch 4
    python benchmarks/train_step.py --as-users-run           # two processes in turn: their allocator setting and ours

Both sides have the same parameters, random data, optimizer and published recipe, except for the batch size. They are
compiled by the same JAX, ours with the options of `train`, and called in turn (A B A B). The reference is
`reference_s5.py`; its inputs are encoded before the timing starts, as in the published code. Our step reads uint8
examples and gathers its batch inside the step. Ratios are of medians; "least" is the ratio of the fastest calls, and
"processor" the ratio of the medians of processor time. Memory is the compiler's count of temporary buffers. The memory
allocator is set for both, except with --as-users-run and --default-allocator.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

from lra_bench.machine.allocator import keep_freed_memory
from lra_bench.machine.xla import run_on_calling_thread

Side = Literal["reference", "ours"]
SIDES: tuple[Side, Side] = ("reference", "ours")
CALLS = ("train", "forward")
"""The compared calls: the training step and the forward pass."""

BATCHES = {"listops": 50, "text": 8, "retrieval": 4, "image": 16, "pathfinder": 32, "pathx": 2}
"""The batch size of each task: the published one where it fits a CPU's memory and time, otherwise a smaller one."""


class Seconds(NamedTuple):
    """The seconds of one call.

    `processor` is the processor time of all threads. On a busy machine it varies less than the wall time, but it does
    not show how well the cores are used.
    """

    wall: float
    processor: float


class Program(NamedTuple):
    """One compiled call with its arguments; `run()` returns when the device is done."""

    run: Callable[[], None]
    compile_seconds: float
    temporary_bytes: int


def programs(side: Side, task: str, batch_size: int) -> dict[str, Program]:
    """Compile the training step and the forward pass of one side for the same synthetic batch."""
    # JAX is imported here, because main() sets the allocator before JAX starts.
    import jax
    import jax.numpy as jnp

    from benchmarks.reference_s5 import Reference, prepare
    from lra_bench.bench.synthetic import synthetic_run, synthetic_split
    from lra_bench.machine.mesh import data_mesh
    from lra_bench.machine.xla import compiler_options
    from lra_bench.training.functional import initialized
    from lra_bench.training.optimizer import make_optimizer
    from lra_bench.training.state import Batches, EvalRows, Examples, Totals, stream_key
    from lra_bench.training.steps import eval_loop, initial_state, train_loop, train_step

    run, shape = synthetic_run("s5", task, None, {"batch_size": batch_size}, "float32")
    network, params, stats = initialized(run, shape)
    mesh = data_mesh()
    optimizer = make_optimizer(params, run.recipe, 1000)
    state = initial_state(params, stats, optimizer, mesh)
    examples = Examples(*map(jnp.asarray, synthetic_split(run.recipe, shape, 4 * batch_size)))
    key, zero, one = stream_key(0, 2), jnp.zeros((), jnp.int32), jnp.ones((), jnp.int32)
    if side == "ours":
        order = jnp.arange(4 * batch_size, dtype=jnp.int32)
        train_args: tuple[Any, ...] = (Batches(examples, order, zero, one), key)
        train = train_loop(network, optimizer, batch_size, mesh)
        forward = eval_loop(network, batch_size, mesh)
        forward_args: tuple[Any, ...] = (params, stats, Totals.zero(), EvalRows(examples, one * batch_size))
    else:
        reference = Reference(run.recipe, shape)
        batch = jax.block_until_ready(prepare(jax.tree.map(lambda column: column[:batch_size], examples), run.recipe))
        train_args = (batch, key)
        train = train_step(reference, optimizer)
        forward, forward_args = reference.apply_eval, (params, stats, batch)
    options = {
        call: compiler_options(network.batched_products, call == "train") if side == "ours" else {} for call in CALLS
    }
    # Published S5 does not donate its state. Both sides do here, so that memory compares the algorithms.
    return {
        "train": training_program(train, state, train_args, options["train"]),
        "forward": forward_program(forward, forward_args, options["forward"]),
    }


def compiled(
    function: Callable[..., Any], args: Sequence[Any], options: dict[str, Any], donate: tuple[int, ...] = ()
) -> tuple[Any, float, int]:
    """Compile a function; return it with its compile seconds and the bytes of its temporary buffers."""
    import jax

    with jax.default_matmul_precision("highest"):
        traced = jax.jit(function, donate_argnums=donate).trace(*args)
        started = time.perf_counter()
        executable = traced.lower().compile(options)
    seconds = time.perf_counter() - started
    return executable, seconds, executable.memory_analysis().temp_size_in_bytes


def training_program(step: Callable[..., Any], state: Any, args: Sequence[Any], options: dict[str, Any]) -> Program:
    """Compile a training step, each call of which starts from the state of the call before."""
    import jax

    executable, seconds, temporary = compiled(step, (state, *args), options, (0,))
    latest = [jax.tree.map(lambda leaf: leaf.copy(), state)]

    def run() -> None:
        latest[0] = jax.block_until_ready(executable(latest[0], *args))

    return Program(run, seconds, temporary)


def forward_program(forward: Callable[..., Any], args: Sequence[Any], options: dict[str, Any]) -> Program:
    """Compile a forward pass."""
    import jax

    executable, seconds, temporary = compiled(forward, args, options)
    return Program(lambda: jax.block_until_ready(executable(*args)), seconds, temporary)


class Child:
    """A process of its own for one side, with its own setting of the allocator; it runs one call at a time."""

    def __init__(self, side: Side, task: str, batch_size: int):
        command = [sys.executable, __file__, "--child", side, "--task", task, "--batch", str(batch_size)]
        environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.facts = self._answer()

    def _answer(self) -> Any:
        """Read one line of JSON from the process. Raises SystemExit where the process has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the measuring process ended with {self._process.wait()}")
        return json.loads(line)

    def seconds(self, call: str) -> Seconds:
        """Return the seconds of one call in the process."""
        assert self._process.stdin is not None
        print(call, file=self._process.stdin, flush=True)
        return Seconds(*self._answer())

    def end(self) -> None:
        """End the process and wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve(side: Side, task: str, batch_size: int) -> None:
    """Print the compile seconds and temporary bytes of each call, then the seconds of each call named on stdin."""
    made = programs(side, task, batch_size)
    print(json.dumps({call: made[call][1:] for call in CALLS}), flush=True)
    for line in sys.stdin:
        print(json.dumps(seconds_of(made[line.strip()].run)), flush=True)


def seconds_of(run: Callable[[], None]) -> Seconds:
    """Return the seconds of one call."""
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return Seconds(time.perf_counter() - wall, time.process_time() - processor)


@contextmanager
def timers(
    task: str, batch_size: int, as_users_run: bool
) -> Iterator[dict[Side, tuple[Callable[[str], Seconds], Any]]]:
    """Yield for each side a function that times one call, and the compile seconds and temporary bytes by call."""
    if as_users_run:
        children = {side: Child(side, task, batch_size) for side in SIDES}
        try:
            yield {side: (child.seconds, child.facts) for side, child in children.items()}
        finally:
            for child in children.values():
                child.end()
        return
    made = {side: programs(side, task, batch_size) for side in SIDES}

    def timer(side: Side) -> Callable[[str], Seconds]:
        return lambda call: seconds_of(made[side][call].run)

    yield {side: (timer(side), {call: made[side][call][1:] for call in CALLS}) for side in SIDES}


def compare(task: str, batch_size: int, rounds: int, as_users_run: bool) -> dict[str, Any]:
    """Return one row: the medians of both sides, and the ratios of the reference's to ours."""
    row: dict[str, Any] = {"task": task, "batch": batch_size}
    with timers(task, batch_size, as_users_run) as sides:
        for call in CALLS:
            times: dict[Side, list[Seconds]] = {side: [] for side in SIDES}
            for round_ in range(rounds + 1):
                for side in SIDES:
                    seconds = sides[side][0](call)
                    if round_:  # the first round is a warm-up
                        times[side].append(seconds)
            facts = {side: sides[side][1][call] for side in SIDES}
            wall = {side: [each.wall for each in times[side]] for side in SIDES}
            processor = {side: statistics.median(each.processor for each in times[side]) for side in SIDES}
            row[call] = {
                **{f"{side}_s": statistics.median(wall[side]) for side in SIDES},
                "ratio": statistics.median(wall["reference"]) / statistics.median(wall["ours"]),
                "least": min(wall["reference"]) / min(wall["ours"]),
                "processor": processor["reference"] / processor["ours"],
                **{f"{side}_compile_s": facts[side][0] for side in SIDES},
                **{f"{side}_gb": facts[side][1] / 1e9 for side in SIDES},
            }
    return row


HEADER = (
    "| task | batch | train: S5 s | ours s | ratio (least; processor) | forward: S5 s | ours s | ratio (least) "
    "| memory: S5 / ours GB | share | compile: S5 / ours s | ratio |\n" + "|---" * 12 + "|"
)


def table_row(row: dict[str, Any]) -> str:
    """Return a row as a line of the Markdown table."""
    train = row["train"]
    cells = [row["task"], str(row["batch"])]
    for call in (train, row["forward"]):
        ratio = f"**{call['ratio']:.2f}** ({call['least']:.2f}; {call['processor']:.2f})"
        cells += [f"{call['reference_s']:.3g}", f"{call['ours_s']:.3g}", ratio]
    theirs, ours = train["reference_gb"], train["ours_gb"]
    cells += [f"{theirs:.2f} / {ours:.2f}", f"{ours / theirs:.0%}"]
    theirs, ours = train["reference_compile_s"], train["ours_compile_s"]
    cells += [f"{theirs:.1f} / {ours:.1f}", f"{theirs / ours:.1f}"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table for the tasks of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", action="append", choices=list(BATCHES), help="may be repeated; default: all six")
    parser.add_argument("--batch", type=int, help="instead of each task's own")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each, in turn")
    parser.add_argument("--as-users-run", action="store_true", help="two processes; only ours sets the allocator")
    parser.add_argument("--default-allocator", action="store_true", help="for both")
    parser.add_argument("--json", action="store_true", help="one JSON object per row instead of a table")
    parser.add_argument("--child", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rounds < 1 or (options.batch is not None and options.batch < 1):
        parser.error("--batch and --rounds must be at least 1")
    if not options.default_allocator and options.child != "reference":
        keep_freed_memory()
        run_on_calling_thread()
    tasks = options.task or list(BATCHES)
    if options.child:
        serve(options.child, tasks[0], options.batch)
        return
    if not options.json:
        print(HEADER, flush=True)
    for task in tasks:
        row = compare(task, options.batch or BATCHES[task], options.rounds, options.as_users_run)
        print(json.dumps(row) if options.json else table_row(row), flush=True)


if __name__ == "__main__":
    main()
