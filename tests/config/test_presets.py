"""Every preset in conf/ is a configuration, and says what its first lines promise."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from kafal_pipeline.config import resolve
from kafal_pipeline.models import MODELS
from kafal_pipeline.models.factory import check
from kafal_pipeline.update.factory import make_update

CONF = Path(__file__).parents[2] / "conf"
PRESETS = sorted(file.parent.name for file in CONF.glob("*/parameters.yml"))


def preset(name):
    parts = [OmegaConf.load(CONF / folder / "parameters.yml") for folder in ("base", name)]
    return resolve(OmegaConf.to_container(OmegaConf.merge(*parts), resolve=True))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_configuration(name):
    config = preset(name)
    assert config.model.name in MODELS
    check(config.model)
    make_update(config.update)


def test_no_two_presets_share_a_folder_of_results():
    folders = [preset(name).dataset.folder for name in PRESETS if name != "base"]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize("name", ["fairfal_cifar10_lt", "fairfal_fashion_mnist_lt"])
def test_fairfals_protocol(name):
    config = preset(name)
    assert config.model.name == "cnn4"
    assert config.update.name == "fedavg"
    assert (config.federation.rounds, config.training.local_epochs, config.federation.participation) == (100, 5, 1.0)
    assert config.partition.long_tail.imbalance_ratio == 20
    assert (config.partition.alpha, config.partition.clients) == (0.1, 10)
    share = config.budget.initial + (config.cycles - 1) * config.budget.per_cycle
    assert (config.budget.initial, share) == (0.05, pytest.approx(0.45))
    # `lr` falls after three quarters of the rounds: the code's round counts from 0, ours epochs from 1.
    assert config.training.lr_drop_epoch == (config.federation.rounds * 3 // 4 + 1) * config.training.local_epochs + 1
