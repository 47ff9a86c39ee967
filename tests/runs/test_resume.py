"""What is said before results are replaced."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kafal_pipeline.common.files import write_json
from kafal_pipeline.config import resolve
from kafal_pipeline.runs import provenance, resume


@pytest.mark.parametrize(
    ("changes", "finished", "said"),
    [
        ({"cycles": 3}, "2026-01-01", True),
        ({}, "2026-01-01", False),  # the same run again gives the same bits
        ({"cycles": 3}, None, False),  # an interrupted one is refused
        ({"cycles": 3, "restart": True}, "2026-01-01", False),  # asked for
        ({"cycles": 3, "dataset": {"label": "other"}}, "2026-01-01", False),
    ],
)
def test_who_replaces_a_finished_run_with_other_parameters_is_warned(
    tmp_path, monkeypatch, caplog, changes, finished, said
):
    before, now = resolve({"cycles": 2}), resolve({"cycles": 2, **changes})
    folder = tmp_path / provenance.OUTPUTS / before.run_path
    folder.mkdir(parents=True)
    write_json(folder / provenance.CONFIGURATION, provenance.deciding(before))
    found = SimpleNamespace(finished=finished)
    monkeypatch.setattr(provenance, "read", lambda path: found if path == folder else None)
    resume.warn_of_replaced(tmp_path, now)
    assert bool(caplog.records) == said
    if said:
        assert "cycles: 2 then, 3 now" in caplog.text and "dataset.label" in caplog.text
