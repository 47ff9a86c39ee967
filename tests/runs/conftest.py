"""Runs of a small project, whole or killed on their way."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from kafal_pipeline.federation.between_rounds import cycle_state
from kafal_pipeline.lifecycle.runner import ResumableSequentialRunner
from kafal_pipeline.pipelines.fal import nodes
from kafal_pipeline.settings import current_run

from ..conftest import draw_nothing

ROOT = Path(__file__).parents[2]

RUN = "smoke/ksas-kcfu/seed_0"


class Killed(BaseException):
    """What no hook and no node can catch, as a SIGKILL."""


@pytest.fixture(scope="session")
def finished(tmp_path_factory, copy_of_project):
    """A project with a finished run in it."""
    folder = copy_of_project(tmp_path_factory.mktemp("finished"))
    run(folder)
    return folder


@pytest.fixture(scope="session")
def untouched(finished, digests):
    """What a run leaves behind that was never interrupted."""
    return digests(finished / "data")


@pytest.fixture
def finished_here(finished, folder):
    """A copy of the project with a finished run in it."""
    shutil.copytree(finished / "data", folder / "data")
    return folder


@pytest.fixture(scope="session")
def stopped(tmp_path_factory, copy_of_project):
    """A function that returns a project in which a run was killed at a place; each is made once."""

    @functools.cache
    def stopped(**place):
        folder = copy_of_project(tmp_path_factory.mktemp("stopped"))
        killed(folder, **place)
        return folder

    return stopped


@pytest.fixture
def killed_here(stopped, folder):
    """A function that makes `folder` a project in which a run was killed at a place."""
    return lambda **place: shutil.copytree(stopped(**place) / "data", folder / "data")


@pytest.fixture
def saved(finished):
    """The same where it is not known which bytes the files had."""
    path = finished / "data/07_model_output" / RUN / "provenance.json"
    before = path.read_text()
    path.write_text(json.dumps(json.loads(before) | {"files": {}}))
    yield finished
    path.write_text(before)


@pytest.fixture
def folder(tmp_path, copy_of_project):
    return copy_of_project(tmp_path)


def run(folder, part=None, **params):
    """Run the pipeline, or the part of it that options of `kedro run` choose."""
    bootstrap_project(folder)
    params = {"tracking": "off", "training": {"checkpoint_every": 0}, **params}
    with (
        pytest.MonkeyPatch.context() as patch,
        KedroSession.create(project_path=folder, env="smoke", runtime_params=params) as session,
    ):
        patch.chdir(folder)
        draw_nothing(patch)
        session.run(pipeline_names=["fal"], runner=ResumableSequentialRunner(), **(part or {}))


def killed(folder, saves=None, node=None, **params):
    """Run until a number of rounds is written down, or a node begins."""
    with pytest.MonkeyPatch.context() as patch:
        if saves is not None:
            original = cycle_state.save
            count = iter(range(1, 100))

            def save(state, sites, store):
                original(state, sites, store)
                if next(count) == saves:
                    store.wait()
                    raise Killed

            patch.setattr(cycle_state, "save", save)
        else:

            def begin(*_arguments, **_options):
                raise Killed

            patch.setattr(nodes, node, begin)
        with pytest.raises(Killed):
            run(folder, **params)
    current_run.resources.close()


@pytest.fixture
def rounds_done(monkeypatch):
    """(cycle, round) of every round that is trained from now on."""
    done = []
    original = cycle_state.save

    def save(state, sites, store):
        done.append((state.cycle, state.round))
        original(state, sites, store)

    monkeypatch.setattr(cycle_state, "save", save)
    return done
