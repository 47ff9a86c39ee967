"""Short memory and files in strange places are reported in one message."""

from __future__ import annotations

import errno
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from kedro.io import DatasetError

from kafal_pipeline import cli
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import remove, remove_temporary, replacing_folder, write_json
from kafal_pipeline.lifecycle import failure_messages
from kafal_pipeline.settings import current_run


def raised(function, *arguments):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one it is, is the point
        function(*arguments)
    return caught.value


def of_python():
    raise MemoryError


SHORT = {
    "python": (of_python, ""),
    "numpy": (lambda: np.empty((1 << 20, 1 << 20, 1 << 10)), "Unable to allocate 8.00 PiB"),
    "torch": (lambda: torch.empty(1 << 52), "DefaultCPUAllocator: can't allocate memory: you tried to allocate 18"),
    "gpu": (lambda: raise_(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\n#0: frame")), "CUDA"),
}


def raise_(error):
    raise error


@pytest.mark.parametrize("name", SHORT)
def test_short_memory(name):
    function, part = SHORT[name]
    said = str(failure_messages.of_system(raised(function), "cycle_01.train"))
    assert said.startswith("Out of memory in cycle_01.train")
    assert part in said
    assert all(key in said for key in ("model", "training.batch_size", "training.processes"))
    assert "frame" not in said
    assert "\n" not in said
    assert len(said) < 500


def allocate(size):
    return torch.empty(size)


def test_short_memory_of_a_worker():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        error = raised(pool.submit(allocate, 1 << 52).result)
    assert "DefaultCPUAllocator" in str(failure_messages.of_system(error))


def test_what_is_neither_stays_what_it_is():
    for error in (RuntimeError("shapes do not fit"), ValueError("out of memory"), OSError("rmtree"), KeyError("x")):
        assert failure_messages.of_system(error) is None


def test_a_mistake_goes_before_what_it_caused():
    error = DatasetError("wrapped")
    error.__cause__ = UserError("the mistake")
    assert str(failure_messages.users_mistake(error)) == "the mistake"


@pytest.mark.parametrize("verbose", [False, True])
def test_the_command_ends_in_one_message(monkeypatch, verbose):
    def command(**_):
        allocate(1 << 52)

    monkeypatch.setattr(cli.run, "callback", cli._guarded(command))
    monkeypatch.setattr(current_run, "node", "cycle_00.train")
    result = CliRunner().invoke(cli.run, ["--verbose"] if verbose else [])
    assert result.exit_code == 1
    assert result.output.splitlines()[-1].startswith("Error: Out of memory in cycle_00.train (DefaultCPUAllocator")
    assert ("Traceback" in result.output) == verbose


def test_what_may_not_be_read_is_not_asked_to_be_written(tmp_path, monkeypatch):
    def unreadable(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(failure_messages, "dangling", unreadable)  # as in a folder that may not be entered
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    said = str(failure_messages.of_system(raised(unreadable, tmp_path / "x")))
    assert said.startswith(f"{tmp_path}/x: Permission denied. Give yourself the permission to read it")


def test_a_folder_where_a_file_should_be(tmp_path):
    (tmp_path / "summary.json/inside").mkdir(parents=True)
    said = str(failure_messages.of_system(raised(write_json, tmp_path / "summary.json", {})))
    assert said.startswith(f"{tmp_path}/summary.json: ")
    assert "irectory" in said
    assert "Move away" in said


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_link_to_nowhere_where_a_folder_should_be(tmp_path):
    (tmp_path / "run").symlink_to("nowhere")
    said = str(failure_messages.of_system(raised(write_json, tmp_path / "run/x.json", {})))
    assert said == f"{tmp_path}/run: is a link to nowhere, which is not there. Make it, or remove the link."


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_what_a_link_points_to_is_never_removed(tmp_path):
    (tmp_path / "precious/kept").mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to("precious")
    remove(link)
    assert not link.is_symlink()

    link.symlink_to("precious")
    with replacing_folder(link) as new:
        (new / "x").touch()
    assert (link / "x").exists()
    assert not link.is_symlink()

    (tmp_path / ".left.tmp").symlink_to("precious")
    remove_temporary(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"link", "precious"}
    assert (tmp_path / "precious/kept").is_dir()
    remove(tmp_path / "nothing")
