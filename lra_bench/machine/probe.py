"""What devices this machine has, asked in a process of its own: `python -m lra_bench.machine.probe` prints it as JSON.

A process that starts JAX holds the memory of every device until it ends, which the runs of a sweep need.
"""

from __future__ import annotations

import json

from lra_bench.machine.environment import start_jax


def main() -> None:
    """Print the platform, the number of local devices, and the precision of runs where none is asked for."""
    start_jax()
    import jax

    from lra_bench.machine.precision import default_precision

    found = {"platform": jax.default_backend(), "devices": jax.local_device_count(), "precision": default_precision()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
