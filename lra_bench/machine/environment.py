"""Starting JAX so that no environment variable and no setting of the process changes a number of a run.

What decides the numbers is the run, the software and the devices, and a record has all three. JAX reads its options
from variables `JAX_…` when it is imported, and XLA reads `XLA_FLAGS`. Those that could change a number, or end a run
with an error of their own, are not used. JAX is imported only where it is started.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from typing import Any

from lra_bench.errors import UserError
from lra_bench.progress import print_line

KEPT = (
    r"JAX_PLATFORMS|JAX_PLATFORM_NAME|JAX_(CUDA|ROCM|ONEAPI)_VISIBLE_DEVICES|JAX_NUM_CPU_DEVICES|JAX_MOCK_GPU_TOPOLOGY|JAX_SKIP_CUDA_CONSTRAINTS_CHECK"
    r"|JAX_LOG_COMPILES|JAX_LOGGING_LEVEL|JAX_DEBUG_LOG_MODULES|JAX_EXPLAIN_CACHE_MISSES|JAX_DUMP_\w+"
    r"|JAX_(ENABLE_COMPILATION|COMPILATION|PERSISTENT)_CACHE\w*|JAX_PJRT_\w+|JAX_CPU_COLLECTIVES_IMPLEMENTATION"
    r"|JAX_COORDINATOR_\w+|JAX_PROCESS_\w+|JAX_NUM_PROCESSES|JAX_LOCAL_\w+"
)
"""The variables of JAX that are used: devices, which a record has, and what is printed and kept on disk."""

KEPT_FLAGS = (
    r"--xla_dump_\w+|--xla_force_host_platform_device_count|--xla_gpu_cuda_data_dir|--xla_hlo_profile\w*"
    r"|--xla_gpu_force_compilation_parallelism|--xla_gpu_per_fusion_autotune_cache_dir"
)
"""The flags of XLA that are used. Of the others XLA has hundreds, and most can change the order of a sum."""

TPU_FLAGS = "LIBTPU_INIT_ARGS"

OTHERS = ("NVIDIA_TF32_OVERRIDE", TPU_FLAGS)
"""Variables of libraries below XLA that change numbers."""

JAXS_TPU_FLAG = "--xla_tpu_use_enhanced_launch_barrier=true"
"""What JAX adds to `LIBTPU_INIT_ARGS` itself when it is imported on a TPU (jax `_src/cloud_tpu_init.py`)."""

PINNED: dict[str, Any] = {
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_enable_x64": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_default_matmul_precision": None,
    "jax_disable_jit": False,
    "jax_exec_time_optimization_effort": 0.0,
    "jax_memory_fitting_effort": 0.0,
    "jax_debug_nans": False,
    "jax_debug_infs": False,
    "jax_debug_key_reuse": False,
    "jax_enable_checks": False,
    "jax_check_tracer_leaks": False,
    "jax_legacy_prng_key": "allow",
    "jax_transfer_guard": None,
}
"""The options of JAX that are set in a process that has imported JAX itself: those that change a number, and those
that end a run with an error, each with JAX's own default."""


class NoDevice(UserError):
    """JAX cannot be imported or finds no device: what is wrong, and what to type."""

    def __init__(self, what: str, error: BaseException):
        """Join what is wrong, the first line of the `error` that JAX raised, and the advice to one sentence."""
        lines = str(error).strip().splitlines()
        self.what = f"{what}: {lines[0].rstrip('.') if lines else 'it has no plugin'}"
        asked = ", or unset that variable" if _asked_for() else ""
        self.advice = f"Install the extra for your accelerator, as in pip install -e '.[cuda13]' in the clone{asked}."
        super().__init__(f"{self.what}. {self.advice}")


def start_jax(find_devices: bool = True) -> None:
    """Import JAX with lra-bench's own options and find the devices. Another call has no further effect.

    find_devices: False where a program is only compiled for a device that is not here. Programs of a CPU run on the
    thread that calls them (`machine/xla.py`). What is not used is said on stderr.

    Raises NoDevice where JAX cannot be imported or finds no device, and UserError where it was started with flags that
    change numbers.
    """
    unused = _clear_environment(started="jax" in sys.modules)
    try:
        import jax

        from lra_bench.machine.xla import run_on_calling_thread
    except Exception as error:  # JAX raises whatever its options do
        raise NoDevice("JAX cannot be imported", error) from None
    run_on_calling_thread()
    unused += _pin(jax.config)
    if unused:
        print_line(f"Not used, so that numbers depend on the run alone: {', '.join(unused)}.")
    if not find_devices:
        return
    try:
        jax.devices()
    except Exception as error:  # RuntimeError, and AssertionError where a plugin is missing
        raise NoDevice(f"JAX finds no device{_asked_for()}", error) from None


def _clear_environment(started: bool) -> list[str]:
    """Remove the variables and flags that are not used, and return them.

    JAX has read its own variables where it is `started`, and XLA may have read the others: then UserError is raised.
    """
    flags = shlex.split(os.environ.get("XLA_FLAGS", ""))
    kept = [flag for flag in flags if re.fullmatch(KEPT_FLAGS, flag.partition("=")[0])]
    below = [f"XLA_FLAGS={flag}" for flag in flags if flag not in kept]
    others = {name: os.environ.get(name, "") for name in OTHERS}
    others[TPU_FLAGS] = shlex.join(flag for flag in shlex.split(others[TPU_FLAGS]) if flag != JAXS_TPU_FLAG)
    below += [f"{name}={value}" for name, value in others.items() if value]
    if started:
        if below:
            raise UserError(
                f"{', '.join(below)} may change the numbers of a run, and JAX has started with it. "
                "Unset it before this program starts."
            )
        return []
    names = [name for name in os.environ if name.startswith("JAX_") and not re.fullmatch(KEPT, name)]
    unused = [f"{name}={os.environ[name]}" for name in names if os.environ[name]]
    for name in (*names, *OTHERS):
        os.environ.pop(name, None)
    if flags:
        os.environ["XLA_FLAGS"] = shlex.join(kept)
    return unused + below


def _pin(config: Any) -> list[str]:
    """Set the options of `PINNED`, and return those that had another value."""
    changed = []
    for name, value in PINNED.items():
        before = getattr(config, name, value)  # an option that this version of JAX does not have is as it should be
        before = getattr(before, "value", before)
        if before != value:
            changed.append(f"{name}={before}")
            config.update(name, value)
    return changed


def _asked_for() -> str:
    found = [f"{name}={os.environ[name]}" for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME") if os.environ.get(name)]
    return f" for {', '.join(found)}" if found else ""
