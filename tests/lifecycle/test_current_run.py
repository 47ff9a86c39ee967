"""Messages name the file that holds the mistake."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from kedro.config import OmegaConfigLoader

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.lifecycle.current_run import CurrentRun, Kind
from kafal_pipeline.lifecycle.strategy_checks import names_own_class
from kafal_pipeline.settings import CONFIG_LOADER_ARGS


@pytest.fixture
def loader(tmp_path):
    def make(base="seed: 1\n", env="", local="", params=None, use="smoke"):
        for folder, text in (("base", base), ("smoke", env), ("local", local)):
            path = tmp_path / "conf" / folder / "parameters.yml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return OmegaConfigLoader(str(tmp_path / "conf"), env=use, runtime_params=params, **CONFIG_LOADER_ARGS)

    return make


def message(config_loader):
    with pytest.raises(UserError) as raised:
        CurrentRun().activate(config_loader)
    return str(raised.value)


def test_the_file_that_holds_the_key_is_named(loader):
    assert message(loader(base="seed: x\n")).startswith("conf/base/parameters.yml: seed: found 'x'")
    assert message(loader(env="seed: x\n")).startswith("conf/smoke/parameters.yml: seed: found 'x'")
    assert message(loader(local="seed: x\n", use=None)).startswith("conf/local/parameters.yml: seed: found 'x'")
    assert message(loader(params={"seed": "x"})).startswith("--params: seed: found 'x'")


def test_an_archive_of_the_configuration_is_read_and_its_mistakes_are_reported(tmp_path):
    for name, text in (("base", "seed: 1\n"), ("smoke", "training: {lr: 0.3}\n"), ("broken", "training: {lr: [\n")):
        (tmp_path / "all/conf" / name).mkdir(parents=True)
        (tmp_path / "all/conf" / name / "parameters.yml").write_text(text)
    archive = shutil.make_archive(str(tmp_path / "conf"), "gztar", tmp_path / "all", "conf")
    config = CurrentRun().activate(OmegaConfigLoader(archive, env="smoke", **CONFIG_LOADER_ARGS))
    assert (config.seed, config.training.lr) == (1, 0.3)
    with pytest.raises(Exception, match=r"parameters\.yml"):
        CurrentRun().activate(OmegaConfigLoader(archive, env="broken", **CONFIG_LOADER_ARGS))


def test_nested_keys_are_found_where_they_stand(loader):
    text = message(loader(base="training: {lr: -1, momentum: 0.9}\n", env="training: {momentum: 2}\n"))
    assert "conf/base/parameters.yml: training.lr" in text
    assert "conf/smoke/parameters.yml: training.momentum" in text


def test_an_environment_leaves_the_neighbours_of_its_keys_alone(loader):
    config = CurrentRun().activate(
        loader(base="training: {lr: 0.2, momentum: 0.5}\n", env="training: {momentum: 0.8}\n")
    )
    assert (config.training.lr, config.training.momentum) == (0.2, 0.8)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"query": "ksass"}, "--params: query: found 'ksass'. Did you mean 'ksas'"),
        ({"query": {"name": "ksas", "smoothing": 1}}, "--params: query"),
        ({"update": "sgd"}, "--params: update: found 'sgd'"),
        ({"model": {"name": "resnet.8"}}, "--params: model.name: found 'resnet.8'"),
        ({"model": {"name": "nowhere.Net"}}, "--params: model.name: found 'nowhere.Net'"),
        ({"model": {"name": "resnet7"}}, "--params: model.name: found 'resnet7'. Did you mean 'resnet8'"),
    ],
)
def test_unknown_strategies_and_options(loader, params, expected):
    assert expected in message(loader(params=params))


def test_paths_of_the_active_run(loader):
    current_run = CurrentRun()
    current_run.activate(loader(params={"query": "random", "update": "fedavg", "seed": 3}))
    assert current_run.path("path") == "digits/random-fedavg/seed_3"
    assert current_run.path("split") == "digits/seed_3"
    assert current_run.path("dataset") == "digits"


def test_every_preset_of_the_project_is_valid():
    conf = Path(__file__).parents[2] / "conf"
    names = [folder.name for folder in conf.iterdir() if folder.is_dir()]
    assert {"base", "local", "smoke", "cifar10", "cifar10_small"} <= set(names)
    for name in names:
        config = CurrentRun().activate(OmegaConfigLoader(str(conf), env=name, **CONFIG_LOADER_ARGS))
        assert config.cycles >= 2


@pytest.mark.parametrize(
    ("params", "own"),
    [
        ({}, False),
        ({"query": {"score": "ksas", "diversity": "k_centre", "prior_smoothing": 0.5}}, False),
        ({"query": "kafal_pipeline.query.entropy.Entropy"}, True),
        ({"query": {"score": "kafal_pipeline.query.entropy.Entropy"}}, True),
        ({"query": {"score": {"name": "kafal_pipeline.query.entropy.Entropy"}}}, True),
        ({"update": "kafal_pipeline.update.fedavg.FedAvg"}, True),
        ({"model": {"name": "kafal_pipeline.models.cnn4.CNN4"}}, True),
    ],
)
def test_a_class_of_ones_own_is_noticed_wherever_it_is_named(loader, params, own):
    assert names_own_class(CurrentRun().activate(loader(params=params))) == own


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["data.load", "partition.split"], Kind()),
        (["report.summarise"], Kind(reports=True)),
        (["cycle_01.query", "cycle_01.annotate"], Kind(cycles=True)),
        (["cycle_00.evaluate"], Kind(cycles=True, tracked=True)),
        (["cycle_01.train", "cycle_01.evaluate"], Kind(cycles=True, tracked=True, trains=True, finishes=True)),
        (["data.load", "cycle_00.initial_pool"], Kind(begins=True, cycles=True)),
        (["compare.plan"], Kind(compares=True, trains=True)),
        (["cycle_0x.train", "cycle.train"], Kind()),
        (["annotate.page", "annotate_import.read", "annotate_status.show"], Kind()),  # also while a trial waits
    ],
)
def test_what_a_pipeline_does_is_told_from_its_nodes(names, expected):
    assert Kind.of(names, 2, lambda: True) == expected
