"""A digest of the code that a run depends on, and of nothing else."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import fields

import pytest

from kafal_pipeline.common.registry import Entry, load
from kafal_pipeline.config import resolve
from kafal_pipeline.query import QUERIES
from kafal_pipeline.runs import code_digest
from kafal_pipeline.runs.code_digest import query_digest, sources_digest
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
        importlib.invalidate_caches()

    return write


def modules(query, **changes):
    parts = code_digest.code_parts(resolve({"query": query, **changes}))
    return {part.partition("\0")[0].removeprefix("kafal_pipeline.") for part in parts}


def test_a_query_brings_what_it_imports_and_no_other_query():
    ksas, fairfal = modules("ksas"), modules("fairfal")
    assert {
        "federation.cycle",
        "federation.trial",
        "training.step",
        "evaluation.measures",
        "evaluation.model_measures",
        "data.pools",
        "query.base",
    } <= ksas
    assert {"query.entropy", "query.geometry.k_centre", "query.parts.quota"} <= fairfal - ksas
    assert not [name for name in ksas if "tracking" in name or "figures" in name or name.endswith(".names")]
    assert {name.partition(".")[0] for name in ksas} <= {name.partition(".")[0] for name in code_digest.FOLDERS} | {
        "model"
    }


def test_the_first_query_counts_unless_it_is_random():
    plain, herding = (
        {part.partition("\0")[0] for part in code_digest.code_parts(resolve({"budget": {"initial_query": how}}))}
        for how in ("random", "herding")
    )
    assert any(name.endswith("query.first") for name in herding - plain)
    assert plain < herding


def test_what_is_named_is_there():
    for name in (
        code_digest.FIRST_ROOT,
        *code_digest.FOLDERS,
        *code_digest.IGNORED,
        *code_digest.ROOTS,
        *code_digest.QUERY_ROOTS,
    ):
        assert importlib.util.find_spec(f"kafal_pipeline.{name}") is not None


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
    assert {"query.compose", "query.ksas"} <= modules({"score": "ksas", "diversity": "k_centre"})


@pytest.mark.parametrize("entries", [QUERIES, UPDATES], ids=["queries", "updates"])
def test_a_registered_default_that_names_a_strategy_stands_in_its_entry(entries):
    """Where it is read: importing the class to see its defaults would take seconds."""
    for name, entry in entries.items():
        defaults = {item.name: item.default for item in fields(load("query", name, entries))}
        named = {key: value for key, value in defaults.items() if isinstance(value, str) and value in entries}
        imported = modules(name) if entries is QUERIES else modules("random", update=name)
        for key, value in named.items():
            assert {**entry.options}.get(key) == value or entries[value].target.partition(":")[0].removeprefix(
                "kafal_pipeline."
            ) in imported


def test_a_users_own_default_that_names_a_strategy_counts(package):
    package("part", "class Part:\n    x = 1\n")
    package("base", 'PART = "margin"\n\nclass Base:\n    part: str = PART\n')
    package("query", "from own_queries import base\n\nclass Mine(base.Base):\n    other: int = 1\n")
    assert {"query.margin", "own_queries.part"} <= modules("own_queries.query.Mine")
    assert "query.entropy" in modules({"name": "own_queries.query.Mine", "part": "entropy"})
    before = code_digest.code_parts(config := resolve({"query": "own_queries.query.Mine"}))
    package("part", "class Part:\n    x = 2\n")
    assert code_digest.edited(config, before) == ["own_queries.part"]


def test_own_modules_that_a_users_own_imports_count_and_installed_ones_do_not(package, tmp_path, monkeypatch):
    beside, installed = tmp_path / "own_utils.py", tmp_path / "site-packages" / "own_installed.py"
    installed.parent.mkdir()
    monkeypatch.syspath_prepend(installed.parent)
    installed.write_text("y = 1\n")
    beside.write_text("import json\nimport own_installed\n\nx = 1\n")
    package("query", "import numpy\nfrom own_utils import x\n\nclass Mine:\n    pass\n")
    config = resolve({"query": "own_queries.query.Mine"})
    assert {name for name in modules("own_queries.query.Mine") if name.startswith("own_")} == {
        "own_queries",
        "own_queries.query",
        "own_utils",
    }
    before = code_digest.code_parts(config)
    assert not code_digest.edited(config, before)
    beside.write_text("import json\nimport own_installed\n\nx = 2222\n")
    os.utime(beside, (2, 2))
    assert code_digest.edited(config, before) == ["own_utils"]


def test_code_counts_and_its_comments_do_not(package):
    package("part", "def size():\n    return 1\n")
    package("query", "from own_queries.part import size\n\nclass Mine:\n    pass\n")
    before = digest("own_queries.query.Mine")
    package("part", '"""Said."""\n\n\ndef size():\n    """One."""\n    # why\n    return  1\n')
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


def test_a_module_that_moves_is_the_same_code_and_another_source_of_a_name_is_not(tmp_path, monkeypatch):
    """The package copied, and a module in it renamed with every import of it."""
    here = code_digest.HERE

    def changed(copy, old, new, moved=None):
        shutil.copytree(here, tmp_path / copy / here.name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (tmp_path / copy).rglob("*.py"):
            path.write_text(path.read_text().replace(old, new))
        if moved:
            (tmp_path / copy / here.name / moved[0]).rename(tmp_path / copy / here.name / moved[1])
        code = "from kafal_pipeline.config import resolve; "
        code += "from kafal_pipeline.runs.code_digest import sources_digest as of\n"
        command = [sys.executable, "-c", code + "print(of(resolve({'query': 'coreset'})))"]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / copy)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    before = digest("coreset")
    files = ("query/geometry/k_centre.py", "query/geometry/k_middle.py")
    assert changed("moved", "geometry.k_centre", "geometry.k_middle", files) == before
    assert changed("elsewhere", "geometry.k_centre import", "geometry.k_means import") != before
