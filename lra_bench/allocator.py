"""glibc's allocator set for large arrays that come and go at every step."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # names and values of glibc's <malloc.h>


def keep_freed_memory() -> bool:
    """Let glibc reuse freed memory instead of returning it to the kernel; True if every setting was taken.

    XLA frees and allocates its large buffers at each step. By default glibc maps each anew and the kernel zeroes it by
    the page: 8–15 GB/s against 41–43 with the memory kept, and 1.15–1.45 times the whole train step. Call it before JAX
    starts, since memory already mapped stays so. Where there is no glibc, it does nothing and returns False.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    # -1 is the largest size_t there: INT_MAX, two gigabytes, is below what one step frees. With few arenas a block that
    # one thread freed is found by the others: four make a step a fifth slower than two do. In a single one the threads
    # of the compiler wait for each other, a third longer.
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1, _M_ARENA_MAX: 2}
    taken = [mallopt(parameter, value) for parameter, value in settings.items()]
    return taken == [1] * len(settings)
