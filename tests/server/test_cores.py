"""Cores as affinity and control groups grant them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from attnpriv_server.cores import usable_cores

V2 = "0::/outer/inner\n"
V1 = "5:cpuset:/\n4:cpu,cpuacct:/outer/inner\n0::/\n"


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        (V2, {"outer/inner/cpu.max": "100000 100000"}, 1),
        (V2, {"outer/inner/cpu.max": "50000 100000"}, 1),
        (V2, {"outer/inner/cpu.max": "150000 100000"}, 2),
        (V2, {"outer/inner/cpu.max": "9900000 100000"}, 8),
        (V2, {"outer/inner/cpu.max": "max 100000", "outer/cpu.max": "300000 100000"}, 3),
        (V2, {"outer/inner/cpu.max": "400000 100000", "outer/cpu.max": "300000 100000"}, 3),
        (V2, {"other/cpu.max": "100000 100000"}, 8),
        (V2, {"cpu.max": "100000 100000"}, 1),  # of a container, seen from inside
        ("0::/\n", {"cpu.max": "200000 100000"}, 2),
        (V1, {"cpu/outer/inner/cpu.cfs_quota_us": "100000"}, 1),
        (V1, {"cpu,cpuacct/outer/cpu.cfs_quota_us": "250000"}, 3),
        (V1, {"cpu/cpu.cfs_quota_us": "200000"}, 2),
        (V1, {"cpu/outer/inner/cpu.cfs_quota_us": "-1"}, 8),
        (V1 + V2, {"unified/outer/cpu.max": "100000 100000"}, 1),
        ("", {"cpu.max": "100000 100000"}, 8),
        (None, {}, 8),
    ],
)
def test_the_tightest_quota_holds(tmp_path, eight_cores, membership, files, cores) -> None:
    for name, content in files.items():
        file = tmp_path / "mounted" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content + "\n")
        file.with_name("cpu.cfs_period_us").write_text("100000\n")
    if membership is not None:
        (tmp_path / "cgroup").write_text(membership)

    assert usable_cores(tmp_path / "cgroup", tmp_path / "mounted") == cores


def test_affinity_is_what_this_process_may_use() -> None:
    nowhere = Path("/nowhere")
    before = os.sched_getaffinity(0)
    assert usable_cores(nowhere, nowhere) == len(before)
    os.sched_setaffinity(0, [min(before)])
    try:
        assert usable_cores(nowhere, nowhere) == usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
