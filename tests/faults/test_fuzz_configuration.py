"""Wrong configuration, whatever is wrong with it: exit code 1, one message, no traceback, nothing else touched.

The cases are made, not listed: every key of every parameters file with every value of `VALUES`, every key and every
name one letter off, broken files, contradictions. What a value is to lead to is decided by `KEYS`, which says for each
key what `conf/base` and the documentation allow, independently of the models that check it: a value that is not allowed
must be refused by the check of the parameters, in the name of its file and key, before anything is written; one that is
allowed must pass that check, though the data may contradict it later, again in a message.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_type_hints

import pytest
import yaml
from click.testing import CliRunner
from kedro.config import OmegaConfigLoader
from kedro.framework.project import pipelines
from kedro.framework.startup import bootstrap_project
from omegaconf import OmegaConf
from pydantic import BaseModel, PydanticSchemaGenerationError, TypeAdapter

import kafal_pipeline
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.registry import load
from kafal_pipeline.config import Config, DatasetConfig, ModelConfig, PartitionConfig
from kafal_pipeline.config.strategy import Strategy
from kafal_pipeline.data.sources import find_source
from kafal_pipeline.lifecycle.current_run import CurrentRun, comparison
from kafal_pipeline.models import MODELS
from kafal_pipeline.query import QUERIES
from kafal_pipeline.settings import CONFIG_LOADER_ARGS, current_run
from kafal_pipeline.update import UPDATES
from kafal_pipeline.update.losses import LOSSES

ROOT = Path(__file__).parents[2]
SECONDS = 10
SECONDS_OF_A_RUN = 60
EARLIER = "data/07_model_output/smoke/random-fedavg/seed_0/cycle_00/metrics.json"

VALUES = (
    "null", "true", "''", "x", "'β☃'", "../../etc/passwd", "[1, 2]", "[]", "{a: 1}", "-1", "0", "1.5", ".nan", "-.inf",
    "1e400", "99999999999999999999", '"a\\0b"', "2020-01-01", "x" * 5000, "[[[[]]]]", "{'': {'': null}}", "~nobody/x",
)  # fmt: skip
"""As YAML."""


LARGEST_WHOLE, LARGEST_NUMBER, SMALLEST_RATE = 10**9, 1e30, 1e-12


def number(above=None, least=-LARGEST_NUMBER, below=None, most=LARGEST_NUMBER):
    def allowed(value):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return (above is None or value > above) and (below is None or value < below) and least <= value <= most

    return allowed


def whole(least, most=LARGEST_WHOLE):
    bounds = number(least=least, most=most)
    return lambda value: bounds(value) and float(value).is_integer()


def choice(*names):
    return lambda value: isinstance(value, str) and value in names


def flag(value):
    return isinstance(value, bool) or (not isinstance(value, str | list | dict) and value in (0, 1))


def text(value):
    return isinstance(value, str)


def folder_name(value):
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}", value) is not None


def nothing(value):
    return False


def null_or(allowed):
    return lambda value: value is None or allowed(value)


def each(allowed, least=0):
    return lambda value: isinstance(value, list) and len(value) >= least and all(map(allowed, value))


def amount(value):
    return number(above=0, most=LARGEST_WHOLE)(value) and (isinstance(value, int) or value <= 1)


DRAWN = ("iid", "dirichlet", "dirichlet_balanced", "shards", "quantity_skew")
EMNIST = ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")

KEYS = {
    "seed": whole(0, 2**32 - 1),
    "cycles": whole(1, 250),
    "preset": choice("kafal_code", "kafal_paper"),
    "query": null_or(nothing),  # none of VALUES names one
    "update": null_or(nothing),
    "restart": lambda value: value in (False, True, "if_changed"),
    "dataset": lambda value: value == {},
    "dataset.name": folder_name,
    "dataset.label": null_or(folder_name),
    "dataset.path": null_or(text),
    "dataset.download": flag,
    "dataset.emnist_split": choice(*EMNIST),
    "dataset.image_size": null_or(whole(5, 1024)),
    "dataset.resize": choice("squash", "crop", "pad"),
    "dataset.mean": null_or(each(number(least=-1000, most=1000))),
    "dataset.std": null_or(each(number(least=1e-4, most=1000))),
    "partition.method": choice(*DRAWN, "file", "natural"),
    "partition.clients": whole(1, 100_000),
    "partition.alpha": number(above=0, most=1e9),
    "partition.min_size": whole(1),
    "partition.classes_per_client": whole(1),
    "partition.path": null_or(text),
    "partition.when_absent": null_or(choice(*DRAWN)),
    "partition.samples_per_client": null_or(whole(1)),
    "partition.long_tail": null_or(nothing),
    "partition.long_tail.imbalance_ratio": number(least=1, most=1e9),
    "partition.long_tail.profile": choice("exponential", "step"),
    "budget.initial": amount,
    "budget.per_cycle": amount,
    "model.name": choice(*MODELS),
    "model.normalisation": choice("batch", "group"),
    "model.pretrained": null_or(nothing),  # none of VALUES is a file
    "federation.rounds": whole(1, 10**6),
    "federation.participation": number(above=0, most=1),
    "federation.participants_rounding": null_or(choice("floor", "ceil")),
    "federation.all_clients_last_round": null_or(flag),
    "federation.between_cycles": choice("continue", "fresh"),
    "federation.client_momentum": choice("kept", "reset"),
    "federation.on_client_failure": choice("fail", "skip"),
    "federation.batch_norm": choice("averaged", "local"),
    "training": lambda value: value == {},
    "training.local_epochs": whole(1, 10**6),
    "training.batch_size": whole(1, 10**6),
    "training.batches": choice("equal", "published"),
    "training.lr": number(least=SMALLEST_RATE),
    "training.lr_drop_epoch": null_or(whole(1, 10**6)),
    "training.lr_drop_factor": number(least=SMALLEST_RATE, most=1),
    "training.momentum": number(least=0, below=1),
    "training.weight_decay": number(least=0, most=10),
    "training.augmentation": nothing,
    "training.augmentation.flip": flag,
    "training.augmentation.crop_padding": whole(0, 64),
    "training.precision": choice("fp32", "tf32", "bf16"),
    "training.device": choice("auto", "cpu"),
    "training.processes": lambda value: value == "auto" or whole(1, 1024)(value),
    "training.cuda_graphs": flag,
    "training.checkpoint_every": number(least=0, most=1e9),
    "training.deterministic": flag,
    "query_training.epochs": null_or(whole(1, 10**6)),
    "query_training.lr": null_or(number(least=SMALLEST_RATE)),
    "tracking.enabled": flag,
    "tracking.required": flag,
    "tracking.uri": null_or(text),
    "tracking.experiment": null_or(text),
    "tracking.system_metrics": flag,
    "tracking.log_model": flag,
    "compare": lambda value: value == {},
    "compare.name": folder_name,
    "compare.queries": nothing,
    "compare.updates": null_or(nothing),
    "compare.seeds": lambda value: whole(0, 2**32 - 1)(value) or each(whole(0, 2**32 - 1), least=1)(value),
    "compare.baseline": choice("random"),
    "compare.alpha": number(above=0, below=1),
    "compare.targets": each(number(above=0, most=1)),
    "compare.jobs": lambda value: value == "auto" or whole(1, 1024)(value),
    "compare.memory_limit": null_or(number(above=0, most=1e6)),
    "compare.run_missing": flag,
}
LEAVES = [key for key in KEYS if not any(other.startswith(f"{key}.") for other in KEYS)]


def parsed(value):
    return OmegaConf.to_container(OmegaConf.create(f"value: {value}"))["value"]


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
            found.append(f"took {self.seconds:.1f} s")
        if "Traceback" in self.output or "ERROR" in self.output:
            found.append("a traceback or a log of the error beside the message")
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
        before, start = self.files(), time.monotonic()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.root)
            patch.setattr(current_run, "node", None)  # as in a new process
            result = CliRunner().invoke(run, ["--pipelines", pipeline, *(["--to-nodes", to] if to else []), *arguments])
        seconds, after = time.monotonic() - start, self.files()
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory, copy_of_project):
    made = Project(copy_of_project(tmp_path_factory.mktemp("fuzz") / "project"))
    for pipeline, to in (("fal", "cycle_00.initial_pool"), ("compare", "compare.plan")):
        outcome = made.run(pipeline=pipeline, to=to)
        assert outcome.code == 0, outcome.output
    made.restore()
    yield made
    current_run._config = None


def harmful(changed):
    """Return what a command must not have changed that found out by the data that its parameters are wrong."""
    return [name for name in changed if not name.startswith(("data/02_intermediate/", "data/03_primary/"))]


def problems_with(folder, key, value, place):
    """Return what is wrong with how a value is met."""
    found = parsed(value)
    source, outcome = folder.run_with(key, value, place)
    folder.restore()
    if not KEYS[key](found):
        # A rule of the section, such as that shares are at most 1, names the key in its sentence.
        section, _, name = key.rpartition(".")
        by_rule = f"{source}: {section}: {name}" in flat(outcome.output)
        problems = outcome.problems(source, f"{section}: {name}" if by_rule else key)
    elif outcome.code == 0:
        problems = [] if outcome.crash is None else [f"crashed with {outcome.crash!r}"]
    elif f"{source}: {key}: " in flat(outcome.output):
        problems = [f"allowed and refused: {outcome.output[-400:]}"]
    else:
        later = Outcome(outcome.code, outcome.output, outcome.crash, outcome.seconds, tuple(harmful(outcome.changed)))
        problems = later.problems(key.rpartition(".")[0])
    return [f"{key}: {value[:30]} in {place}: {problem}" for problem in problems]


def cases_of(key):
    """Return every value for the key, each in a place drawn for it."""
    draw = random.Random(key)
    return [(value, draw.choice(["environment", "--params", "base"])) for value in VALUES]


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


def says_what_is_allowed(said):
    """Tell whether a refusal lists or describes what is allowed, as sections do with their keys."""
    return re.search(r"[Aa]llowed: |Did you mean|must be |there is no file", said) is not None


@pytest.mark.parametrize("key", KEYS)
def test_values_of_each_key(key):
    wrong = []
    section, _, name = key.rpartition(".")
    for text in VALUES:
        found = parsed(text)
        said = message(key, found)
        if KEYS[key](found) != (not said):
            wrong.append(f"{text[:30]}: {said or 'accepted'}")
        elif said and f"--params: {key}" not in said and f"{section}: {name}" not in said:
            wrong.append(f"{text[:30]}: does not name the key: {said}")
        elif said and not says_what_is_allowed(said):
            wrong.append(f"{text[:30]}: does not say what is allowed: {said}")
    assert not wrong


@pytest.mark.parametrize("key", list(KEYS)[::3])
def test_a_wrong_value_of_a_key_through_the_command(folder, key):
    refused = [case for case in cases_of(key) if not KEYS[key](parsed(case[0]))]
    assert not problems_with(folder, key, *random.Random(key).choice(refused))


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_values_of_each_key_through_the_command(folder, key):
    assert not [problem for case in cases_of(key) for problem in problems_with(folder, key, *case)]


SMALL = {
    "cycles": 2,
    "partition": {"clients": 2, "method": "iid", "samples_per_client": 40},
    "budget": {"initial": 10, "per_cycle": 3},
    "federation": {"rounds": 2, "participation": 1.0},
    "training": {"local_epochs": 1, "processes": 1, "checkpoint_every": 1e9},
    "query_training": {"epochs": 1},
    "model": {"name": "cnn4", "width": 4},
    "tracking": {"enabled": False},
}
"""A whole run in about a second."""

ASKED_FOR = {"federation.rounds", "training.local_epochs", "query_training.epochs", "dataset.image_size", "model.width"}
"""Keys whose largest value is done as asked for, which takes days or more memory than there is."""

WITH = {
    "update.smoothing": {"absent_class_weight": "smoothed"},
    "training.lr_drop_factor": {"lr_drop_epoch": 1},
    "partition.alpha": {"method": "dirichlet"},
    "partition.min_size": {"method": "dirichlet"},
    "partition.classes_per_client": {"method": "shards"},
}
"""What a key needs beside it to matter."""


def numbers(schema):
    """Yield the parts of a JSON schema that describe numbers; a union's bounds are those of its parts."""
    own = {key: value for key, value in schema.items() if key in {"ge", "gt", "le", "lt"}}
    if schema.get("type") in {"integer", "number"}:
        yield schema
    for part in schema.get("anyOf", ()):
        yield from numbers({**own, **part})


