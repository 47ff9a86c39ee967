"""The processor that results were made on, and what else decides about their last bits."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kafal_pipeline.common import machine
from kafal_pipeline.config import resolve
from kafal_pipeline.lifecycle import guard
from kafal_pipeline.lifecycle.current_run import CurrentRun
from kafal_pipeline.runs import provenance, resume
from kafal_pipeline.runs.layout import Layout
from kafal_pipeline.tracking.describe import hardware_tags

INTEL = """processor\t: 0
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8480C
flags\t\t: fpu sse2 avx2 avx512f avx512_bf16 amx_bf16 avx_vnni

processor\t: 1
model name\t: another
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd sve i8mm bf16\nCPU part\t: 0xd40\n"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that has begun on one processor, without any setting."""
    for name in machine.ARITHMETIC:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(provenance, "fingerprint", lambda run: {})
    monkeypatch.setattr(machine, "processor", lambda: "One (avx2)")
    run = Layout(tmp_path, resolve({}))
    run.outputs.mkdir(parents=True)
    provenance.begin(run)
    return run


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (INTEL, "Intel(R) Xeon(R) Platinum 8480C (cpu family 6, model 143; avx2 avx512f avx512_bf16 amx_bf16)"),
        (ARM, "(CPU part 0xd40; asimd sve bf16)"),
    ],
)
def test_the_processor_has_a_name_a_family_and_instructions(tmp_path, content, expected):
    (tmp_path / "cpuinfo").write_text(content)
    assert machine.processor(tmp_path / "cpuinfo").endswith(expected)


def test_everything_that_names_the_processor_names_the_same():
    assert hardware_tags()["hardware.cpu"] == machine.processor() == machine.arithmetic()["processor"]


def test_a_run_notes_where_it_was_begun(run, caplog):
    assert provenance.processor_of(run) == "One (avx2)"
    resume.warn_of_another_machine(run)
    assert not caplog.records


@pytest.mark.parametrize(("node", "asked"), [("cycle_01.train", True), ("cycle_00.initial_pool", False)])
def test_every_node_that_goes_on_asks(run, monkeypatch, node, asked):
    calls = []
    monkeypatch.setattr(CurrentRun, "layout", run)
    monkeypatch.setattr(guard, "prepare", lambda config: None)
    monkeypatch.setattr(resume, "warn_of_another_machine", calls.append)
    guard.Guard(CurrentRun()).before_node(SimpleNamespace(name=node), {})
    assert calls == ([run] if asked else [])


def test_resuming_elsewhere_or_under_other_settings_is_reported_and_noted(run, monkeypatch, caplog):
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    monkeypatch.setattr(machine, "processor", lambda: "Two (avx512f)")
    resume.warn_of_another_machine(run)
    assert "MKL_CBWR: not set then, COMPATIBLE now; processor: One (avx2) then, Two (avx512f) now" in caplog.text
    assert provenance.processor_of(run) == "One (avx2), then Two (avx512f)"
    caplog.clear()
    resume.warn_of_another_machine(run)  # the next node
    assert not caplog.records
    monkeypatch.delenv("MKL_CBWR")
    resume.warn_of_another_machine(run)
    assert "MKL_CBWR: COMPATIBLE then, not set now" in caplog.text
