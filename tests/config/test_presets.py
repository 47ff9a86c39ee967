"""Every preset in conf/ is the protocol that its first lines promise, written out here once more."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from kafal_pipeline.common.registry import create
from kafal_pipeline.config import resolve
from kafal_pipeline.models import MODELS
from kafal_pipeline.models.factory import check
from kafal_pipeline.query import QUERIES
from kafal_pipeline.update.factory import make_update

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
PRESETS = sorted({file.parent.name for file in CONF.glob("*/parameters.yml")} - {"tutorial"})

KAFAL_CODE = {
    "query.name": "ksas",
    "update.name": "kcfu",
    "federation.participants_rounding": "floor",
    "federation.all_clients_last_round": True,
}
SMALL_TRAINING = {
    "federation.between_cycles": "continue",
    "federation.client_momentum": "kept",
    "training.batches": "equal",
    "training.lr": 0.05,
    "training.lr_drop_epoch": None,
    "training.momentum": 0.9,
    "training.weight_decay": 5e-4,
}
TWENTY_EPOCHS_A_CYCLE = {
    "cycles": 6,
    "budget.initial": 0.10,
    "budget.per_cycle": 0.05,
    "model.name": "resnet8",
    "federation.rounds": 10,
    "federation.participation": 0.8,
    "training.local_epochs": 2,
}
DIGITS = {
    **KAFAL_CODE,
    **SMALL_TRAINING,
    **TWENTY_EPOCHS_A_CYCLE,
    "dataset.name": "digits",
    "partition.method": "dirichlet",
    "partition.clients": 5,
    "partition.alpha": 0.2,
    "partition.min_size": 40,
    "training.batch_size": 16,
    "training.augmentation.flip": False,
    "training.augmentation.crop_padding": 1,
}
PUBLISHED_SPLIT = {
    "dataset.name": "cifar10",
    "partition.method": "file",
    "partition.path": "data/01_raw/kafal_cifar10_alpha0.1_10clients.json",
}
KAFAL = {
    **KAFAL_CODE,
    "cycles": 6,
    "partition.clients": 10,
    "partition.alpha": 0.1,
    "partition.samples_per_client": None,
    "partition.long_tail": None,
    "budget.initial": 0.10,
    "budget.per_cycle": 0.05,
    "model.name": "resnet8",
    "federation.rounds": 50,
    "federation.participation": 0.8,
    "federation.between_cycles": "fresh",
    "federation.client_momentum": "kept",
    "training.local_epochs": 40,
    "training.batch_size": 128,
    "training.batches": "published",
    "training.lr": 0.1,
    "training.lr_drop_epoch": 260,
    "training.lr_drop_factor": 0.1,
    "training.momentum": 0.9,
    "training.weight_decay": 5e-4,
    "training.augmentation.flip": True,
    "training.augmentation.crop_padding": 4,
}
CNN_OF_LOGO = {
    "update.name": "fedavg",
    "partition.method": "dirichlet_balanced",
    "partition.clients": 10,
    "partition.alpha": 0.1,
    "budget.initial": 0.05,
    "budget.per_cycle": 0.05,
    "model.name": "cnn4",
    "federation.participation": 1.0,
    "training.augmentation.flip": True,
    "training.augmentation.crop_padding": 0,
}
HUNDRED_ROUNDS = {
    **CNN_OF_LOGO,
    "federation.rounds": 100,
    "federation.between_cycles": "fresh",
    "federation.client_momentum": "reset",
    "partition.samples_per_client": None,
    "training.local_epochs": 5,
    "training.batch_size": 64,
    "training.batches": "published",
    "training.lr": 0.01,
    "training.lr_drop_epoch": 381,
    "training.lr_drop_factor": 0.1,
    "training.momentum": 0.9,
    "training.weight_decay": 1e-5,
}
LONG_TAIL = {
    "cycles": 9,
    "query.name": "fairfal",
    "partition.long_tail.imbalance_ratio": 20,
    "partition.long_tail.profile": "exponential",
}
IMAGENET_STATISTICS = {"dataset.mean": [0.485, 0.456, 0.406], "dataset.std": [0.229, 0.224, 0.225]}
FASHION_MNIST = {"dataset.name": "fashion_mnist", "dataset.mean": [0.286], "dataset.std": [0.353]}

PROTOCOLS = {
    "base": DIGITS,
    "smoke": {
        **DIGITS,
        "cycles": 2,
        "partition.clients": 3,
        "federation.rounds": 2,
        "training.local_epochs": 1,
        "training.processes": 1,
    },
    "cifar10": {**KAFAL, **PUBLISHED_SPLIT},
    "cifar10_small": {
        **KAFAL_CODE,
        **SMALL_TRAINING,
        **TWENTY_EPOCHS_A_CYCLE,
        **PUBLISHED_SPLIT,
        "partition.clients": 10,
        "partition.alpha": 0.1,
        "partition.samples_per_client": 1000,
        "training.batch_size": 32,
        "training.augmentation.flip": True,
        "training.augmentation.crop_padding": 4,
    },
    "cifar100": {**KAFAL, "dataset.name": "cifar100", "partition.method": "dirichlet_balanced"},
    "logo_cifar10": {
        **HUNDRED_ROUNDS,
        **IMAGENET_STATISTICS,
        "cycles": 16,
        "query.name": "logo",
        "dataset.name": "cifar10",
        "partition.long_tail": None,
    },
    "fairfal_cifar10_lt": {**HUNDRED_ROUNDS, **LONG_TAIL, **IMAGENET_STATISTICS, "dataset.name": "cifar10"},
    "fairfal_fashion_mnist_lt": {**HUNDRED_ROUNDS, **LONG_TAIL, **FASHION_MNIST},
    "fairfal_fashion_mnist_lt_small": {
        **CNN_OF_LOGO,
        **LONG_TAIL,
        **FASHION_MNIST,
        **SMALL_TRAINING,
        "partition.samples_per_client": 1000,
        "federation.rounds": 14,
        "training.local_epochs": 2,
        "training.batch_size": 32,
    },
}
"""What each preset must resolve to; keys that are not here are of no protocol."""

LAST_SHARE = {"cifar10": 0.35, "cifar100": 0.35, "logo_cifar10": 0.80}
LAST_SHARE |= {name: 0.45 for name in PROTOCOLS if name.startswith("fairfal")}
"""Of the labels, in the last cycle."""

QUERY_OPTIONS = {
    "ksas": {"prior_smoothing": 0.0, "global_model": "final"},
    "ksas_paper": {"prior_smoothing": 0.0, "global_model": "downloaded"},
    "logo": {"model": "local_only"},
    "fairfal": {"threshold": 0.75, "candidates": 4.0},
}
UPDATE_OPTIONS = {
    "fedavg": {},
    "kcfu": {
        "balanced": True,
        "compensatory": True,
        "partner": "one",
        "weigh_by": "mixed",
        "teacher_bn": "batch",
        "unlabelled_pool": "initial",
        "class_reduction": "mean",
        "absent_class_weight": "zero",
    },
    "kcfu_paper": {
        "balanced": True,
        "compensatory": True,
        "partner": "permutation",
        "weigh_by": "original",
        "teacher_bn": "running",
        "unlabelled_pool": "current",
        "class_reduction": "sum",
        "absent_class_weight": "zero",
    },
}


def preset(name, **parameters):
    parts = [OmegaConf.load(CONF / folder / "parameters.yml") for folder in ("base", name)]
    return resolve(OmegaConf.to_container(OmegaConf.merge(*parts, parameters), resolve=True))


def flat(values, prefix=""):
    """Return nested values by their dotted keys; a section that is null stands under its own."""
    found = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def check_strategies(config):
    query = create("query", config.query.name, config.query.options, QUERIES)
    update = make_update(config.update)
    assert callable(query.select)
    for strategy, expected in ((query, QUERY_OPTIONS[config.query.name]), (update, UPDATE_OPTIONS[config.update.name])):
        found = asdict(strategy)
        assert {key: found[key] for key in expected} == expected


def test_every_preset_has_its_protocol_here():
    assert sorted(PROTOCOLS) == PRESETS


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_preset_is_its_protocol(name):
    found = flat(preset(name).model_dump())
    expected = PROTOCOLS[name]
    assert {key: found.get(key, "missing") for key in expected} == expected


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_presets_model_query_and_update_can_be_made(name):
    config = preset(name)
    assert config.model.name in MODELS
    check(config.model)
    check_strategies(config)
    assert (config.query.options, config.update.options, config.model.options) == ({}, {}, {})


@pytest.mark.parametrize("name", LAST_SHARE)
def test_labels_end_where_the_paper_ends(name):
    config = preset(name)
    assert config.budget.initial + (config.cycles - 1) * config.budget.per_cycle == pytest.approx(LAST_SHARE[name])


def test_no_two_presets_share_a_folder_of_results():
    folders = [preset(name).dataset.folder for name in PRESETS if name != "base"]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize("name", ["logo_cifar10", "fairfal_cifar10_lt", "fairfal_fashion_mnist_lt"])
def test_the_learning_rate_falls_after_three_quarters_of_the_rounds(name):
    config = preset(name)
    # The code's round counts from 0, our epochs from 1.
    assert config.training.lr_drop_epoch == (config.federation.rounds * 3 // 4 + 1) * config.training.local_epochs + 1


@pytest.mark.parametrize("name", ["base", "cifar10", "cifar100"])
def test_every_preset_of_kafal_can_follow_the_paper_instead(name):
    config = preset(name, preset="kafal_paper")
    assert (config.query.name, config.update.name) == ("ksas_paper", "kcfu_paper")
    assert (config.federation.participants_rounding, config.federation.all_clients_last_round) == ("ceil", False)
    check_strategies(config)


def page_rows():
    """Return the cells of each preset in the page, by its name."""
    lines = (ROOT / "docs/presets.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return {row[0].strip("`"): row for row in cells[1:]}


def test_the_page_lists_every_preset_and_the_readme_some():
    assert sorted(page_rows()) == PRESETS
    (line,) = (line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if "| `--env` |" in line)
    assert len(named := set(re.findall(r"`(\w+)`", line))) > 2
    assert named < set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_the_page_says_what_a_preset_is(name):
    config = preset(name)
    last = config.budget.initial + (config.cycles - 1) * config.budget.per_cycle
    assert page_rows()[name][2:-1] == [
        f"`{config.query.name}`, `{config.update.name}`",
        f"`{config.dataset.name}`",
        f"`{config.model.name}`",
        str(config.partition.clients),
        str(config.cycles),
        f"{100 * config.budget.initial:.0f} % to {100 * last:.0f} %",
        f"{config.federation.rounds} x {config.training.local_epochs}",
    ]


def test_times_are_measured_ones():
    results = ROOT / "benchmarks" / "results"
    beside, whole = (json.loads((results / name).read_text()) for name in ("side_by_side.json", "overhead.json"))
    assert (beside["env"], whole["env"]) == ("base", "cifar10_small")
    alone = beside["seconds_one_after_another"]["median"] / beside["runs"]
    rows = page_rows()
    assert rows["base"][-1] == f"{alone:.0f} s on two cores (1)"
    assert rows["cifar10_small"][-1] == f"{whole['seconds']['median']:.0f} s on two cores (2)"
