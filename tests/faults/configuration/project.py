"""A project in which `kedro run` meets wrong parameters, and the check of the parameters alone."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from kedro.framework.project import pipelines
from kedro.framework.startup import bootstrap_project
from omegaconf import OmegaConf

import kafal_pipeline
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.lifecycle.current_run import CurrentRun, comparison
from kafal_pipeline.settings import current_run

from .allowed import parsed

ROOT = Path(__file__).parents[3]

SECONDS = 30
"""Of the processor: other programs may keep it busy."""

EARLIER = "data/07_model_output/smoke/random-fedavg/seed_0/cycle_00/metrics.json"


def nested(key, value):
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def as_yaml(key, value):
    """Return the key as nested flow mappings, with the value as it is written."""
    parts = key.split(".")
    return f"{parts[0]}: " + "".join(f"{{{part}: " for part in parts[1:]) + value + "}" * (len(parts) - 1) + "\n"


def with_value(content, key, value):
    """Return the content of a file of parameters with another value for a key, as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(with_key(content, key, value)))


def with_key(content, key, value):
    """Return a copy of nested mappings with another value for a key."""
    changed = json.loads(json.dumps(content))
    section = changed
    for part in key.split(".")[:-1]:
        section = section.setdefault(part, {})
    section[key.rpartition(".")[2]] = value
    return changed


def environment():
    """Return the variables that a process gets."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "KEDRO"))}
    return {**kept, "PYTHONPATH": str(Path(kafal_pipeline.__file__).parents[1]), "COLUMNS": "200"}


@dataclass(frozen=True)
class Outcome:
    """What a command came to."""

    code: int
    output: str
    crash: BaseException | None
    seconds: float
    changed: tuple[str, ...]

    def problems(self, *parts):
        """Return what is wrong with the refusal of a mistake; `parts` must stand in its message."""
        found = []
        if self.crash is not None:
            found.append(f"crashed with {self.crash!r}")
        if self.code != 1:
            found.append(f"exit code {self.code}")
        if self.seconds > SECONDS:
            found.append(f"took {self.seconds:.1f} s of the processor")
        if "Traceback" in self.output or "ERROR" in self.output:
            found.append("a traceback or a log of the error next to the message")
        if len(re.findall(r"^Error: ", self.output, re.MULTILINE)) != 1:
            found.append("not one message")
        found += [f"{part!r} not in the message" for part in parts if part not in flat(self.output)]
        if self.changed:
            found.append(f"changed {self.changed}")
        return [f"{', '.join(found)}: {self.output[-400:]}"] if found else []


def flat(output):
    return " ".join(output.split())


class Project:
    """A project's folder with the data set stored, a split, and results of an earlier run; `kedro run` in it."""

    def __init__(self, root):
        self.root = root
        bootstrap_project(root)
        self.base = yaml.safe_load((ROOT / "conf/base/parameters.yml").read_text())
        self.base["cycles"] = 2
        self.base["dataset"]["label"] = "smoke"
        self.base["partition"]["clients"] = 3
        self.restore()

    def restore(self):
        """Put back what a case has changed."""
        self.write(json.dumps(self.base), "conf/base/parameters.yml")
        self.write("", "conf/fuzz/parameters.yml")
        shutil.copy(ROOT / "conf/base/parameters_compare.yml", self.root / "conf/base")
        self.write('{"accuracy": 0.5}', EARLIER)

    def write(self, content, file):
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def files(self):
        """Return the digests of all files in the folder that the project's folder lies in."""
        return {
            path.relative_to(self.root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.root.parent.rglob("*"))
            if path.is_file() and path.is_relative_to(self.root)
        } | {path.name: "" for path in self.root.parent.iterdir()}

    def run(self, *arguments, pipeline="fal", to="cycle_00.initial_pool"):
        """Run in this process, up to the first training."""
        from kafal_pipeline.cli import run

        pipelines.configure("kafal_pipeline.pipeline_registry")  # as in a new process: forget the last run's cycles
        before, start = self.files(), time.process_time()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.root)
            patch.setattr(current_run, "node", None)  # as in a new process
            result = CliRunner().invoke(run, ["--pipelines", pipeline, *(["--to-nodes", to] if to else []), *arguments])
        seconds, after = time.process_time() - start, self.files()
        changed = tuple(sorted(name for name in {*before, *after} if before.get(name) != after.get(name)))
        crash = None if isinstance(result.exception, SystemExit | None) else result.exception
        return Outcome(result.exit_code, result.output, crash, seconds, changed)

    def run_with(self, key, value, place):
        """Run with a key's value, as YAML, in the place `place`; return the name of that place in messages too."""
        compare = key.split(".")[0] == "compare"
        target = {"pipeline": "compare", "to": "compare.plan"} if compare else {}
        if place == "--params":
            return place, self.run("--params", f"{key}={value}", **target)
        if place == "environment":
            file = "conf/fuzz/parameters.yml"
            self.write(as_yaml(key, value), file)
            return file, self.run("--env", "fuzz", **target)
        file = f"conf/base/parameters{'_compare' if compare else ''}.yml"
        content = {"compare": COMPARE} if compare else self.base
        self.write(with_value(content, key, parsed(value)), file)
        return file, self.run(**target)


COMPARE = yaml.safe_load((ROOT / "conf/base/parameters_compare.yml").read_text())["compare"]


def harmful(changed):
    """Return what a command must not have changed that found out by the data that its parameters are wrong."""
    return [name for name in changed if not name.startswith(("data/02_intermediate/", "data/03_primary/"))]


class Given(dict):
    """What Kedro's loader of parameters is to the check of parameters, without files to read."""

    conf_source, env, base_env, default_run_env = ROOT / "conf", None, "base", "local"

    def __init__(self, key, value):
        self.runtime_params = nested(key, value)
        merged = with_key(PARAMETERS, key, value)
        super().__init__(parameters=merged)


PARAMETERS = yaml.safe_load((ROOT / "conf/base/parameters.yml").read_text()) | {"compare": COMPARE}
PARAMETERS["dataset"]["label"] = "smoke"


def message(key, value):
    """Return what the check of the parameters says of a value; nothing if it is allowed."""
    check = comparison if key.split(".")[0] == "compare" else CurrentRun().activate
    try:
        check(Given(key, value))
    except UserError as error:
        return str(error)
    return ""
