"""What processes say of themselves to the system."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kafal_pipeline import machine

linux = pytest.mark.skipif(not machine.AUTOGROUP.exists(), reason="cores are not shared out by session here")

CODE = """
import os
from kafal_pipeline import machine
before = machine.AUTOGROUP.read_text().split()[-1] if machine.AUTOGROUP.exists() else None
machine.give_way(7)
after = machine.AUTOGROUP.read_text().split()[-1] if machine.AUTOGROUP.exists() else None
print(os.nice(0), before, after)
"""


def told(new_session: bool) -> list[str]:
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, capture_output=True, text=True, check=True, start_new_session=new_session)
    return done.stdout.split()


@linux
def test_a_session_of_its_own_gives_way_as_a_whole():
    value, before, after = told(new_session=True)
    assert (value, before, after) == (str(os.nice(0) + 7), "0", value)


@linux
def test_the_session_of_others_stays_as_it_is():
    value, before, after = told(new_session=False)
    assert value == str(os.nice(0) + 7)
    assert before == after


def test_what_the_system_refuses_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "AUTOGROUP", tmp_path / "absent" / "autogroup")
    monkeypatch.setattr(os, "getsid", lambda _pid: os.getpid())
    machine.give_way(0)
    monkeypatch.delattr(os, "nice")
    machine.give_way(7)
