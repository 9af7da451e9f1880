"""What a process and its children have used: memory and CPU time."""

from __future__ import annotations

import os
import time
from multiprocessing import active_children
from pathlib import Path


def start_of_peak() -> int | None:
    """Forget the highest memory so far, and return the present one in bytes; None where only Linux knows."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return memory("VmRSS")
    except OSError:
        return None


def memory(key: str) -> int:
    """Return an entry of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def cpu_seconds() -> float:
    """Return the CPU time of this process, of the children that have ended, and of those that work for it."""
    ended = os.times()
    own = time.process_time() + ended.children_user + ended.children_system
    return own + sum(_cpu_seconds_of(child.pid) for child in active_children())


def _cpu_seconds_of(pid: int | None) -> float:
    try:
        # The name of the program, in parentheses, may hold anything; times are the 14th and 15th field.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(ticks) for ticks in fields[11:13]) / os.sysconf("SC_CLK_TCK")
