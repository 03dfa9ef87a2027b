"""Count what each form of the recurrence moves on a TPU that is not here.

    pip install "jax[tpu]"                     # the compiler; no TPU is needed
    python benchmarks/scan_forms_on_tpu.py     # half a minute for each line of the chunked form

The states of S5's recurrence and their gradient are compiled ahead of time for a TPU v5e, in each form, at the sizes of
three tasks. Printed are the bytes that XLA says the program accesses, its temporaries and its compile time. All forms
have the same rule for gradients (`ssm/scan.py`). The associative form is S5's own algorithm on pairs of real numbers.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from lra_bench.ssm.scan import eigenvalue_gradient
from lra_bench.ssm.scan_chunked import chunked_states
from lra_bench.ssm.scan_sequential import sequential_states

Pair = tuple[Array, Array]
States = Callable[[Pair, Array, bool], Array]

SIZES = {"listops": (2_048, 50, 8), "pathfinder": (1_024, 64, 128), "pathx": (16_384, 32, 128)}
"""Length, batch and number P of states of S5's published recipes."""


def associative_states(Lambda_bar: Pair, b: Array, reverse: bool) -> Array:
    """The states by `lax.associative_scan`, arguments and result as `chunked_states`."""
    a = tuple(jnp.broadcast_to(part, (b.shape[0], 1, part.shape[0])) for part in Lambda_bar)

    def combine(earlier: tuple[Array, ...], later: tuple[Array, ...]) -> tuple[Array, ...]:
        (ar, ai, br, bi), (cr, ci, dr, di) = earlier, later
        return ar * cr - ai * ci, ar * ci + ai * cr, cr * br - ci * bi + dr, cr * bi + ci * br + di

    *_, real, imag = lax.associative_scan(combine, (*a, *jnp.split(b, 2, axis=-1)), reverse=reverse)
    return jnp.concatenate([real, imag], axis=-1)


FORMS: dict[str, States] = {
    "chunked": chunked_states,
    "associative": associative_states,
    "sequential": sequential_states,
}


def states_and_gradients(states: States) -> Callable[..., tuple[Array, ...]]:
    """The function from Λ̄, b and the states' gradient to the states and the gradients of Λ̄ and b."""

    def both(real: Array, imag: Array, b: Array, dx: Array) -> tuple[Array, ...]:
        x = states((real, imag), b, False)
        db = states((real, -imag), dx, True)
        return x, *eigenvalue_gradient(db, x, False), db

    return both


def main() -> None:
    """Compile every form at every size, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--topology", default="v5e:2x2", help="XLA's name of a TPU topology")
    options = parser.parse_args()
    device = topologies.get_topology_desc(platform="tpu", topology_name=options.topology).devices[0]
    there = SingleDeviceSharding(device)
    print(f"{device.device_kind}: states of one direction and their gradients")
    print("| task | L × b × P | form | least GB | GB | temporaries MB | compile s |\n|---|---|---|---|---|---|---|")
    for task in options.tasks:
        L, batch, P = SIZES[task]
        shapes = [(P,), (P,), (L, batch, 2 * P), (L, batch, 2 * P)]
        arguments = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=there) for shape in shapes]
        for name, states in FORMS.items():
            began = time.perf_counter()
            compiled = jax.jit(states_and_gradients(states)).lower(*arguments).compile()
            seconds = time.perf_counter() - began
            least = 4 * L * batch * 2 * P * 4  # b and dx read, x and db written
            moved, temporary = compiled.cost_analysis()["bytes accessed"], compiled.memory_analysis().temp_size_in_bytes
            print(
                f"| {task} | {L:,} × {batch} × {P} | {name} | {least / 1e9:.2f} | {moved / 1e9:.2f} "
                f"| {temporary / 1e6:.0f} | {seconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
