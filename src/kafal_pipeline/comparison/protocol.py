"""Checks that the runs of a comparison differ in strategy and seed alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config.flat import flat
from kafal_pipeline.evaluation.curve import CycleMetrics

FREE = ("query", "update", "seed", "dataset.label")
"""Keys of the configuration that the runs of one comparison may differ in, with all below them."""


def check(configurations: Mapping[Path, Mapping[str, Any]]) -> None:
    """Check that runs can be compared.

    `configurations`: what each run's folder says about its parameters. Raises `UserError` naming the keys that differ,
    or the two folders of one strategy and seed.
    """
    first, *others = configurations
    sources = {folder: _source(configuration) for folder, configuration in configurations.items()}
    if other := next((folder for folder in others if sources[folder] != sources[first]), None):
        raise UserError(
            f"{first} has labels by {sources[first]}, and {other} by {sources[other]} (annotation.source). A "
            "comparison does not mix them, since people skip images, err and disagree: compare them apart."
        )
    here = shared(configurations[first])
    for other in others:
        there = shared(configurations[other])
        keys = sorted(key for key in {*here, *there} if here.get(key) != there.get(key))
        if keys:
            found = "; ".join(f"{key}: {here.get(key)!r} and {there.get(key)!r}" for key in keys)
            raise UserError(
                f"{first} and {other} were made with different protocols ({found}). Runs of one comparison may differ "
                "in query, update and seed only: compare them apart, or run them again with the same parameters."
            )
    _check_strategies(configurations)


def _source(configuration: Mapping[str, Any]) -> str:
    """Return who labelled a run's images, in words; an oracle's runs do not say."""
    return "people" if configuration.get("annotation", {}).get("source") == "people" else "an oracle"


def _check_strategies(configurations: Mapping[Path, Mapping[str, Any]]) -> None:
    """Check that a strategy's name means one setting, and that it ran once for each seed."""
    settings: dict[tuple[str, str], tuple[str, Path]] = {}
    seen: dict[tuple[str, str, int], Path] = {}
    for folder, configuration in configurations.items():
        query, update = configuration["query"], configuration["update"]
        labels = (query["label"], update["label"])
        setting = json.dumps([query, update], sort_keys=True)
        before, where = settings.setdefault(labels, (setting, folder))
        if before != setting:
            raise UserError(
                f"{where} and {folder}: the name {'-'.join(labels)} stands for different options of query or update, "
                f"{before} and {setting}. Give them different labels, or run one of them again."
            )
        twin = seen.setdefault((*labels, configuration["seed"]), folder)
        if twin != folder:
            raise UserError(
                f"{twin} and {folder} are both {'-'.join(labels)} with seed {configuration['seed']}; a comparison "
                "takes one run for each strategy and seed. Leave one of them out."
            )


def check_pools(pools: Mapping[Path, tuple[int, CycleMetrics]]) -> None:
    """Check that runs of one seed began with the same labels, and that all have the same classes.

    `pools`: by folder, the run's seed and its metrics of cycle 0. Raises `UserError` if a pairing by seed would compare
    runs on different data.
    """
    firsts: dict[int, Path] = {}
    anchor = next(iter(pools))
    for folder, (seed, metrics) in pools.items():
        if metrics["classes"] != pools[anchor][1]["classes"]:
            raise UserError(f"{anchor} and {folder} have different classes; they cannot be compared.")
        first = firsts.setdefault(seed, folder)
        if metrics["queried_histogram"] != pools[first][1]["queried_histogram"]:
            changed = "Labels came or changed" if "annotation_asked" in metrics else "The split was made again"
            raise UserError(
                f"{first} and {folder}: both have seed {seed} but different initial pools, so that their difference "
                f"would not be the strategies' alone. {changed} in between: run both again."
            )


def shared(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration flattened (``training.lr``), without the keys that are `FREE`."""
    return {
        key: value
        for key, value in flat(configuration).items()
        if not any(key == free or key.startswith(f"{free}.") for free in FREE)
    }
