"""Memory: what the C library's allocator keeps, and how often Python looks for cycles."""

import contextlib
import ctypes
import gc

#: New objects that call for a look at them, looks that call for one at older objects, and of those that call for one
#: at all.
_YOUNG, _OLDER, _ALL = 50_000, 10, 20


def give_back() -> None:
    """Lets the system have what the allocator keeps after a large piece of work. A few milliseconds for a hundred
    megabytes; nothing where it is not glibc."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def look_for_cycles_rarely() -> None:
    """For a process with many objects that stay, such as series and pods: a look at all of them stops every thread, for
    half a second at a million series, and Python's own thresholds call for one with every few thousand new ones. What
    we make are trees, hardly ever cycles: with thousands of pods a third of the control plane's time went into looks,
    and half of an adapter's answer."""
    gc.set_threshold(_YOUNG, _OLDER, _ALL)
