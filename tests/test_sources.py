"""A digest of the code that a run depends on, and of nothing else."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from dataclasses import fields

import pytest

from kafal_pipeline import module_files, sources
from kafal_pipeline.config import resolve
from kafal_pipeline.query import QUERIES
from kafal_pipeline.registry import Entry, load
from kafal_pipeline.sources import closure, query_digest, sources_digest
from kafal_pipeline.update import UPDATES


def digest(query, **changes):
    return sources_digest(resolve({"query": query, **changes}))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of a user's own; returns what writes its modules."""
    folder = tmp_path / "own_queries"
    monkeypatch.syspath_prepend(tmp_path)
    clock = iter(range(10**9, 2 * 10**9))

    def write(name, text):
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").touch()
        path = folder / f"{name}.py"
        path.write_text(text)
        os.utime(path, (now := next(clock), now))
        module_files.file_of.cache_clear()
        module_files._is_users.cache_clear()
        importlib.invalidate_caches()

    yield write
    module_files.file_of.cache_clear()
    module_files._is_users.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "own_queries"]:
        del sys.modules[name]  # looking for a module imports its package


def test_a_query_brings_what_it_imports_and_no_other_query():
    ksas = closure([*sources.ROOTS, "kafal_pipeline.query.ksas"])
    fairfal = closure([*sources.ROOTS, "kafal_pipeline.query.fairfal"])
    assert "kafal_pipeline.federation.cycle" in ksas
    assert "kafal_pipeline.training.step" in ksas
    assert "kafal_pipeline.evaluation.measures" in ksas
    for name in ("entropy", "k_centre", "parts.quota"):
        assert f"kafal_pipeline.query.{name}" in set(fairfal) - set(ksas)
    assert not [name for name in ksas if "tracking" in name or "figures" in name or name.endswith(".names")]


def test_another_registered_query_changes_nothing_but_the_options_of_the_own_name_count(monkeypatch):
    before = {name: digest(name) for name in ("ksas", "ksas_paper")}
    monkeypatch.setitem(QUERIES, "new", Entry("kafal_pipeline.query.random:Random", "new"))
    assert {name: digest(name) for name in before} == before
    monkeypatch.setitem(QUERIES, "ksas_paper", Entry(QUERIES["ksas_paper"].target, "", {"global_model": "final"}))
    assert digest("ksas_paper") != before["ksas_paper"]
    assert digest("ksas") == before["ksas"]


def test_update_model_and_the_parts_of_a_composition_count():
    plain = digest("random")
    assert digest("random", update="scaffold") != plain
    assert digest("random", model="cnn4") != plain
    composed = resolve({"query": {"score": "ksas", "diversity": "k_centre"}})
    assert {"query.compose", "query.ksas"} <= set(sources._entries(composed))


def test_so_does_a_part_that_stands_there_by_default_and_only_where_it_does(package):
    by_default = resolve({"query": {"quota": "global_prototypes"}})
    assert {"query.compose", "query.entropy"} <= set(sources._entries(by_default))
    written = resolve({"query": {"score": "ksas", "quota": "global_prototypes"}})
    assert "query.entropy" not in sources._entries(written)
    package("part", "class Part:\n    x = 1\n")
    package("base", 'PART = "own_queries.part.Part"\n\nclass Base:\n    part: str = PART\n')
    package("query", "from own_queries import base\n\nclass Mine(base.Base):\n    other: int = 1\n")
    config = resolve({"query": "own_queries.query.Mine"})
    before = sources.code_parts(config)
    package("part", "class Part:\n    x = 2\n")
    assert sources.edited(config, before) == ["own_queries.part"]
    assert digest({"name": "own_queries.query.Mine", "part": "random"}) != sources_digest(config)


@pytest.mark.parametrize("entries", [QUERIES, UPDATES], ids=["queries", "updates"])
def test_a_default_is_read_as_it_is(entries):
    """Where a registered strategy's own default names another, the digest of the strategy has that one, too."""
    for name, entry in entries.items():
        cls = load("query", name, entries)
        strings = {item.name: item.default for item in fields(cls) if isinstance(item.default, str)}
        read = sources._defaults(*entry.target.split(":"))
        assert {key: found[0] for key, found in read.items() if key in strings} == strings


