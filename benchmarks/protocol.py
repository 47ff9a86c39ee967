"""The published protocol as plain values, for machines without the packages that read and check the parameters.

`CIFAR10` is what ``kedro run --env cifar10`` resolves to (a test compares them); `configuration` gives it the form that
the engine reads: attributes.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

CIFAR10: dict[str, Any] = {
    "seed": 0,
    "cycles": 6,
    "query": {"name": "ksas", "label": "ksas", "options": {}},
    "update": {"name": "kcfu", "label": "kcfu", "options": {}},
    "partition": {
        "method": "file",
        "clients": 10,
        "alpha": 0.1,
        "min_size": 40,
        "classes_per_client": 2,
        "path": "data/01_raw/kafal_cifar10_alpha0.1_10clients.json",
        "when_absent": "dirichlet_balanced",
        "samples_per_client": None,
        "long_tail": None,
    },
    "budget": {"initial": 0.1, "per_cycle": 0.05},
    "model": {"name": "resnet8", "normalisation": "batch", "pretrained": None, "options": {}},
    "federation": {
        "rounds": 50,
        "participation": 0.8,
        "participants_rounding": "floor",
        "all_clients_last_round": True,
        "between_cycles": "fresh",
        "client_momentum": "kept",
        "batch_norm": "averaged",
        "on_client_failure": "fail",
    },
    "training": {
        "local_epochs": 40,
        "batch_size": 128,
        "batches": "published",
        "lr": 0.1,
        "lr_drop_epoch": 260,
        "lr_drop_factor": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "augmentation": {"flip": True, "crop_padding": 4},
        "precision": "fp32",
        "device": "auto",
        "processes": "auto",
        "cuda_graphs": True,
        "deterministic": False,
        "checkpoint_every": 1.0,
    },
    "query_training": {"epochs": None, "lr": None},
}

MAPPINGS = {"options"}
"""Values that stay dictionaries."""


class Section(SimpleNamespace):
    """A section of the configuration."""

    def model_copy(self, update: dict[str, Any]) -> Section:
        """Return a copy with some values changed, as the project's own sections do."""
        return Section(**{**vars(self), **update})


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return `values` with `changes`, section by section; a change of an unknown key is an error."""
    result = copy.deepcopy(values)
    for key, change in changes.items():
        if key not in result:
            raise KeyError(key)
        mapping = isinstance(change, dict) and key not in MAPPINGS
        result[key] = merged(result[key], change) if mapping else change
    return result


def configuration(values: dict[str, Any]) -> Section:
    """Return `values` as the engine reads them."""
    return Section(
        **{
            key: configuration(value) if isinstance(value, dict) and key not in MAPPINGS else value
            for key, value in values.items()
        }
    )
