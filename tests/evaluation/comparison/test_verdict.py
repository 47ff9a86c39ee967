import pytest

from kafal_pipeline.errors import UserError
from kafal_pipeline.evaluation.comparison import compare
from kafal_pipeline.evaluation.comparison.analysis import warnings
from kafal_pipeline.evaluation.comparison.report import write_report
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


def test_a_strategy_that_lacks_the_hard_seeds_is_ordered_on_those_that_all_share(make_tables, write_run, tmp_path):
    """A seed adds a point of accuracy, and ksas, a little worse than entropy, has only the upper ones."""
    folders = [write_run("random", seed=seed) for seed in range(8)]
    folders += [write_run("entropy", seed=seed, gain=0.011) for seed in range(8)]
    folders += [write_run("ksas", seed=seed, gain=0.005) for seed in range(3, 8)]
    folders += [write_run("badge", seed=7, gain=0.5)]
    comparison = compare(load_runs([*folders, *(tmp_path / f"ksas-kcfu/seed_{seed}" for seed in range(3))]))
    summary = comparison.summary
    assert summary["aulc"]["badge-kcfu"] > summary["aulc"]["ksas-kcfu"] > summary["aulc"]["entropy-kcfu"]
    assert comparison.strategies == ["entropy-kcfu", "ksas-kcfu", "random-kcfu", "badge-kcfu"]
    assert verdict(comparison).winner == "entropy-kcfu"
    assert "those with less than half of the seeds last" in warnings(comparison)[0]


def test_strategies_without_a_common_seed_are_not_measured_by_each_other(write_run, tmp_path):
    folders = [write_run("random", seed=1), write_run("ksas", seed=0, gain=0.1), tmp_path / "toy/ksas-kcfu/seed_1"]
    tables = load_runs(folders)
    found = verdict(compare(tables))
    assert (found.winner, found.strength) == ("ksas-kcfu", "too few seeds")
    assert found.title.endswith("not measured by random-kcfu")
    assert found.sentences == ("It shares no finished seed with the baseline random-kcfu.",)
    write_report(tables, tmp_path / "report")  # without gains


def test_a_strategy_and_a_baseline_that_never_finished_are_named(write_run, tmp_path):
    whole = [write_run(query, seed=seed) for query in ("random", "ksas") for seed in range(2)]
    lost = {tmp_path / f"toy/badge-fedprox_mu-0.1/seed_{seed}": "out of ideas" for seed in range(2)}
    keys = {folder: {"query": "badge", "update": "fedprox_mu-0.1"} for folder in lost}
    tables = load_runs([*whole, *lost], failures=lost, keys=keys)
    assert set(tables.runs["query"]) == {"random", "ksas", "badge"}
    comparison = compare(tables, baseline="badge")
    failed, absent, baseline = warnings(comparison)[:3]
    assert failed.startswith("2 runs failed")
    assert "badge-fedprox_mu-0.1 (2)" in absent
    assert baseline.startswith("The baseline badge has no finished run")


def test_what_is_shown_is_said_whoever_leads(make_tables):
    shown = verdict(compare(make_tables(queries=("random", "entropy", "ksas"), seeds=7))).sentences[-1]
    assert shown == "Above their baselines by more than luck: ksas-kcfu, entropy-kcfu."
    assert (
        verdict(compare(make_tables(queries=("random", "margin", "badge"), updates=("fedavg",), step=0.0)))
        .sentences[-1]
        .endswith("none.")
    )
