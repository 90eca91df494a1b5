"""Memory that stays with the process: most of what a draw costs besides arithmetic is getting pages from the system."""

import ctypes
from contextlib import suppress

# glibc's mallopt: what is beyond the first goes back to the system when it is free, and above the second comes from it.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# The most that mallopt takes, and the most that every glibc takes for the second.
_MOST, _MOST_EVERYWHERE = 2**31 - 1, 2**25
# The largest block that glibc learns from (DEFAULT_MMAP_THRESHOLD_MAX), and room for what it adds to a block.
_LARGEST_LEARNT = 2**25 - 2**14


def reuse_memory() -> None:
    """Let this process reuse up to 64 MB of what it has freed, as it does anyway once it has freed 32 MB in one piece.

    Linux's C library learns how much to keep from the largest block that it has seen freed: blocks up to that come from
    memory of its own, of which it keeps twice as much (mallopt(3), M_MMAP_THRESHOLD). So this frees one, never touched.
    A pass of 256 small images needs more than it has learnt by then: its pages would come from the system each time,
    which is up to two fifths of the time of `Fast`. What a program has set by mallopt stays; elsewhere nothing happens.
    """
    bytes(_LARGEST_LEARNT)  # zeros, which the system promises without giving a page


def keep_memory() -> bool:
    """Let this process keep the memory that it has freed for what it allocates next, until it ends.

    On Linux's C library, memory of large tensors goes back to the system whenever they are freed, which then has to
    clear each page that the next ones touch. On a CPU this is up to two fifths of a vote's time in `Fast`, where passes
    are too large for what it lets the process reuse, and up to half of an eager network's. The process holds on to the
    most that it ever needed. `smoothed`, the command, does this by itself; a library should not, so call it at the
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
