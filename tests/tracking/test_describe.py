import os
import subprocess

import pytest

from kafal_pipeline.config import resolve
from kafal_pipeline.tracking import describe
from kafal_pipeline.tracking.describe import MAX_VALUE, git_tags, hardware_tags, run_name, run_params, run_tags


def test_the_whole_configuration_is_recorded():
    config = resolve({"seed": 3, "query": {"name": "ksas", "prior_smoothing": 1}, "training": {"lr": 0.25}})
    params = run_params(config)
    assert params["training.lr"] == "0.25"
    assert params["training.augmentation.flip"] == "false"
    assert params["query.options.prior_smoothing"] == "1"
    assert params["dataset.path"] == "null"
    assert params["query"] == "ksas_prior_smoothing-1"
    assert params["strategy"] == "ksas_prior_smoothing-1-kcfu"
    assert params["seed"] == "3"
    assert run_name(config) == "ksas_prior_smoothing-1-kcfu-seed3"


def test_what_the_label_says_is_not_said_again():
    params = run_params(resolve({"query": "random", "update": {"name": "fedprox", "mu": 0.1, "label": "mine"}}))
    names = {name for name in params if name.startswith(("query", "update", "tracking")) and "training" not in name}
    assert names == {"query", "update", "update.name", "update.options.mu"}


def test_secrets_are_masked():
    address = "https://me:hunter2@data.example.org"
    params = run_params(resolve({"query": {"name": "my.Query", "api_key": "hunter2", "address": address}}))
    assert params["query.options.address"] == "https://***@data.example.org"
    assert params["query.options.api_key"] == "***"


def test_long_values_and_odd_names_fit_mlflow():
    params = run_params(resolve({"query": {"name": "my.Query", "a,b": "x" * 7000, "label": "mine"}}))
    value = params["query.options.a_b"]
    assert len(value) == MAX_VALUE
    assert value.endswith("...")


def test_tags_tell_strategy_versions_and_machine(tmp_path):
    tags = run_tags(resolve({}), tmp_path)
    assert tags["mlflow.runColor"] == run_tags(resolve({"seed": 1}), tmp_path)["mlflow.runColor"]
    others = {
        run_tags(resolve({"query": query}), tmp_path)["mlflow.runColor"] for query in ("random", "entropy", "ksas")
    }
    assert len(others) == 3
    assert tags["strategy"] == "ksas-kcfu"
    assert tags["dataset"] == "digits"
    assert tags["version.mlflow"].startswith("3.")
    assert int(tags["hardware.cores"]) >= 1
    assert float(tags["hardware.memory_gb"]) > 0
    assert all(hardware_tags().values())


@pytest.fixture
def repository(tmp_path):
    def git(*arguments):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=b", *arguments], check=True)

    git("init", "-q", "-b", "trunk")
    (tmp_path / "file").write_text("1")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    return tmp_path


def test_the_commit_is_recorded_and_whether_it_is_what_runs(repository):
    clean = git_tags(repository)
    assert len(clean["git_commit"]) == 40
    assert clean["mlflow.source.git.commit"] == clean["git_commit"]
    assert clean["mlflow.source.git.branch"] == "trunk"
    assert clean["git_dirty"] == "false"
    (repository / "file").write_text("2")
    assert git_tags(repository)["git_dirty"] == "true"
    subprocess.run(["git", "-C", repository, "checkout", "-q", "--detach"], check=True)
    detached = git_tags(repository)
    assert detached["git_commit"] == clean["git_commit"]
    assert "mlflow.source.git.branch" not in detached


def test_names_of_files_need_not_be_utf8(repository):
    subprocess.run(["git", "-C", repository, "config", "core.quotepath", "false"], check=True)
    (repository / os.fsdecode(b"caf\xe9.txt")).write_text("")
    assert git_tags(repository)["git_dirty"] == "true"


def test_where_looking_for_changes_takes_too_long_the_commit_is_recorded_all_the_same(repository, monkeypatch):
    real = describe._git
    monkeypatch.setattr(
        describe, "_git", lambda project, *command: None if "status" in command else real(project, *command)
    )
    assert set(git_tags(repository)) == {"git_commit", "mlflow.source.git.commit", "mlflow.source.git.branch"}


def test_a_repository_without_a_commit_has_none(tmp_path):
    subprocess.run(["git", "-C", tmp_path, "init", "-q"], check=True)
    assert git_tags(tmp_path) == {}


def test_outside_a_repository_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_tags(tmp_path) == {}