def test_modules_beside_a_users_own_count_and_installed_ones_do_not(package, tmp_path, monkeypatch):
    beside, installed = tmp_path / "own_utils.py", tmp_path / "site-packages" / "own_installed.py"
    installed.parent.mkdir()
    monkeypatch.syspath_prepend(installed.parent)
    installed.write_text("y = 1\n")
    beside.write_text("import json\nimport own_installed\n\nx = 1\n")
    package("query", "import numpy\nfrom own_utils import x\n\nclass Mine:\n    pass\n")
    assert set(closure(["own_queries.query"])) == {"own_queries.query", "own_utils"}
    config = resolve({"query": "own_queries.query.Mine"})
    before = sources.code_parts(config)
    assert not sources.edited(config, before)
    beside.write_text("import json\nimport own_installed\n\nx = 2222\n")
    os.utime(beside, (2, 2))
    assert sources.edited(config, before) == ["own_utils"]


def test_code_counts_and_its_comments_do_not(package):
    package("part", "def size():\n    return 1\n")
    package("query", "from own_queries.part import size\n\nclass Mine:\n    pass\n")
    package("other", "x = 1\n")
    before = digest("own_queries.query.Mine")
    package("part", '"""Said."""\n\n\ndef size():\n    """One."""\n    # why\n    return  1\n')
    package("other", "x = 2\n")
    assert digest("own_queries.query.Mine") == before
    package("part", "def size():\n    return 2\n")
    assert digest("own_queries.query.Mine") != before


def test_a_querys_own_digest_is_of_its_code_its_parts_and_its_options(package, monkeypatch):
    package("part", "x = 1\n")
    package("query", "from own_queries.part import x\n\nclass Mine:\n    pass\n")
    monkeypatch.setitem(QUERIES, "mine", Entry("own_queries.query:Mine", "new"))
    mine, composed, other = (
        query_digest("mine", {}),
        query_digest("compose", {"score": "mine"}),
        query_digest("egl", {}),
    )
    assert query_digest("mine", {"a": 1}) != mine
    package("part", "x = 1  # said\n")
    assert query_digest("mine", {}) == mine
    package("part", "x = 2\n")
    assert query_digest("mine", {}) != mine
    assert query_digest("compose", {"score": "mine"}) != composed
    assert query_digest("egl", {}) == other


def test_imports_for_type_checkers_do_not_count(package):
    package("part", "x = 1\n")
    package("query", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from own_queries import part\n")
    assert set(closure(["own_queries.query"])) == {"own_queries.query"}


def test_relative_and_re_exported_imports_are_followed(package):
    package("part", "x = 1\n")
    package("query", "from . import part\n")
    assert set(closure(["own_queries.query"])) == {"own_queries.query", "own_queries.part"}
    package("query", "from .part import x\n")
    assert set(closure(["own_queries.query"])) == {"own_queries.query", "own_queries.part"}
    found = closure(["kafal_pipeline.pipelines.fal.nodes"])
    assert "kafal_pipeline.data.images" in found  # by way of `from kafal_pipeline.data import ImageData`
    assert "kafal_pipeline.data" not in found


def test_a_module_that_moves_is_the_same_code_and_another_source_of_a_name_is_not(tmp_path, monkeypatch):
    """The package copied, and a module in it renamed with every import of it."""
    here = module_files.file_of("kafal_pipeline").parent

    def changed(copy, old, new, moved=None):
        shutil.copytree(here, tmp_path / copy / here.name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (tmp_path / copy).rglob("*.py"):
            path.write_text(path.read_text().replace(old, new))
        if moved:
            (tmp_path / copy / here.name / moved[0]).rename(tmp_path / copy / here.name / moved[1])
        code = "from kafal_pipeline.config import resolve; from kafal_pipeline.sources import sources_digest as of; "
        command = [sys.executable, "-c", code + "print(of(resolve({'query': 'coreset'})))"]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / copy)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    before = digest("coreset")
    assert changed("moved", "query.k_centre", "query.k_middle", ("query/k_centre.py", "query/k_middle.py")) == before
    elsewhere = "from kafal_pipeline.query.k_centre import", "from kafal_pipeline.query.k_means import"
    assert changed("elsewhere", *elsewhere) != before
