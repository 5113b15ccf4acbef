"""What a benchmark ran on, and what its process takes."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Literal

CPUINFO = Path("/proc/cpuinfo")


def processor() -> str:
    """The processor's name, as the system gives it."""
    if CPUINFO.is_file():
        for line in CPUINFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def own_memory(field: Literal["VmRSS", "VmHWM"]) -> int:
    """Bytes of this process: now (VmRSS) or at its peak (VmHWM)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024
