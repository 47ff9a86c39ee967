"""Every key with every value of `VALUES`: refused in its name, or accepted, as `KEYS` says."""

from __future__ import annotations

import random
import re

import pytest
import yaml
from kedro.config import OmegaConfigLoader

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.lifecycle.current_run import CurrentRun
from kafal_pipeline.settings import CONFIG_LOADER_ARGS

from .allowed import KEYS, VALUES, parsed
from .project import ROOT, Outcome, flat, harmful, message, with_value


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
