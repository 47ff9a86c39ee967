"""What `site.yml` may say, and the commands that make and check a site's files."""

from __future__ import annotations

import shutil

import pytest
import yaml

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.sites.at_site.site_file import read_site
from kafal_pipeline.sites.command import main
from kafal_pipeline.sites.demo import write_demo


def written(folder, **changes):
    values = {"name": "east", "images": "images", **changes}
    path = folder / "site.yml"
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
    return path


def test_folders_are_relative_to_the_file(tmp_path):
    site = read_site(written(tmp_path, server={"address": "host:9092", "key": "keys/east"}))
    assert site.images == str(tmp_path / "images") and site.work == str(tmp_path / "work")
    assert site.server.key == str(tmp_path / "keys" / "east")
    assert (site.min_count, site.threads, site.device) == (5, 1, "cpu")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": None}, "name: is needed"),
        ({"name": "1st"}, "name: found '1st'"),
        ({"name": "../x"}, "name: found '../x'"),
        ({"min_count": 0}, "min_count: found 0"),
        ({"colour": 1}, "colour: unknown key"),
        ({"minimum_count": 3}, "Did you mean 'min_count'"),
        ({"allow": {"class": []}}, "allow.class: unknown key"),
        ({"server": {"address": "host"}}, "server.address: found 'host'"),
        ({"threads": "two"}, "threads: found 'two'"),
    ],
)
def test_what_is_not_allowed_is_said_with_its_key(changes, said, tmp_path):
    with pytest.raises(UserError, match=said) as found:
        read_site(written(tmp_path, **changes))
    assert str(tmp_path / "site.yml") in str(found.value)


@pytest.mark.parametrize("text", ["", "- a", "name: [", None])
def test_a_file_that_is_none_is_said_to_be_so(text, tmp_path):
    path = tmp_path / "site.yml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match="site.yml"):
        read_site(path)


def test_check_says_what_is_there_and_what_is_missing(demo, tmp_path, capsys):
    shutil.copytree(demo / "east", tmp_path / "east")
    assert main(["check", str(tmp_path / "east" / "site.yml")]) == 1
    said = capsys.readouterr().out
    assert "ok       images: " in said and "classes: 0 " in said
    assert "MISSING  server: is not in site.yml" in said


def test_check_finds_images_that_are_not_there(tmp_path, capsys):
    assert main(["check", str(written(tmp_path))]) == 1
    assert f"MISSING  {tmp_path / 'images'}" in capsys.readouterr().out


def test_a_mistake_is_one_message_and_exit_code_1(tmp_path, capsys):
    assert main(["run", str(tmp_path / "site.yml")]) == 1
    assert capsys.readouterr().err.startswith(f"{tmp_path / 'site.yml'}: there is no such file.")


def test_the_demo_overwrites_nothing(demo):
    with pytest.raises(UserError, match="is not empty"):
        write_demo(demo)
