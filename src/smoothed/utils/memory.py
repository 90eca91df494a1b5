"""Reuse of freed memory within the process, because obtaining memory pages from the system can dominate a draw."""

import ctypes
from contextlib import suppress

# Parameters of glibc's mallopt: free memory beyond the first is returned to the system; larger blocks than the second
# are obtained from the system one by one.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# The largest value that mallopt accepts, and the largest that every version of glibc accepts for the second parameter.
_MAX_VALUE, _MAX_PORTABLE_VALUE = 2**31 - 1, 2**25


def keep_memory() -> bool:
    """Let this process keep all freed memory for later allocations, until it ends.

    Linux's C library returns the memory of large tensors to the system when they are freed, and the system clears each
    page again for the next ones. On a CPU this takes up to two fifths of the time of a vote in `Fast` with large
    passes, and up to half of the time of an eager network. With this setting the process holds on to its peak memory.
    The setting affects the whole process: the `smoothed` command makes it by itself, and other programs should call
    this function at their start.

    Returns:
        Whether the setting was made: False if the C library is not glibc.

    Example:
        >>> import smoothed
        >>> smoothed.keep_memory() in (True, False)
        True
    """
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        has_raised = mallopt(_MMAP_THRESHOLD, _MAX_VALUE) or mallopt(_MMAP_THRESHOLD, _MAX_PORTABLE_VALUE)
        return bool(has_raised and mallopt(_TRIM_THRESHOLD, _MAX_VALUE))
    return False
