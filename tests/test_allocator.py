"""The allocator setting: taken by glibc, seen in the page faults it saves, harmless elsewhere."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from lra_bench.machine import allocator

FAULTS = """
import resource, sys
import numpy as np
from lra_bench.machine.allocator import keep_freed_memory
if sys.argv[1] == "tuned":
    keep_freed_memory()
np.ones(1 << 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    np.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def glibc():
    return sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")


def page_faults(how):
    ran = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(ran.stdout)


def test_freed_arrays_are_reused_without_page_faults():
    default, tuned = page_faults("default"), page_faults("tuned")
    # 128 MiB arrays, eight of them: elsewhere than on glibc the setting changes nothing
    assert tuned < default / 100 if glibc() else tuned <= 2 * default


FLAGS = """
import resource, sys
from pathlib import Path
from lra_bench.machine.allocator import keep_freed_memory
if sys.argv[1] == "limited":
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
assert keep_freed_memory()
heaps = Path("/proc/self/smaps").read_text().split("[heap]")[1:]
print(*(flag for heap in heaps for flag in heap.partition("VmFlags:")[2].splitlines()[0].split()))
"""


def flags_of_the_heap(how):
    ran = subprocess.run([sys.executable, "-c", FLAGS, how], capture_output=True, text=True, check=True)
    return ran.stdout.split()


@pytest.mark.skipif(
    not (glibc() and Path("/sys/kernel/mm/transparent_hugepage").exists()), reason="a kernel without huge pages"
)
def test_free_memory_may_be_backed_by_huge_pages_unless_a_limit_forbids():
    assert "hg" in flags_of_the_heap("free")
    assert "hg" not in flags_of_the_heap("limited")


LARGE_ARRAYS = """
import resource
from lra_bench.machine.allocator import keep_freed_memory
keep_freed_memory()
from lra_bench.machine.xla import run_on_calling_thread
run_on_calling_thread()
import jax, jax.numpy as jnp
run = jax.jit(lambda x: jnp.sort(jnp.sin(x).reshape(-1, 64)).sum())
x = jnp.ones(1 << 25)
run(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    run(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not glibc(), reason="not glibc's allocator")
def test_temporaries_of_a_program_stay_in_the_arena_that_keeps_them():
    """128 MiB of them, eight times: 260,000 pages of 4 KiB where a thread of XLA asks for them from its own arena."""
    ran = subprocess.run([sys.executable, "-c", LARGE_ARRAYS], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 10_000


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert allocator.keep_freed_memory() is False
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert allocator.keep_freed_memory() is False


def test_importing_it_starts_no_jax():
    program = "import sys, lra_bench.machine.allocator; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
