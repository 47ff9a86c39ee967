"""A project for all tests of wrong configuration."""

from __future__ import annotations

import pytest

from kafal_pipeline.settings import current_run

from .project import Project


@pytest.fixture(scope="module", autouse=True)
def _no_run_is_left_active():
    yield
    current_run._config = None


@pytest.fixture(scope="session")
def folder(tmp_path_factory, copy_of_project):
    made = Project(copy_of_project(tmp_path_factory.mktemp("fuzz") / "project"))
    for pipeline, to in (("fal", "cycle_00.initial_pool"), ("compare", "compare.plan")):
        outcome = made.run(pipeline=pipeline, to=to)
        assert outcome.code == 0, outcome.output
    made.restore()
    return made
