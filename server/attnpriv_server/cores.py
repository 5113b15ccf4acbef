"""How many cores the system grants this process."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores(
    membership: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")
) -> int:
    """The cores that affinity and CPU quotas leave this process, at least one.

    A quota counts as the cores that it pays for, rounded up; the tightest holds, be it of the
    process's own control group or of one above it, as containers and systemd set them. Source:
    cgroups(7), and the kernel's documentation of cpu.max and of CFS bandwidth control. Not covered:
    control groups that are mounted elsewhere than usual. (joblib's count reads the topmost group
    alone, which is not that of a service under systemd.)

    Args:
        membership: lists the control groups of the process.
        mounted: where those of version 2 are, and in folders below it those of version 1.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    cores = (os.cpu_count() or 1) if affinity is None else len(affinity(0))
    quotas = (_quota(group) for group in _groups(membership, mounted))
    return min([cores, *(math.ceil(quota) for quota in quotas if quota < math.inf)])


def _groups(membership: Path, mounted: Path) -> Iterator[Path]:
    """The folders that may hold quotas of this process; not all of them exist."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for name in _folders(controllers):
            top = mounted / name
            # A container may see its own group at the top, and be told the path from outside.
            group = top / path.lstrip("/")
            yield from (each for each in (group, *group.parents) if each.is_relative_to(top))


def _folders(controllers: str) -> tuple[str, ...]:
    """The mount folders of a hierarchy's groups; none where it cannot have quotas."""
    if not controllers:
        return ".", "unified"  # version 2, alone or beside version 1
    return ("cpu", controllers) if "cpu" in controllers.split(",") else ()


def _quota(group: Path) -> float:
    """The cores that a control group pays for; infinity where it sets no quota."""
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except OSError:
        try:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        except OSError:
            return math.inf
    return math.inf if quota == "max" or int(quota) <= 0 else int(quota) / int(period)
