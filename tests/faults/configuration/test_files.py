"""Broken files of parameters, arguments that cannot be read, and strange files where results belong."""

from __future__ import annotations

import shutil

import pytest

from .project import ROOT, Outcome, harmful

BROKEN = {
    "a list": "- seed\n- 1\n",
    "a word": "seed\n",
    "a number": "3\n",
    "an open bracket": "training: {lr: [\n",
    "a tab": "training:\n\tlr: 1\n",
    "an alias of nothing": "seed: *nothing\n",
    "a key twice": "seed: 1\nseed: 2\n",
    "a mapping as key": "{{a: 1}: 2}: 3\n",
    "a python object": "seed: !!python/object/apply:os.mkdir [sprung]\n",
    "another tag": "seed: !nowhere 1\n",
    "bytes that are no text": b"seed: \xff\xfe\x00\n",
    "another encoding": "seed: 1\n".encode("utf-16"),
    "a zero byte": "seed: \x00\n",
    "a control character": "seed: \x07\n",
    "a very deep nest": "seed: " + "[" * 1000,
    "a number of 5000 digits": f"seed: {'9' * 5000}\n",
    "an interpolation of nothing": "seed: ${nowhere}\n",
    "an interpolation of the environment": "seed: ${oc.env:HOME}\n",
    "an interpolation in circles": "seed: ${seed}\n",
    "an interpolation unfinished": "seed: ${\n",
    "two documents": "seed: 1\n---\nseed: 2\n",
    "half a file": (ROOT / "conf/base/parameters.yml").read_text()[:1500].rpartition("\n")[0] + "\n{",
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize(
    "file", ["conf/fuzz/parameters.yml", pytest.param("conf/base/parameters.yml", marks=pytest.mark.slow)]
)
def test_broken_files(folder, file, name):
    folder.write(BROKEN[name], file)
    outcome = folder.run("--env", "fuzz")
    folder.restore()
    assert not outcome.problems(file)


@pytest.mark.parametrize(
    "params", ["seed", "=1", "a..b=1", "[=1", "seed=[", "seed={", "seed=${nowhere}", "seed=*x", "."]
)
def test_unreadable_arguments(folder, params):
    outcome = folder.run("--params", params)
    assert outcome.crash is None
    assert outcome.code == 1
    assert "Error: " in outcome.output
    assert "Traceback" not in outcome.output
    assert not outcome.changed


@pytest.mark.parametrize("what", ["folder", "dangling link", "catalog", "catalog type", "catalog list"])
def test_files_that_are_something_else(folder, what):
    file = folder.root / "conf/fuzz" / ("parameters_more.yml" if "catalog" not in what else "catalog.yml")
    if what == "folder":
        file.mkdir()
    elif what == "dangling link":
        file.symlink_to("nowhere.yml")
    else:
        contents = {"catalog": "images: {", "catalog type": "images: {type: nowhere.Nothing}", "catalog list": "- 1\n"}
        file.write_text(contents[what])
    outcome = folder.run("--env", "fuzz")
    file.rmdir() if what == "folder" else file.unlink()
    folder.restore()
    assert outcome.crash is None
    if outcome.code:
        assert not outcome.problems("images" if what == "catalog type" else f"conf/fuzz/{file.name}")


PLACES = {
    "a link to nowhere for a run": ("data/06_models/smoke/ksas-kcfu/seed_0", "nowhere"),
    "a link to nowhere above the runs": ("data/09_tracking", "nowhere"),
    "a folder for what is noted": ("data/07_model_output/smoke/ksas-kcfu/seed_0/provenance.json", ""),
    "a link in circles": ("data/08_reporting", "08_reporting"),
}
"""A path, and what the link there points to; nothing: there is a folder."""


@pytest.mark.parametrize("name", PLACES)
def test_strange_files_in_the_place_of_results(folder, name):
    place, target = PLACES[name]
    path = folder.root / place
    away = path.with_name(f"{path.name}.away")
    if path.exists():
        path.rename(away)
    path.parent.mkdir(parents=True, exist_ok=True)
    if target:
        path.symlink_to(target)
    else:
        path.mkdir()
    outcome = folder.run()
    path.unlink() if target else path.rmdir()
    if away.exists():
        away.rename(path)
    folder.restore()
    kept = Outcome(outcome.code, outcome.output, outcome.crash, outcome.seconds, tuple(harmful(outcome.changed)))
    assert not kept.problems(place)


def test_a_cycle_that_is_a_link_goes_and_what_it_points_to_stays(folder):
    elsewhere = folder.root / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    link = folder.root / "data/06_models/smoke/ksas-kcfu/seed_0/cycle_00"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(elsewhere)
    outcome = folder.run()
    folder.restore()
    assert outcome.code == 0, outcome.output
    assert not link.is_symlink()
    assert (elsewhere / "precious").exists()
    shutil.rmtree(elsewhere)


@pytest.mark.parametrize("content", ["", "[[0, 1", "[[0, 99999]]", "[[0], [0]]", "{}", "[[0.5]]"])
@pytest.mark.parametrize("file", ["splits.json", "split_origin.json"])
def test_damaged_splits_through_the_command(folder, file, content):
    """What Kedro makes of an error while it reads is taken off again."""
    path = folder.root / "data/03_primary/smoke/seed_0" / file
    good = path.read_text()
    path.write_text(content)
    outcome = folder.run("--from-nodes", "cycle_00.initial_pool")
    path.write_text(good)
    assert not outcome.problems(file)
