"""Parameters that are each allowed and contradict each other, the data or the machine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from .project import Outcome, environment, harmful

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
    before = folder.files()
    result = subprocess.run(
        [sys.executable, "-m", "kedro", "run", "--pipeline", "fal", "--params", params],
        cwd=folder.root, env=environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    after = folder.files()
    changed = tuple(harmful(name for name in {*before, *after} if before.get(name) != after.get(name)))
    assert not Outcome(result.returncode, result.stdout + result.stderr, None, 0, changed).problems(part)
