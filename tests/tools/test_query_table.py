from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from kafal_pipeline.common.registry import Entry, create
from kafal_pipeline.config import Strategy
from kafal_pipeline.query import QUERIES
from query_table import COMMAND, needs, renewed, table

from .conftest import informed, make_query

ROOT = Path(__file__).parents[2]


def test_the_table_of_queries_is_current():
    page = (ROOT / "docs/queries.md").read_text(encoding="utf-8")
    costs = json.loads((ROOT / "benchmarks/results/queries.json").read_text(encoding="utf-8"))
    missing = sorted(set(QUERIES) - set(costs["queries"]))
    assert not missing, f"Not measured. Run: python benchmarks/queries.py --queries {' '.join(missing)}"
    assert renewed(page, costs) == page, f"The page is out of date. Run: {COMMAND}"


@pytest.mark.slow
def test_the_figures_of_the_table_are_those_of_the_present_code():
    """Not among the quick tests: a query may be changed without measuring it again on a quiet machine at once."""
    command = [sys.executable, "benchmarks/queries.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_query_without_figures_has_its_row(monkeypatch):
    monkeypatch.setitem(QUERIES, "new", Entry("kafal_pipeline.query.bald:BALD", "anything", {"passes": 3}))
    rows = table({"queries": {"random": {"seconds": 0.06, "megabytes": 99.6}}}).splitlines()
    assert "| `random` | uniformly at random | - | nothing | yes | 0.1 | 100 |" in rows
    assert (
        "| `new` | anything | `passes` 3, `rate` 0.5, `model` global | global | yes | not measured | not measured |"
        in rows
    )


def test_every_query_keeps_within_its_time_and_memory():
    results = json.loads((ROOT / "benchmarks/results/queries.json").read_text(encoding="utf-8"))
    assert (results["pool"], results["budget"], results["features"], results["classes"]) == (40_000, 250, 64, 10)
    for name, cost in results["queries"].items():
        assert cost["seconds"] <= 30, name
        assert cost["megabytes"] <= 1024, name


def test_needs_are_what_a_query_asks_for():
    assert needs(make_query("random")) == []
    assert needs(make_query("ksas_paper")) == ["downloaded", "local"]
    assert needs(make_query("coreset", model="local")) == ["local", "labelled samples' outputs"]
    assert needs(make_query("ahfal")) == ["global", "local", "a summary of each client"]


@pytest.fixture
def tutorial(tmp_path, monkeypatch):
    """The tutorial's text; its file of queries can be imported."""
    text = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    code = re.search(r"Save it as `my_queries\.py`:\n\n```python\n(.*?)```", text, re.DOTALL)[1]
    assert len(code.splitlines()) < 40
    (tmp_path / "my_queries.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield text
    sys.modules.pop("my_queries", None)


def test_the_tutorials_query_runs(tutorial, make_pool):
    pool = make_pool(samples=30)
    query = create("query", "my_queries.Dissent", {}, QUERIES)
    chosen = query.select(pool, 5, np.random.default_rng(0))
    local, global_ = (pool.logits(kind).argmax(dim=1).numpy() for kind in ("local", "global"))
    dissent = set(pool.samples[local != global_].tolist())
    assert len(dissent) >= 5
    assert set(chosen.samples.tolist()) <= dissent


def test_the_tutorials_composition_runs(tutorial, make_pool):
    block = re.search(r"```yaml\n(.*?)```", tutorial, re.DOTALL)[1]
    strategy = Strategy.model_validate(yaml.safe_load(block)["query"])
    query = create("query", strategy.name, strategy.options, QUERIES)
    chosen = query.select(informed(query, make_pool(samples=30)), 5, np.random.default_rng(0))
    assert len(set(chosen.samples.tolist())) == 5


def test_the_tutorials_registration_is_all_that_the_tests_ask_for(tutorial, monkeypatch):
    name, target, summary = re.search(
        r'^    "(\w+)": Entry\(f"\{_HERE\}(\S+)", "(.*)"\),$', tutorial, re.MULTILINE
    ).groups()
    assert target == ".dissent:Dissent"
    monkeypatch.setitem(QUERIES, name, Entry("my_queries:Dissent", summary))
    assert f"| `{name}` | {summary} | `bonus` 1.0, `doubter` global | global, local | yes |" in table({"queries": {}})
    assert f"    python benchmarks/queries.py --queries {name}\n    {COMMAND}\n" in tutorial


@pytest.mark.parametrize("page", ["queries.md"])
def test_the_pages_composition_can_be_read(page):
    line = re.search(r"^    query: (\{score.*\})$", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.MULTILINE)[1]
    strategy = Strategy.model_validate(yaml.safe_load(line))
    create("query", strategy.name, strategy.options, QUERIES)
