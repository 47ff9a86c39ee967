"""Wrong configuration, whatever is wrong with it: exit code 1, one message, no traceback, nothing else touched.

The cases are made, not listed: every key of every parameters file with every value of `VALUES`, every key and every
name one letter off, broken files, contradictions. What a value is to lead to is decided by `KEYS`, which says for each
key what `conf/base` and the documentation allow, independently of the models that check it: a value that is not allowed
must be refused by the check of the parameters, in the name of its file and key, before anything is written; one that is
allowed must pass that check, though the data may contradict it later, again in a message.
"""

from __future__ import annotations

import math
import re

from omegaconf import OmegaConf

from kafal_pipeline.models import MODELS

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


def class_name(value):
    return isinstance(value, str) and 0 < len(value) <= 200 and bool(value.strip()) and value.isprintable()


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
    "dataset.classes": null_or(lambda value: each(class_name, least=2)(value) and len(set(value)) == len(value)),
    "dataset.test_share": null_or(number(above=0, below=1)),
    "annotation": lambda value: value == {},
    "annotation.source": choice("oracle", "people"),
    "annotation.complete": number(above=0, most=1),
    "annotation.refill": number(least=0, most=1),
    "annotation.annotators": whole(1, 100),
    "annotation.file_names": choice("opaque", "original"),
    "annotation.port": whole(0, 65_535),
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
    "budget.initial_query": choice("random", "k_means", "herding"),
    "features.network": null_or(nothing),  # which needs weights
    "features.weights": null_or(nothing),  # which need a network
    "model.name": choice(*MODELS),
    "model.normalisation": choice("batch", "group"),
    "model.pretrained": null_or(nothing),  # none of VALUES is a file
    "federation.rounds": whole(1, 10**6),
    "federation.participation": number(above=0, most=1),
    "federation.participants_rounding": null_or(choice("floor", "ceil")),
    "federation.all_clients_last_round": null_or(flag),
    "federation.between_cycles": choice("continue", "fresh"),
    "federation.client_momentum": choice("kept", "reset"),
    "federation.missing_sites": whole(0),
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
