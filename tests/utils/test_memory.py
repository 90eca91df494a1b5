"""Pages that the system has to give, counted in a process of its own."""

import ctypes
import subprocess
import sys

import pytest

from smoothed.utils.memory import keep_memory

GLIBC = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="another C library")

FAULTS = """
import resource, sys, torch
from smoothed.utils.memory import keep_memory
if sys.argv[1] == "kept":
    assert keep_memory()
def work():
    many = [torch.ones(10_000_000) for _ in range(3)]  # 40 MB each
for _ in range(5):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(script: str, how: str) -> int:
    """The pages that come from the system while a script is at work."""
    return int(subprocess.check_output([sys.executable, "-c", script, how], text=True))


@pytest.mark.slow
@GLIBC
def test_no_page_is_asked_for_twice():
    plain, kept = faults(FAULTS, "plain"), faults(FAULTS, "kept")
    assert plain > 10_000  # of 4 KiB: 5 x 120 MB are 146,000
    assert kept < plain / 4  # a tensor or two may not fit into what smaller ones have left


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert keep_memory() is False
