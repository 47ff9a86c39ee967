"""What is compared, and mistakes in it."""

from __future__ import annotations

import pytest

from kafal_pipeline.config import resolve
from kafal_pipeline.config.compare import instead_of, resolve_comparison
from kafal_pipeline.config.resolve import ConfigError


def test_every_query_with_every_update_seed_by_seed():
    section = {
        "queries": ["random", {"name": "ksas", "prior_smoothing": 1}],
        "updates": ["kcfu", "fedavg"],
        "seeds": "3-4",
    }
    _, runs = resolve_comparison({"compare": section, "cycles": 2, "query": "entropy"})
    paths = [run.run_path.removeprefix("digits/") for run in runs]
    assert paths[:4] == [
        f"{query}-{update}/seed_3" for update in ("kcfu", "fedavg") for query in ("random", "ksas_prior_smoothing-1")
    ]
    assert len(set(paths)) == len(paths) == 8
    assert {run.cycles for run in runs} == {2}
    assert runs[1].query.options == {"prior_smoothing": 1}


def test_without_updates_it_is_that_of_the_other_parameters():
    for parameters, update in (
        ({}, "kcfu"),
        ({"preset": "kafal_paper"}, "kcfu_paper"),
        ({"update": "fedprox"}, "fedprox"),
    ):
        _, (run,) = resolve_comparison({"compare": {"queries": "random"}, **parameters})
        assert run.update.label == update


def test_the_section_is_no_matter_of_other_runs():
    assert resolve({"compare": {"queries": 3}, "seed": 1}) == resolve({"seed": 1})


@pytest.mark.parametrize(
    ("section", "key", "part"),
    [
        ({}, "compare.queries", "is needed"),
        (None, "compare", "must be a section"),
        ({"queries": []}, "compare.queries", "at least 1"),
        ({"queries": [3]}, "compare.queries.0", "must be a name"),
        ({"queries": ["ksas", "ksas"]}, "compare.queries", "ksas is listed more than once"),
        ({"queries": ["ksas"], "updates": ["kcfu", {"name": "kcfu"}]}, "compare.updates", "more than once"),
        ({"queries": ["ksas"], "seeds": [1, 2, 1]}, "compare.seeds", "1 is listed more than once"),
        ({"queries": ["ksas"], "seeds": "9-0"}, "compare.seeds", "0-9"),
        ({"queries": ["ksas"], "seeds": [-1]}, "compare.seeds.0", "greater than or equal to 0"),
        ({"queries": ["ksas"], "jobs": 0}, "compare.jobs", "greater than or equal to 1"),
        ({"queries": ["ksas"], "job": 1}, "compare.job", "Did you mean 'jobs'"),
        ({"queries": ["ksas"], "baseline": "badge"}, "compare.baseline", "none of compare.queries"),
        (
            {
                "queries": ["random", {"name": "ksas", "label": "random-a"}],
                "updates": [{"name": "kcfu", "label": "a-b"}, {"name": "fedavg", "label": "b"}],
            },
            "compare.queries",
            "found 'random' with 'a-b' and 'random-a' with 'b', whose results would have the one name 'random-a-b'",
        ),
        ({"queries": ["ksas"], "targets": [90]}, "compare.targets.0", "less than or equal to 1"),
        ({"queries": ["ksas"], "name": "a/b"}, "compare.name", "'a/b'"),
    ],
)
def test_mistakes_name_their_key(section, key, part):
    with pytest.raises(ConfigError) as raised:
        resolve_comparison({"compare": section})
    assert key in dict(raised.value.problems)
    assert part in dict(raised.value.problems)[key]


@pytest.mark.parametrize(
    ("given", "updates", "keys"),
    [
        ({"query": "badge", "update": "fedavg", "seed": 5}, ["kcfu"], ["query", "update", "seed"]),
        ({"query": {"score": "ksas"}, "update": "fedavg"}, None, ["query"]),
        ({"query": None, "cycles": 3, "compare": {"seeds": [1]}}, ["kcfu"], []),
    ],
)
def test_what_a_comparison_does_not_heed_is_not_given(given, updates, keys):
    compare, _ = resolve_comparison({"compare": {"queries": "random", "updates": updates}})
    problems = dict(instead_of(given, compare))
    assert list(problems) == keys
    assert all(f"found {given[key]!r}" in said and "Write compare." in said for key, said in problems.items())
