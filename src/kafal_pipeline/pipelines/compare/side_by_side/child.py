"""Runs one run of a comparison in a process of its own: a Kedro session that sends messages."""

import contextlib
import logging
import os
import signal
import sys
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from kedro.framework.project import configure_project, settings
from kedro.framework.session import KedroSession

from kafal_pipeline.common.errors import UserError, Waiting, masked
from kafal_pipeline.common.processes import die_with_parent
from kafal_pipeline.config import resolve
from kafal_pipeline.lifecycle import failure_messages
from kafal_pipeline.lifecycle.current_run import Session
from kafal_pipeline.lifecycle.hooks import ProjectHooks
from kafal_pipeline.lifecycle.runner import ResumableSequentialRunner
from kafal_pipeline.runs import lock as run_lock
from kafal_pipeline.runs import provenance
from kafal_pipeline.runs.code_digest import edited
from kafal_pipeline.runs.layout import Layout

Message = tuple[Literal["cycle", "journal", "taken", "waiting", "failed", "done"], Any]
"""Messages of a run: the cycle it has evaluated, where its journal is, that another process works on it already,
for what it waits, why it failed, that it is done."""

PRELOADED = [
    __name__,
    "kafal_pipeline.federation.workers.worker",
    "kafal_pipeline.federation.trial",
    "kafal_pipeline.evaluation",
    "kafal_pipeline.settings",
    "kafal_pipeline.catalog.atomic",
    "kafal_pipeline.catalog.states",
    "kedro_datasets.json",
    "kedro_datasets.pandas",
    "kedro_datasets.matplotlib",
    "pyarrow.parquet",
    "torch",
]
"""Modules that the runs share, imported once."""


@dataclass(frozen=True)
class Task:
    """What a process is to run.

    `pipeline`: its registered name. `comparison`: name of the comparison, for the tracker; None where nothing is
    tracked. `log`: where everything goes that the run would say on a terminal. `sources`: the parts of its code
    (`sources.code_parts`) as they were before any was imported; None where they decide nothing.
    """

    session: Session
    parameters: dict[str, Any]
    pipeline: str
    comparison: str | None
    log: Path
    sources: tuple[str, ...] | None = None

    @property
    def layout(self) -> Layout:
        """The run's folders and files."""
        return Layout(self.session.root, resolve(self.parameters))


class _Stopped(BaseException):
    """The comparison ends."""


def main(task: Task, connection: Connection) -> None:
    """Run the task; the last message is ``taken``, ``waiting``, ``failed`` or ``done`` unless it is killed."""
    _prepare(task.log)
    hooks = _hooks()

    def say(*message: Any) -> None:
        with contextlib.suppress(OSError):  # the parent may be gone, and ends this process
            connection.send(message)

    try:
        _run(task, say, hooks)
        say("done", None)
    except _Stopped:
        os._exit(1)
    except run_lock.Taken:
        say("taken", None)
    except Waiting as waiting:
        print(waiting, flush=True)  # for the log
        say("waiting", str(waiting).partition("\n")[0].rstrip(":"))
    except UserError as error:
        print(f"Error: {masked(str(error))}", flush=True)  # for the log
        say("failed", masked(str(error)))
    except Exception as error:  # noqa: BLE001 - whatever it is, the other runs continue, and the log has all of it
        traceback.print_exc()
        said = failure_messages.users_mistake(error) or failure_messages.of_system(error, hooks.run.node)
        say("failed", masked(f"{said or f'{type(error).__name__}: {error}'} (see {task.log})"))
    finally:
        hooks.run.resources.close()


def _prepare(log: Path) -> None:
    """Write to the log, be deaf to Ctrl-C, which the parent answers, and be gone when the parent is gone."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    die_with_parent()


def _done_by_another(task: Task) -> bool:
    """Tell whether another command has finished the run since the comparison was planned.

    Raises `run_lock.Taken` if one is at work on it.
    """
    if task.pipeline != "trial":
        return False
    if run_lock.held(task.layout):
        raise run_lock.Taken(task.layout.name)
    return is_finished(task.layout)


def is_finished(run: Layout) -> bool:
    """Tell whether a run has finished with what is on disk now."""
    try:
        return provenance.state(run) == "finished"
    except (provenance.Absent, OSError, SyntaxError, ValueError):  # what decides is gone, or cannot be read
        return False


def _check_code(task: Task) -> None:
    """Refuse to run code that is no longer on disk: its results would be taken for those of the new code.

    Processes are forked off one that has imported the code before the first run.
    """
    if task.sources is None:
        return
    if names := edited(task.layout.config, task.sources):
        raise UserError(
            f"the code of this strategy was edited while the comparison ran: {', '.join(names)}. The same command "
            "resumes with the new code."
        )


def _hooks() -> ProjectHooks:
    """Return the project's hooks, which hold the run of this process."""
    configure_project(__name__.partition(".")[0])
    return next(hooks for hooks in settings.HOOKS if isinstance(hooks, ProjectHooks))


def _run(task: Task, say: Any, hooks: ProjectHooks) -> None:
    _check_code(task)
    if _done_by_another(task):
        return
    hooks.join(
        task.parameters,
        task.comparison,
        on_cycle=lambda cycle: say("cycle", cycle),
        on_journal=lambda journal: say("journal", str(journal)),
    )
    logging.captureWarnings(True)
    with KedroSession.create(
        project_path=task.session.root,
        env=task.session.env,
        conf_source=task.session.conf_source,
        runtime_params=dict(task.session.runtime_params),
    ) as session:
        session.run(  # type: ignore[call-arg]  # of KedroSession; its base class has other arguments
            pipeline_names=[task.pipeline], runner=ResumableSequentialRunner()
        )
    try:
        _check_code(task)
    except UserError:  # edited before its results began: they were filed under code that did not make them
        if is_finished(task.layout):
            provenance.forget(task.layout)
        raise


def _stop(number: int, frame: object) -> None:
    raise _Stopped
