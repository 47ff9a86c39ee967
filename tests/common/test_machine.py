"""Limits of control groups, read from made folders."""

from __future__ import annotations

import os

import pytest

from kafal_pipeline.common import machine

UNLIMITED = "9223372036854771712"


@pytest.fixture
def system(tmp_path):
    """A root folder; returns what writes files below it."""

    def write(own, **files):
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(own)
        for folder, contents in files.items():
            place = tmp_path / "sys/fs/cgroup" / folder.replace("__", "/")
            place.mkdir(parents=True, exist_ok=True)
            for name, content in contents.items():
                (place / name).write_text(f"{content}\n")
        return tmp_path

    return write


def test_the_least_of_the_own_group_and_those_above_it(system):
    root = system(
        "0::/pod/box\n",
        pod={"memory.max": 5000, "memory.current": 4500, "cpu.max": "150000 100000"},
        pod__box={"memory.max": 2000, "memory.current": 600, "cpu.max": "max 100000"},
    )
    assert machine.memory_left(root) == 500
    assert machine.cpu_quota(root) == 1.5


@pytest.mark.parametrize("own", ["0::/", "0::/host/path/of/it", "0::/../.."])
def test_a_container_that_sees_its_own_group_as_the_top(system, own):
    limits = {"memory.max": 3000, "memory.current": 1000, "memory.stat": "anon 5\ninactive_file 7"}
    assert machine.memory_left(system(own, **{"": limits})) == 2007


def test_version_1_has_a_folder_for_each_controller(system):
    root = system(
        "4:memory:/job\n2:cpu,cpuacct:/job\n0::/\n",
        memory__job={
            "memory.limit_in_bytes": 4000,
            "memory.usage_in_bytes": 1000,
            "memory.stat": "total_inactive_file 9",
        },
        memory={"memory.limit_in_bytes": UNLIMITED, "memory.usage_in_bytes": 5000},
        cpu__job={"cpu.cfs_quota_us": 250000, "cpu.cfs_period_us": 100000},
        cpu={"cpu.cfs_quota_us": -1, "cpu.cfs_period_us": 100000},
    )
    assert machine.memory_left(root) == 3009
    assert machine.cpu_quota(root) == 2.5


@pytest.mark.parametrize("content", ["max", "", "much"])
def test_without_limits_there_are_none(system, tmp_path, content):
    assert machine.memory_left(tmp_path) is None
    assert machine.cpu_quota(tmp_path) is None
    root = system("0::/box\nnonsense\n", box={"memory.max": content, "memory.current": 3, "cpu.max": content})
    assert machine.memory_left(root) is None
    assert machine.cpu_quota(root) is None


@pytest.mark.parametrize(("quota", "expected"), [("max 100000", 8), ("50000 100000", 1), ("250000 100000", 3)])
def test_a_part_of_a_core_is_one(system, monkeypatch, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: range(8))
    assert machine.cores(system("0::/\n", **{"": {"cpu.max": quota}})) == expected
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: range(2))
    assert machine.cores(machine.ROOT / "nowhere") == 2
