"""Memory that stays with the process: most of what a draw costs besides arithmetic is getting pages from the system."""

import ctypes
from contextlib import suppress

# glibc's mallopt: what is beyond the first goes back to the system when it is free, and above the second comes from it.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# The most that mallopt takes, and the most that every glibc takes for the second.
_MOST, _MOST_EVERYWHERE = 2**31 - 1, 2**25


def keep_memory() -> bool:
    """Let this process keep the memory that it has freed for what it allocates next, until it ends.

    On Linux's C library, memory of large tensors goes back to the system whenever they are freed, which then has to
    clear each page that the next ones touch. On a CPU this is up to half of a network's time. The process holds on to
    the most that it ever needed. `smoothed`, the command, does this by itself; a library should not, so call it at the
    start of your own program.

    Returns:
        Whether it could be done: False where the C library is another one.

    Example:
        >>> import smoothed
        >>> smoothed.keep_memory() in (True, False)
        True
    """
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        larger = mallopt(_MMAP_THRESHOLD, _MOST) or mallopt(_MMAP_THRESHOLD, _MOST_EVERYWHERE)
        return bool(larger and mallopt(_TRIM_THRESHOLD, _MOST))
    return False
