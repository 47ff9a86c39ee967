"""No finished run is lost by surprise."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import write_json
from kafal_pipeline.config import resolve
from kafal_pipeline.pipelines.compare import nodes
from kafal_pipeline.pipelines.compare.plan import Planned
from kafal_pipeline.runs import provenance, resume
from kafal_pipeline.runs.layout import Layout


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A run with two cycles; the function says when it finished."""
    before = resolve({"cycles": 2})
    there = Layout(tmp_path, before)
    there.outputs.mkdir(parents=True)
    write_json(there.configuration, provenance.deciding(before))

    def make(finished):
        found = SimpleNamespace(
            finished=finished, fingerprint={"configuration": provenance.configuration_digest(before)}
        )
        monkeypatch.setattr(provenance, "read", lambda run: found if run.outputs == there.outputs else None)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("changes", "finished", "refused"),
    [
        ({"cycles": 3}, "2026-01-01", True),
        ({}, "2026-01-01", False),  # the same run again gives the same bits
        ({"training": {"processes": 2}}, "2026-01-01", False),
        ({"cycles": 3}, None, False),  # an interrupted one, without a round
        ({"cycles": 3, "restart": True}, "2026-01-01", False),  # asked for
        ({"cycles": 3, "restart": "if_changed"}, "2026-01-01", False),  # as DVC asks
        ({"cycles": 3, "dataset": {"label": "other"}}, "2026-01-01", False),
    ],
)
def test_a_finished_run_with_other_parameters_is_replaced_only_where_that_is_asked_for(
    there, monkeypatch, changes, finished, refused
):
    now = Layout(there(finished), resolve({"cycles": 2, **changes}))
    item = Planned(now, "absent")
    plan = SimpleNamespace(runs=(item,), missing=(item,))
    monkeypatch.setattr(nodes, "make_plan", lambda *arguments: plan)
    section = SimpleNamespace(run_missing=True)
    monkeypatch.setattr(nodes, "resolve_comparison", lambda parameters: (section, [now.config]))
    if refused:
        said = "cycles: 2 then, 3 now.*dataset.label=.*restart=true"
        with pytest.raises(UserError, match=said):
            resume.check_parameters(now)
        with pytest.raises(UserError, match=f"1 of the 1 runs .*{now.name} .{said}"):
            nodes.plan({}, None, now.root)
        section.run_missing = False
    else:
        resume.check_parameters(now)
    assert nodes.plan({}, None, now.root) is plan
