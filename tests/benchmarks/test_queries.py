"""The figures of queries know which code they are of."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from kafal_pipeline.common.registry import Entry
from kafal_pipeline.query import QUERIES

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    """The benchmark as a function of its arguments, which measures nothing; it returns its figures."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import queries

    class Pool:
        def __init__(self, size):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *problem):
            pass

        def apply(self, function, arguments):
            return 1.23456, 700.04

    monkeypatch.setattr(queries.multiprocessing.get_context("spawn").__class__, "Pool", lambda self, size: Pool(size))
    file = tmp_path / "queries.json"

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["queries.py", "--output", str(file), *arguments])
        queries.main()
        return json.loads(file.read_text())["queries"]

    yield run
    sys.modules.pop("queries", None)


def test_what_is_measured_has_a_digest_and_the_rest_stays(benchmark):
    first = benchmark("--queries", "random", "ksas")
    assert (first["ksas"]["seconds"], first["ksas"]["megabytes"]) == (1.235, 700.0)
    second = benchmark("--queries", "badge")
    assert list(second) == ["badge", "ksas", "random"]
    assert {name: second[name] for name in first} == first
    assert len({figures["sources"] for figures in second.values()}) == 3


def test_the_check_names_what_is_older_than_its_code(benchmark, monkeypatch, capsys):
    benchmark("--queries", "random", "ksas", "entropy")
    benchmark("--check", "--queries", "random", "ksas")
    assert "All figures" in capsys.readouterr().out
    monkeypatch.setitem(QUERIES, "ksas", Entry(QUERIES["ksas"].target, "", {"prior_smoothing": 1}))
    with pytest.raises(SystemExit, match=r"benchmarks/queries\.py --queries ksas margin$"):
        benchmark("--check", "--queries", "random", "ksas", "margin")


def test_figures_of_two_settings_are_never_mixed_and_a_query_that_is_gone_goes(benchmark, monkeypatch):
    monkeypatch.setitem(QUERIES, "new", Entry("kafal_pipeline.query.random:Random", "new"))
    benchmark("--queries", "random", "new")
    with pytest.raises(SystemExit, match="give another --output"):
        benchmark("--queries", "random", "--pool", "100")
    monkeypatch.delitem(QUERIES, "new")
    assert list(benchmark("--queries", "random")) == ["random"]
