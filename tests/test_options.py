"""Options of `kedro run`: what is read of the command line, and of the file of ``--config``."""

from __future__ import annotations

import click
import pytest
from kedro.config import OmegaConfigLoader

from kafal_pipeline import cli
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.lifecycle.current_run import CurrentRun
from kafal_pipeline.settings import CONFIG_LOADER_ARGS

NOT_DECIMAL = ["010", "08", "-010", "1:30", "1:30.5", "0x10", "0b11", "[1,010]", "[{name: ksas, k: 08}]"]


def options(*arguments):
    return cli.run.make_context("kedro run", list(arguments)).params


@pytest.mark.parametrize("text", NOT_DECIMAL)
def test_numbers_that_yaml_would_take_for_others_are_refused(text):
    with pytest.raises(click.ClickException) as raised:
        options("--params", f"cycles=3,a.b={text}")
    assert raised.value.message.startswith("--params: a.b: found ")
    assert "in decimal digits without leading zeros" in raised.value.message
    assert raised.value.exit_code == 1


@pytest.mark.parametrize("text", NOT_DECIMAL)
def test_so_are_those_in_files(tmp_path, text):
    (tmp_path / "conf/local").mkdir(parents=True)
    (tmp_path / "conf/base").mkdir()
    (tmp_path / "conf/base/parameters.yml").write_text(f"cycles: 3  # not 010\nseed: {text}\n")
    with pytest.raises(UserError, match=r"^conf/base/parameters\.yml: found .*in decimal digits"):
        CurrentRun().activate(OmegaConfigLoader(str(tmp_path / "conf"), **CONFIG_LOADER_ARGS))
    file = tmp_path / "run.yml"
    file.write_text(f"run: {{params: {{seed: {text}}}}}")
    with pytest.raises(click.ClickException, match="run.yml: found .*in decimal digits"):
        options("--config", str(file))


def test_decimal_numbers_and_texts_are_what_they_look_like():
    params = "a=10,b=0,c=1_000,d=1e3,e=0.05,f='010',g=0-9,h=[0,20],i=-7"
    assert options("--params", params)["params"] == {
        "a": 10, "b": 0, "c": 1000, "d": 1000.0, "e": 0.05, "f": "010", "g": "0-9", "h": [0, 20], "i": -7
    }  # fmt: skip


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ("{query: random, training: {lr: 0.01}}", {"query": "random", "training": {"lr": 0.01}}),
        ('"query=random,training.lr=0.01"', {"query": "random", "training": {"lr": 0.01}}),
        ("[query=random, cycles=2]", {"query": "random", "cycles": 2}),
    ],
)
def test_a_file_of_options_may_hold_params_in_every_form(tmp_path, params, expected):
    file = tmp_path / "run.yml"
    file.write_text(f"run:\n  pipeline: fal\n  env: smoke\n  params: {params}\n")
    found = options("--config", str(file))
    assert found["params"] == expected
    assert (found["pipeline"], found["env"]) == ("fal", "smoke")
    assert options("--config", str(file), "--params", "seed=1", "--env", "base")["params"] == {"seed": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("ru: {}", "found no section `run`"),
        ("run: 3", "found no section `run`"),
        ("run: [1", "ParserError"),
        ("[1]", "it must be a mapping"),
        ("run: {paramz: 1}", "run.paramz: unknown option. Did you mean 'params'"),
    ],
)
def test_a_file_of_options_that_is_none_is_named(tmp_path, content, said):
    file = tmp_path / "run.yml"
    file.write_text(content)
    with pytest.raises(click.ClickException) as raised:
        options("--config", str(file))
    assert raised.value.message.startswith(f"--config: {file}: ")
    assert said in raised.value.message


@pytest.mark.parametrize("key", ["query", "dataset.label"])
def test_a_name_that_yaml_takes_for_a_switch_is_told_to_be_quoted(key):
    from kafal_pipeline.config import resolve
    from kafal_pipeline.config.resolve import ConfigError

    with pytest.raises(ConfigError, match="found False.*in quotes"):
        resolve(options("--params", f"{key}=no")["params"])
    assert resolve(options("--params", f"{key}='no'")["params"])