def extremes(annotation, metadata=()):
    """Return the smallest and the largest number that an annotation allows; None if it allows none."""
    for item in metadata:
        annotation = Annotated[annotation, item]
    try:
        found = list(numbers(TypeAdapter(annotation).json_schema()))
    except PydanticSchemaGenerationError:
        return None
    if not found:
        return None
    schema = found[-1]  # of a share or a number, the number
    is_whole = schema["type"] == "integer"
    default = LARGEST_WHOLE if is_whole else LARGEST_NUMBER
    least = schema.get("minimum", schema.get("ge", -default))
    most = schema.get("maximum", schema.get("le", default))
    for bound, way in ((schema.get("exclusiveMinimum", schema.get("gt")), 1), (schema.get("exclusiveMaximum"), -1)):
        if bound is not None:
            inside = bound + way if is_whole else math.nextafter(bound, way * math.inf)
            least, most = (inside, most) if way == 1 else (least, inside)
    return least, most


def of_sections(model, prefix=""):
    for key, item in model.model_fields.items():
        if isinstance(item.annotation, type) and issubclass(item.annotation, BaseModel):
            if item.annotation not in (Strategy, ModelConfig):
                yield from of_sections(item.annotation, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", {}, extremes(item.annotation, item.metadata)
    if model is DatasetConfig:
        yield from (("dataset.mean", {}, ([-1000], [1000])), ("dataset.std", {}, ([1e-4], [1000])))
    if model is PartitionConfig:
        for profile in ("exponential", "step"):
            tails = tuple({"imbalance_ratio": ratio, "profile": profile} for ratio in (1, 1e9))
            yield "partition.long_tail", {}, tails


def of_options():
    for kind, entries in (("query", QUERIES), ("update", UPDATES)):
        for name in entries:
            for key, annotation in get_type_hints(load(kind, name, entries), include_extras=True).items():
                yield f"{kind}.{key}", {"name": name}, extremes(annotation)
    for name, loss in LOSSES.items():
        for key, item in inspect.signature(loss, eval_str=True).parameters.items():
            if item.kind is item.KEYWORD_ONLY:
                yield f"update.loss.{key}", {"name": name}, extremes(item.annotation)
    for name in MODELS:
        for key, item in inspect.signature(load("model", name, MODELS), eval_str=True).parameters.items():
            if key not in {"in_channels", "num_classes"}:
                yield f"model.{key}", {"name": name}, extremes(item.annotation)


EXTREMES = [
    pytest.param(key, {**beside, **WITH.get(key, {})}, value, id=f"{key}-{beside.get('name', '')}-{value}")
    for key, beside, found in [*of_sections(Config), *of_options()]
    for value in (found or ())
    if not (key in ASKED_FOR and value == found[1])
]


def merged(first, second):
    """Return nested mappings with those of another over them."""
    both = {
        key: merged(first[key], second[key]) for key in first.keys() & second.keys() if isinstance(first[key], dict)
    }
    return {**first, **second, **both}


@pytest.fixture(scope="module")
def small(tmp_path_factory, copy_of_project):
    made = Project(copy_of_project(tmp_path_factory.mktemp("extremes") / "project"))
    made.base = merged(made.base, SMALL)
    yield made
    current_run._config = None


@pytest.mark.slow
@pytest.mark.parametrize(("key", "beside", "value"), EXTREMES)
def test_the_ends_of_what_is_allowed_through_a_whole_run(small, key, beside, value):
    """What is accepted is done, or found out by the data or the training, and told."""
    section, _, name = key.rpartition(".")
    given = nested(key, value) if not section else nested(section, {**beside, name: value})
    if section == "update.loss":
        given["update"]["name"] = "fedavg"
    small.base, before = merged(small.base, given), small.base
    small.restore()
    outcome = small.run(to=None)
    small.base = before
    told = Outcome(outcome.code, outcome.output, outcome.crash, outcome.seconds - SECONDS_OF_A_RUN, ())
    assert (outcome.code == 0 and outcome.crash is None) or not told.problems()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("verbose", [False, True])
def test_a_run_without_memory(small, verbose):
    small.restore()
    params = "model={name: cnn4, width: 4096}"
    result = subprocess.run(
        ["bash", "-c", 'ulimit -v 6000000; exec "$@"', "limited", sys.executable, "-m", "kedro", "run", "--pipeline",
         "fal", "--params", params, *(["--verbose"] if verbose else [])],
        cwd=small.root, env=environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "Error: Out of memory in cycle_00.train" in result.stderr
    assert ("Traceback" in result.stdout + result.stderr) == verbose


PRESETS = sorted(path.parent.name for path in (ROOT / "conf").glob("*/parameters.yml") if path.parent.name != "base")


def leaves(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_every_key_of_the_files_is_tried():
    files = [*(ROOT / "conf").glob("*/parameters*.yml")]
    assert len(files) > 9
    assert {key for file in files for key in leaves(yaml.safe_load(file.read_text()))} <= set(KEYS)


@pytest.mark.parametrize(
    "preset", [name if name == "smoke" else pytest.param(name, marks=pytest.mark.slow) for name in PRESETS]
)
def test_keys_of_the_presets(folder, preset):
    """Each key of a preset's file in its place, with two values that are not allowed and one letter off."""
    file = folder.root / f"conf/{preset}/parameters.yml"
    original = file.read_text()
    draw = random.Random(preset)
    wrong = []
    for key in leaves(yaml.safe_load(original)):
        refused = [value for value in VALUES if not KEYS[key](parsed(value))]
        for value in draw.sample(refused, 2):
            file.write_text(with_value(yaml.safe_load(original), key, parsed(value)))
            loader = OmegaConfigLoader(str(folder.root / "conf"), env=preset, **CONFIG_LOADER_ARGS)
            try:
                CurrentRun().activate(loader, folder.root)
                wrong.append(f"{key}: {value[:30]}: accepted")
            except UserError as error:
                section, _, name = key.rpartition(".")
                spoken_of = [f"conf/{preset}/parameters.yml: {part}" for part in (key, f"{section}: {name}")]
                if not any(part in str(error) for part in spoken_of):
                    wrong.append(f"{key}: {value[:30]}: {error}")
    file.write_text(original)
    assert not wrong


def one_off(name, draw):
    """Return a name with one letter doubled, left out, or exchanged with its neighbour."""
    place = draw.randrange(1, len(name)) if len(name) > 1 else 0
    changes = [name[:place] + name[place - 1 :], name[:place] + name[place + 1 :] if len(name) > 3 else f"{name}x"]
    return draw.choice([changed for changed in changes if changed != name])


def misspelt(key):
    """Return the key with its last part one letter off."""
    section, _, name = key.rpartition(".")
    draw = random.Random(key)
    while (other := f"{section}.{one_off(name, draw)}".lstrip(".")) in KEYS:
        pass
    return other


@pytest.mark.parametrize("key", KEYS)
def test_unknown_keys_one_letter_off(key):
    said = message(misspelt(key), 1)
    assert f"--params: {misspelt(key)}: unknown" in said
    assert f"Did you mean '{key.rpartition('.')[2]}'?" in said


SECTIONS = sorted({key.rpartition(".")[0] for key in KEYS})


@pytest.mark.parametrize("section", SECTIONS)
def test_unknown_keys_through_the_command(folder, section):
    key = next(key for key in KEYS if key.rpartition(".")[0] == section)
    folder.write(as_yaml(misspelt(key), "1"), "conf/fuzz/parameters.yml")
    target = {"pipeline": "compare", "to": "compare.plan"} if section == "compare" else {}
    outcome = folder.run("--env", "fuzz", **target)
    folder.restore()
    name = key.rpartition(".")[2]
    assert not outcome.problems("conf/fuzz/parameters.yml", misspelt(key), f"Did you mean '{name}'?")


NAMES = {
    "query": QUERIES,
    "update": UPDATES,
    "model": MODELS,
    "preset": ("kafal_code", "kafal_paper"),
    "partition.method": (*DRAWN, "natural"),
    "partition.when_absent": DRAWN,
    "federation.between_cycles": ("continue", "fresh"),
    "federation.client_momentum": ("kept", "reset"),
    "federation.batch_norm": ("averaged", "local"),
    "federation.participants_rounding": ("floor", "ceil"),
    "training.batches": ("equal", "published"),
    "training.precision": ("fp32", "tf32", "bf16"),
    "model.normalisation": ("batch", "group"),
    "dataset.emnist_split": EMNIST,
    "dataset.name": ("cifar10", "cifar100", "svhn", "mnist", "fashion_mnist", "emnist"),
}


@pytest.mark.parametrize(("key", "name"), [(key, name) for key, names in NAMES.items() for name in names])
def test_unknown_names_one_letter_off(key, name):
    other = one_off(name, random.Random(name))
    if key == "dataset.name":  # what it may be depends on files: data.load says what is there
        with pytest.raises(UserError, match=re.escape(f"found {other!r}") + r".*Did you mean '"):
            find_source(DatasetConfig(name=other), Path("nowhere")).read()
    elif other not in NAMES[key]:
        assert "Did you mean '" in message(key, other)
        assert repr(other) in message(key, other)


CONTRADICTIONS = {
    "shares of more than all labels": ("budget.initial=0.9,cycles=4", "budget.initial"),
    "more cycles than shares": ("cycles=50", "budget"),
    "more cycles than labels": ("cycles=250,budget.initial=1,budget.per_cycle=9", "budget"),
    "more labels than images": ("budget.initial=9999", "budget"),
    "a share above 1": ("budget.per_cycle=1.5", "budget"),
    "more clients than images": ("partition.clients=2000", "partition.clients"),
    "more images each than there are": ("partition.min_size=1000", "partition.min_size"),
    "a skew beyond floating point": ("partition.alpha=1e308", "partition.alpha"),
    "a skew of nothing": ("partition.alpha=1e-300,partition.method=quantity_skew", "partition.min_size"),
    "a split without its file": ("partition.method=file", "partition"),
    "a split that is not there": ("partition.method=file,partition.path=nowhere.json", "partition.path"),
    "a split that is a folder": ("partition.method=file,partition.path=conf", "partition.path"),
    "a split of other clients": ("partition.method=file,partition.path=two.json", "partition.clients"),
    "a split of another data set": ("partition.method=file,partition.path=short.json", "short.json"),
    "a data set without clients": ("partition.method=natural", "partition.method"),
    "more classes each than there are": (
        "partition.method=shards,partition.classes_per_client=11",
        "classes_per_client",
    ),
    "fewer classes than there are": ("partition.method=shards,partition.classes_per_client=1", "classes_per_client"),
    "a tail without images": (
        "partition.long_tail.imbalance_ratio=1e9,partition.clients=1000",
        "partition.clients",
    ),
    "one image each": ("partition.samples_per_client=1,cycles=3", "budget"),
    "no batch norm to keep": ("federation.batch_norm=local,model.normalisation=group", "federation.batch_norm"),
    "three channels for grey images": ("dataset.mean=[0.1,0.2,0.3]", "dataset.mean"),
    "no channel": ("dataset.std=[]", "dataset.std"),
    "a path called digits": ("dataset.path=conf,dataset.label=digits", "dataset"),
    "a path that is not there": ("dataset.path=nowhere.npz", "dataset.path"),
    "a path that is a file": ("dataset.path=pyproject.toml", "dataset.path"),
    "a path that is too long": (f"dataset.path={'x' * 300}", "dataset.path"),
    "a home of nobody": ("dataset.path=~nobody_at_all/x.npz", "dataset.path"),
    "data that nobody published": ("dataset.name=nowhere", "dataset.name"),
    "data that is not there": ("dataset.name=cifar10", "dataset.download"),
    "weights that are not there": ("model.pretrained=nowhere.safetensors", "model.pretrained"),
    "weights that are a folder": ("model.pretrained=conf", "model.pretrained"),
    "weights that are text": ("model.pretrained=pyproject.toml", "model.pretrained"),
    "weights with too long a name": (f"model.pretrained={'x' * 300}", "model.pretrained"),
    "an option misspelt": ("query={name: ksas, prior_smothing: 1}", "Did you mean 'prior_smoothing'"),
    "an option out of range": ("query={name: ksas, prior_smoothing: -1}", "query.prior_smoothing"),
    "an option that is no number": ("query={name: ksas, prior_smoothing: .nan}", "query.prior_smoothing"),
    "an update's option misspelt": ("update={name: fedprox, muu: 1}", "Did you mean 'mu'"),
    "a network's option misspelt": ("model={name: cnn4, widht: 3}", "Did you mean 'width'"),
    "a network without channels": ("model={name: cnn4, width: 0}", "model.width"),
    "a network of negative width": ("model={name: cnn4, width: -3}", "model.width"),
    "a class that is a module": ("query=kafal_pipeline.query", "query"),
    "a class that is another": ("query=pathlib.Path", "query"),
    "an update that is none": ("update=kafal_pipeline.query.random.Random", "update"),
    "a module that is not there": ("update=nowhere.at.All", "update"),
    "no quota to compose with": ("query={name: compose, quota: nowhere}", "query"),
    "a score that is none": ("query={score: nowhere}", "query"),
    "a device that is not there": ("training.device=cuda:99", "training.device"),
    "a saved run that is not there": ("run=digits/ksas-kcfu/seed_9", "run"),
    "a saved run outside": ("run=../../etc", "run"),
    "a saved run with parameters": ("run=digits/ksas-kcfu/seed_9,seed=3", "seed"),
    "a section twice": ("seed.x=1", "seed"),
    "a label that climbs": ("query={name: ksas, label: ../../up}", "query.label"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradictions(folder, name):
    params, part = CONTRADICTIONS[name]
    folder.write("[[0, 1], [2, 3]]", "short.json")
    folder.write(json.dumps([list(range(700)), list(range(700, 1438))]), "two.json")
    outcome = folder.run("--params", params)
    kept = Outcome(outcome.code, outcome.output, outcome.crash, outcome.seconds, tuple(harmful(outcome.changed)))
    folder.restore()
    assert not kept.problems(part)


COMPARISONS = {
    "compare.queries=[random,random]": "compare.queries",
    "compare.queries=[ksass]": "Did you mean 'ksas'",
    "compare.queries=[{score: ksas, prior_smoothing: -1}]": "compare.queries",
    "compare.updates=[kcfu,kcfu]": "compare.updates",
    "compare.seeds=[0,0]": "compare.seeds",
    "compare.seeds=9-0": "compare.seeds",
    "compare.seeds=0-99999999999": "compare.seeds",
    "compare.baseline=badge": "compare.baseline",
    "compare.name=../up": "compare.name",
    "compare.targets=[90]": "compare.targets",
    "partition.clients=0": "partition.clients",
    "cycles=50": "budget",
}


@pytest.mark.parametrize("params", COMPARISONS)
def test_contradictions_of_a_comparison(folder, params):
    outcome = folder.run("--params", params, pipeline="compare", to="compare.plan")
    assert not outcome.problems(COMPARISONS[params])


BROKEN = {
    "a list": "- seed\n- 1\n",
    "a word": "seed\n",
    "a number": "3\n",
    "an open bracket": "training: {lr: [\n",
    "a tab": "training:\n\tlr: 1\n",
    "an alias of nothing": "seed: *nothing\n",
    "a key twice": "seed: 1\nseed: 2\n",
    "a mapping as key": "{{a: 1}: 2}: 3\n",
    "a python object": "seed: !!python/object/apply:os.mkdir [sprung]\n",
    "another tag": "seed: !nowhere 1\n",
    "bytes that are no text": b"seed: \xff\xfe\x00\n",
    "another encoding": "seed: 1\n".encode("utf-16"),
    "a zero byte": "seed: \x00\n",
    "a control character": "seed: \x07\n",
    "a very deep nest": "seed: " + "[" * 1000,
    "a number of 5000 digits": f"seed: {'9' * 5000}\n",
    "an interpolation of nothing": "seed: ${nowhere}\n",
    "an interpolation of the environment": "seed: ${oc.env:HOME}\n",
    "an interpolation in circles": "seed: ${seed}\n",
    "an interpolation unfinished": "seed: ${\n",
    "two documents": "seed: 1\n---\nseed: 2\n",
    "half a file": (ROOT / "conf/base/parameters.yml").read_text()[:1500].rpartition("\n")[0] + "\n{",
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize(
    "file", ["conf/fuzz/parameters.yml", pytest.param("conf/base/parameters.yml", marks=pytest.mark.slow)]
)
def test_broken_files(folder, file, name):
    folder.write(BROKEN[name], file)
    outcome = folder.run("--env", "fuzz")
    folder.restore()
    assert not outcome.problems(file)


@pytest.mark.parametrize(
    "params", ["seed", "=1", "a..b=1", "[=1", "seed=[", "seed={", "seed=${nowhere}", "seed=*x", "."]
)
def test_unreadable_arguments(folder, params):
    outcome = folder.run("--params", params)
    assert outcome.crash is None
    assert outcome.code == 1
    assert "Error: " in outcome.output
    assert "Traceback" not in outcome.output
    assert not outcome.changed


@pytest.mark.parametrize("what", ["folder", "dangling link", "catalog", "catalog type", "catalog list"])
def test_files_that_are_something_else(folder, what):
    file = folder.root / "conf/fuzz" / ("parameters_more.yml" if "catalog" not in what else "catalog.yml")
    if what == "folder":
        file.mkdir()
    elif what == "dangling link":
        file.symlink_to("nowhere.yml")
    else:
        contents = {"catalog": "images: {", "catalog type": "images: {type: nowhere.Nothing}", "catalog list": "- 1\n"}
        file.write_text(contents[what])
    outcome = folder.run("--env", "fuzz")
    file.rmdir() if what == "folder" else file.unlink()
    folder.restore()
    assert outcome.crash is None
    if outcome.code:
        assert not outcome.problems("images" if what == "catalog type" else f"conf/fuzz/{file.name}")


PLACES = {
    "a link to nowhere for a run": ("data/06_models/smoke/ksas-kcfu/seed_0", "nowhere"),
    "a link to nowhere above the runs": ("data/09_tracking", "nowhere"),
    "a folder for what is noted": ("data/07_model_output/smoke/ksas-kcfu/seed_0/provenance.json", ""),
    "a link in circles": ("data/08_reporting", "08_reporting"),
}
"""A path, and what the link there points to; nothing: there is a folder."""


@pytest.mark.parametrize("name", PLACES)
def test_strange_files_in_the_place_of_results(folder, name):
    place, target = PLACES[name]
    path = folder.root / place
    away = path.with_name(f"{path.name}.away")
    if path.exists():
        path.rename(away)
    path.parent.mkdir(parents=True, exist_ok=True)
    if target:
        path.symlink_to(target)
    else:
        path.mkdir()
    outcome = folder.run()
    path.unlink() if target else path.rmdir()
    if away.exists():
        away.rename(path)
    folder.restore()
    kept = Outcome(outcome.code, outcome.output, outcome.crash, outcome.seconds, tuple(harmful(outcome.changed)))
    assert not kept.problems(place)


def test_a_cycle_that_is_a_link_goes_and_what_it_points_to_stays(folder):
    elsewhere = folder.root / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    link = folder.root / "data/06_models/smoke/ksas-kcfu/seed_0/cycle_00"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(elsewhere)
    outcome = folder.run()
    folder.restore()
    assert outcome.code == 0, outcome.output
    assert not link.is_symlink()
    assert (elsewhere / "precious").exists()
    shutil.rmtree(elsewhere)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--env", "smok"], "Did you mean 'smoke'?"),
        (["--env", "../../etc"], "../../etc"),
        (["--env", ""], ""),
        (["--from-nodes", "cycle_00.trane"], "cycle_00.trane"),
        (["--to-nodes", "nowhere"], "nowhere"),
        (["--pipelines", "fall"], "fall"),
        (["--tags", "nowhere"], "no nodes"),
        (["--runner", "NoSuchRunner"], "NoSuchRunner"),
        (["--runner", "ThreadRunner"], "SequentialRunner"),
    ],
)
def test_names_that_kedro_looks_up(folder, arguments, part):
    outcome = folder.run(*arguments)
    folder.restore()
    if arguments != ["--env", ""]:
        assert not outcome.problems(part)


@pytest.mark.parametrize("content", ["", "[[0, 1", "[[0, 99999]]", "[[0], [0]]", "{}", "[[0.5]]"])
@pytest.mark.parametrize("file", ["splits.json", "split_origin.json"])
def test_damaged_splits_through_the_command(folder, file, content):
    """What Kedro makes of an error while it reads is taken off again."""
    path = folder.root / "data/03_primary/smoke/seed_0" / file
    good = path.read_text()
    path.write_text(content)
    outcome = folder.run("--from-nodes", "cycle_00.initial_pool")
    path.write_text(good)
    assert not outcome.problems(file)


def test_verbose_adds_the_traceback(folder):
    quiet, loud = (folder.run("--params", "seed=x", *flags) for flags in ([], ["--verbose"]))
    assert not quiet.problems("--params: seed: found 'x'")
    assert loud.code == 1
    assert "Traceback (most recent call last)" in loud.output
    assert loud.output.endswith(quiet.output)


SAMPLE = [
    ("seed=x", "seed"),
    ("cycles=true", "cycles"),
    ("query=ksass", "Did you mean 'ksas'"),
    ("traning.lr=1", "Did you mean 'training'"),
    ("training.lr=.nan", "training.lr"),
    ("training.lr=1e400", "training.lr"),
    ("partition.clients=2000", "partition.clients"),
    ("budget.initial=9999", "budget"),
    ("partition.method=file,partition.path=nowhere.json", "partition.path"),
    ("dataset.path=nowhere.npz", "dataset.path"),
    ("dataset.path=~nobody_at_all/x.npz", "dataset.path"),
    (f"dataset.path={'x' * 300}", "dataset.path"),
    ("model.pretrained=pyproject.toml", "model.pretrained"),
    ("model={name: cnn4, width: 0}", "model.width"),
    ("query={name: ksas, label: ../../up}", "query.label"),
    ("tracking.enabled=maybe", "tracking.enabled"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("params", "part"), SAMPLE)
def test_as_processes(folder, params, part):
    """The same through the program itself, its start-up included, and without `--to-nodes`."""
    before, start = folder.files(), time.monotonic()
    result = subprocess.run(
        [sys.executable, "-m", "kedro", "run", "--pipeline", "fal", "--params", params],
        cwd=folder.root, env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    seconds, after = time.monotonic() - start, folder.files()
    changed = tuple(harmful(name for name in {*before, *after} if before.get(name) != after.get(name)))
    assert not Outcome(result.returncode, result.stdout + result.stderr, None, seconds, changed).problems(part)
