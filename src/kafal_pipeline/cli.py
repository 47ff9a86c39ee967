"""`kedro run` with mistakes in one message, and interruptions and missing labels that say how to resume."""

from __future__ import annotations

import atexit
import copy
import functools
import logging
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from kedro import KedroDeprecationWarning
from kedro.config import MissingConfigException
from kedro.framework.cli.project import run as kedro_run
from kedro.io import DatasetError
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from kafal_pipeline.common.brackets import split_outside_brackets
from kafal_pipeline.common.errors import UserError, Waiting, did_you_mean
from kafal_pipeline.common.processes import end_quickly
from kafal_pipeline.config import parameter_files
from kafal_pipeline.lifecycle import failure_messages
from kafal_pipeline.runs.layout import FIRST_NODE
from kafal_pipeline.settings import HOOKS, current_run

WAITING = 75
"""Exit code of a run that waits for labels: EX_TEMPFAIL of sysexits.h."""

ASKED_FOR_WRONGLY = (ValueError, OmegaConfBaseException, MissingConfigException, YAMLError, DatasetError)
"""Kedro's exceptions before the first node, where a pipeline, node or environment is not there or a file is broken."""


class Terminated(BaseException):
    """The process was asked to end (SIGTERM); like KeyboardInterrupt no Exception, so that nothing swallows it."""


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    def handler(signum: int, frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _SaidOnce(logging.Filter):
    """Drops what Kedro logs about a user's mistake: the command ends with the one message about it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to keep a record."""
        return _message(sys.exc_info()[1]) is None


_said_once = _SaidOnce()


def _message(error: BaseException | None) -> UserError | str | None:
    """Return what to say of an error instead of its traceback; None if it is the program's own.

    A file of the configuration that cannot be read is told as such, whatever the system says of it.
    """
    mistake = failure_messages.users_mistake(error)
    if mistake is not None:
        return mistake
    found = failure_messages.of_system(error, current_run.node)
    return found and ((None if current_run.node else current_run.broken_file()) or found)


def _asked_for_wrongly(error: Exception, runner: str) -> bool:
    """Tell whether Kedro could not do what the command line or the configuration says, before the first node."""
    if isinstance(error, ASKED_FOR_WRONGLY):
        return current_run.node is None
    # Kedro imports the runner without asking whether it is there.
    name = runner.rpartition(".")[2]
    return isinstance(error, AttributeError | ImportError) and bool(name) and name in str(error)


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def guarded(*args: Any, verbose: bool = False, **kwargs: Any) -> Any:
        # `--pipeline` is what users know, and works; its successor `--pipelines` works too.
        warnings.filterwarnings("ignore", message="Option '--pipeline' is deprecated", category=KedroDeprecationWarning)
        for name in ("kedro.pipeline.node", "kedro.runner.sequential_runner", "kafal_pipeline.lifecycle.runner"):
            logging.getLogger(name).addFilter(_said_once)
        atexit.register(end_quickly)
        try:
            with _sigterm_raises():
                return function(*args, **kwargs)
        except (KeyboardInterrupt, Terminated) as interruption:
            HOOKS[0].abort()
            terminated = isinstance(interruption, Terminated)
            click.echo("\nTerminated." if terminated else "\nInterrupted.", err=True)
            if current_run.node and current_run.kind.trains:
                without = ", without restart=true," if current_run.config.restart is True else ""
                click.echo(f"The same command{without} resumes from the last saved round.", err=True)
            raise click.exceptions.Exit(143 if terminated else 130) from None
        except Waiting as waiting:
            click.echo(f"\n{waiting}")
            if current_run.config.restart is True and current_run.kind.begins and current_run.node != FIRST_NODE:
                click.echo("Give it without restart=true, which would start again.")
            raise click.exceptions.Exit(WAITING) from None
        except Exception as error:
            message = _message(error)
            if message is None and not _asked_for_wrongly(error, str(kwargs.get("runner") or "")):
                raise
            if verbose:
                click.echo("".join(traceback.format_exception(error)), err=True)
            raise click.ClickException(f"{message or current_run.broken_file() or error}") from None

    return guarded


def _split_params(context: click.Context, option: click.Parameter, value: Any) -> Any:
    """Read ``--params`` as Kedro does, but leave commas inside of brackets alone: ``compare.seeds=[0,1],cycles=3``."""
    if isinstance(value, dict):  # from the file of --config
        return value
    if not isinstance(value, str):  # the option may be given several times
        value = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value or "")
    items = split_outside_brackets(value)
    wrong = next((item for item in items if not item.partition("=")[0].strip() or "=" not in item), None)
    if wrong is not None:
        raise _bad_params(f"found {wrong!r}; write key=value, and lists as key=[a,b].")
    try:
        pairs = [(key.strip(), text) for key, _, text in (item.partition("=") for item in items)]
        for key, text in pairs:
            if problem := parameter_files.misread(text):
                raise _bad_params(f"{key}: {problem}")
        return OmegaConf.to_container(OmegaConf.from_dotlist([f"{key}={text}" for key, text in pairs]))
    except (YAMLError, OmegaConfBaseException, IndexError) as error:  # the last of "[=1"
        raise _bad_params(f"{value!r} cannot be read: {' '.join(str(error).split())}") from None


def _read_config(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Read ``--config`` as Kedro does: its section ``run`` has what the command line leaves out."""
    if value is None:
        return None
    file = Path(value)
    problem = parameter_files.unreadable(file) or parameter_files.misread(file.read_text(encoding="utf-8"))
    content: Any = {"run": {}} if problem else OmegaConf.to_container(OmegaConf.load(file))
    section = content.get("run")
    names = [parameter.name for parameter in context.command.params if parameter.name]
    if not isinstance(section, dict):
        problem = f"found no section `run`. Write the options into it: {', '.join(names)}."
    elif unknown := [str(key) for key in section if key not in names]:
        problem = f"run.{unknown[0]}: unknown option. {did_you_mean(unknown[0], names)}"
    if problem:
        raise click.ClickException(f"--config: {value}: {problem}")
    context.default_map = {**(context.default_map or {}), **section}
    return value


def _bad_params(sentence: str) -> click.ClickException:
    """Return the error of a value of ``--params``: exit code 1 as for all bad input; 2 is for options there are not."""
    return click.ClickException(f"--params: {sentence}")


@click.group(name="kafal_pipeline")
def cli() -> None:
    """Federated active learning."""


class _Params(click.Option):
    """``--params``, also several times; in the file of ``--config`` a mapping or a text, as Kedro takes them."""

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Leave the value to the callback."""
        return value


run = copy.copy(kedro_run)
run.callback = _guarded(kedro_run.callback)  # type: ignore[arg-type]
run.params = [copy.copy(option) for option in kedro_run.params]
for _index, _option in enumerate(run.params):
    if _option.name == "params":
        help_text = getattr(_option, "help", None)
        run.params[_index] = _Params(["--params"], callback=_split_params, multiple=True, help=help_text)
    elif _option.name == "config":
        _option.callback = _read_config
    elif _option.name == "runner":
        _option.default = "kafal_pipeline.lifecycle.runner.ResumableSequentialRunner"
run.params.append(click.Option(["--verbose"], is_flag=True, help="Show the traceback of a mistake too."))
cli.add_command(run)
