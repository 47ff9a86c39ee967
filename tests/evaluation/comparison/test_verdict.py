import pytest

from kafal_pipeline.errors import UserError
from kafal_pipeline.evaluation.comparison import compare
from kafal_pipeline.evaluation.comparison.analysis import warnings
from kafal_pipeline.evaluation.comparison.runs import load_runs
from kafal_pipeline.evaluation.comparison.verdict import verdict


def words(text):
    return text.replace("\N{NO-BREAK SPACE}", " ")


def test_a_large_gap_on_enough_seeds_is_more_than_luck(make_tables):
    comparison = compare(make_tables(seeds=7))
    found = verdict(comparison)
    assert comparison.strategies == ["ksas-kcfu", "entropy-kcfu", "random-kcfu"]
    assert (found.winner, found.measured_by, found.strength) == ("ksas-kcfu", "random-kcfu", "shown")
    assert words(found.title).startswith("ksas-kcfu leads: AULC ")
    assert words(found.title).endswith("points above random-kcfu")
    assert "7 of 7 seeds" in found.sentences[0]
    assert words(found.sentences[0]).endswith("p = 0.016, adjusted for 2 tests.")  # 2 x 2^-7
    assert found.sentences[1].endswith("That is more than luck.")
    assert warnings(comparison) == []


def test_too_few_seeds_are_said_with_the_number_needed(make_tables):
    comparison = compare(make_tables(seeds=3))
    assert verdict(comparison).strength == "too few seeds"
    baseline, pairs = warnings(comparison)
    assert "3 seeds" in baseline
    assert "6 are needed" in baseline
    assert "6 tests of all pairs" in pairs
    assert "7 are needed" in pairs


def test_no_gap_may_be_luck(make_tables):
    comparison = compare(make_tables(queries=("random", "entropy"), step=0.0))
    assert verdict(comparison).strength == "open"


def test_a_baseline_that_leads_is_said_to(make_tables):
    found = verdict(compare(make_tables(queries=("entropy", "random"))))
    assert found.title.startswith("random-kcfu, the baseline, leads")
    assert found.measured_by == "entropy-kcfu"
    assert found.sentences[0] == "No strategy is above the baseline on average."


def test_without_a_baseline_the_runner_up_measures(make_tables):
    comparison = compare(make_tables(queries=("entropy", "ksas")))
    assert comparison.baselines == {}
    assert comparison.against_baseline.empty
    assert comparison.gains.empty
    assert verdict(comparison).measured_by == "entropy-kcfu"


def test_one_strategy_is_compared_with_nothing(make_tables):
    assert verdict(compare(make_tables(queries=("ksas",), seeds=1))).strength == "alone"


def test_each_update_has_its_own_baseline(make_tables):
    comparison = compare(make_tables(queries=("random", "ksas"), updates=("kcfu", "fedavg"), seeds=2))
    assert comparison.baselines == {"ksas-kcfu": "random-kcfu", "ksas-fedavg": "random-fedavg"}


def test_failed_runs_leave_the_others_standing(write_run):
    folders = [write_run(query, seed=seed) for query in ("random", "ksas") for seed in range(4)]
    tables = load_runs([*folders, folders[-1].with_name("seed_9")], failures={folders[-1]: "out of memory"})
    comparison = compare(tables)
    assert comparison.summary.loc["ksas-kcfu", ["n", "failed"]].tolist() == [3, 2]
    assert comparison.against_baseline["n"].tolist() == [3]
    assert comparison.ranking.n == 3
    assert warnings(comparison)[0].startswith("2 runs failed")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 5}, "alpha: found 5"),
        ({"targets": [0.5, 90]}, "targets: found 90"),
        ({"baseline": "entropie"}, "Did you mean 'entropy'"),
    ],
)
def test_wrong_options_are_refused(make_tables, options, message):
    tables = make_tables(queries=("random", "entropy"), seeds=1)
    with pytest.raises(UserError, match=message):
        compare(tables, **options)


def test_clients_left_out_of_rounds_are_said_with_the_strategies(write_run):
    folders = [write_run("random", seed=seed) for seed in range(7)]
    folders += [write_run("ksas", seed=seed, skipped=2 * (seed == 3)) for seed in range(7)]
    comparison = compare(load_runs(folders))
    assert comparison.costs["skipped_client_rounds"].to_dict() == {"random-kcfu": 0, "ksas-kcfu": pytest.approx(6 / 7)}
    (warning,) = warnings(comparison)
    assert warning.startswith("Clients were left out of rounds because their training had failed, under ksas-kcfu:")
