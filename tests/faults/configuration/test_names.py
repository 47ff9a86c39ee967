"""Every key and every name one letter off: the right one is suggested."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data.sources import find_source
from kafal_pipeline.models import MODELS
from kafal_pipeline.query import QUERIES
from kafal_pipeline.update import UPDATES

from .allowed import DRAWN, EMNIST, KEYS
from .project import as_yaml, message


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
