import json
from dataclasses import replace

import pytest

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.comparison import compare
from kafal_pipeline.comparison.analysis import warnings
from kafal_pipeline.comparison.report.verdict import verdict
from kafal_pipeline.comparison.report.write import write_report
from kafal_pipeline.comparison.runs import load_runs


def words(text):
    return text.replace("\N{NO-BREAK SPACE}", " ")


@pytest.fixture
def compare_scores(write_run_below, tmp_path_factory):
    """Return a function that compares queries by the AULC they are given, a number a seed."""

    def make(scores, **options):
        root = tmp_path_factory.mktemp("runs")
        tables = load_runs(
            write_run_below(root, name, seed=seed) for name in scores for seed in range(len(scores[name]))
        )
        names = tables.cycles["strategy"].str.removesuffix("-kcfu")
        aulc = [scores[name][seed] for name, seed in zip(names, tables.cycles["seed"], strict=True)]
        return compare(replace(tables, cycles=tables.cycles.assign(aulc=aulc)), **options)

    return make


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


STEADY = [0.5 + 0.01 * seed for seed in range(12)]
LUCKY = [score - 0.024 - 0.0004 * seed for seed, score in enumerate(STEADY[:-1])] + [STEADY[-1] + 0.5]
"""Far above on one seed, and 2.4 to 2.8 points below on each of the others."""


def test_a_mean_that_one_lucky_seed_makes_is_not_called_a_lead(compare_scores):
    comparison = compare_scores({"random": STEADY, "ksas": LUCKY})
    found = verdict(comparison)
    assert (found.winner, found.measured_by, found.strength) == ("ksas-kcfu", "random-kcfu", "behind")
    assert words(found.title) == (
        "ksas-kcfu leads on average: AULC 57.3 %, but 2.6 points below random-kcfu on a typical seed"
    )
    assert found.badge == "Highest mean, but below random-kcfu by more than luck"
    assert "it is better on 1 of 12 seeds" in found.sentences[0]
    assert "(interval −2.7 to −2.4)" in found.sentences[0]
    assert found.sentences[1:] == ("On the single seeds, above it by more than luck: random-kcfu.",)


def test_a_reverse_that_may_be_luck_is_no_lead_either(compare_scores):
    found = verdict(compare_scores({"random": STEADY[-4:], "ksas": LUCKY[-4:]}))
    assert found.strength == "too few seeds"
    assert words(found.title).startswith("ksas-kcfu leads on average: AULC ")
    assert words(found.title).endswith(" points below random-kcfu on a typical seed")
    assert len(found.sentences) == 1


def test_a_baseline_or_no_baseline_with_one_lucky_seed_is_not_said_to_lead_either(compare_scores):
    for queries, title in (("entropy", "random"), "random-kcfu, the baseline,"), (("badge", "ksas"), "ksas-kcfu"):
        found = verdict(compare_scores(dict(zip(queries, (STEADY, LUCKY), strict=True))))
        assert words(found.title) == f"{title} leads on average: AULC 57.3 %"
        assert found.strength == "behind"
        closest, reverse = found.sentences[-2:]
        assert f"The runner-up {queries[0]}-kcfu is 2.6 points ahead on a typical seed" in words(closest)
        assert "(interval +2.4 to +2.7)" in closest
        assert closest.endswith("The reverse is more than luck.")
        assert reverse.endswith(f"by more than luck: {queries[0]}-kcfu.")


def test_a_third_strategy_that_is_above_the_winner_is_named(compare_scores):
    scores = {"random": [score - 0.4 for score in STEADY], "entropy": STEADY, "ksas": LUCKY}
    found = verdict(compare_scores(scores, alpha=0.15))
    assert words(found.title) == "ksas-kcfu leads on average: AULC 57.3 %, 37.4 points above random-kcfu"
    assert (found.measured_by, found.strength) == ("random-kcfu", "shown")
    assert found.sentences[2] == "On the single seeds, above it by more than luck: entropy-kcfu."


def test_level_is_said_of_a_difference_of_zero_alone(compare_scores):
    few = [score + 0.1 * (seed == 0) for seed, score in enumerate(STEADY)]
    found = verdict(compare_scores({"random": STEADY, "entropy": few}))
    assert words(found.title).endswith(", level with random-kcfu on a typical seed")
    found = verdict(compare_scores({"badge": STEADY, "entropy": few}))
    assert words(found.sentences[0]).startswith("The runner-up badge-kcfu is level on a typical seed (interval 0.0 to")
    small = [score + 0.0001 for score in STEADY]
    found = verdict(compare_scores({"random": STEADY, "entropy": small}))
    assert words(found.title).endswith(", less than 0.1 points above random-kcfu")
    found = verdict(compare_scores({"badge": STEADY, "entropy": small}))
    assert "The runner-up badge-kcfu is less than 0.1 points behind" in words(found.sentences[0])


@pytest.mark.parametrize(
    ("scores", "title", "sentence"),
    [
        ({"random": [0.5, 0.6], "ksas": [0.5, 0.6]}, "both strategies share the mean", "equal on every seed"),
        (
            {"random": [0.5, 0.6], "ksas": [0.6, 0.5]},
            "both strategies share the mean",
            "1 of 2 seeds, random-kcfu on 1.",
        ),
        (
            {"random": [0.5, 0.6], "ksas": [0.6, 0.5], "entropy": [0.5, 0.5]},
            "ksas-kcfu and random-kcfu share the best mean",
            "1 of 2 seeds",
        ),
        ({name: [0.55, 0.55] for name in ("a", "b", "c", "d")}, "all 4 strategies share the mean", "equal on every"),
        (
            {"random": [0.1, 0.1], **{name: [0.55, 0.55] for name in "abcd"}},
            "4 of 5 strategies share the best mean",
            "equal on every seed",
        ),
    ],
)
def test_equal_means_have_no_winner(compare_scores, scores, title, sentence):
    errors = {name: 1e-15 * place for place, name in enumerate(scores)}  # of rounding, which make no winner
    found = verdict(compare_scores({name: [a + errors[name], b] for name, (a, b) in scores.items()}))
    assert (found.winner, found.measured_by, found.strength) == (None, None, "level")
    assert words(found.title).startswith(f"No difference: {title} AULC, ")
    assert found.badge == "No winner"
    assert sentence in found.sentences[0]


def test_equal_means_of_other_seeds_are_not_said_to_be_equal_on_every_seed(compare_scores):
    nan = float("nan")
    found = verdict(compare_scores({"random": [0.5, nan], "ksas": [nan, 0.5]}))
    assert found.title.startswith("No difference: both strategies share the mean AULC")
    assert found.sentences == ("Not all of them share a finished seed.",)


def test_a_report_of_equal_results_has_no_winner(make_tables, tmp_path):
    tables = make_tables(cycles=1, finished=1)
    folder = tmp_path / "report"
    page = write_report(tables, folder)[0].read_text(encoding="utf-8")
    assert "<h1>No difference: all 3 strategies share the mean AULC, 53.0\N{NO-BREAK SPACE}%</h1>" in page
    assert 'class="top"' not in page
    scalars = json.loads((folder / "comparison.json").read_text())
    assert "winner" not in scalars
    assert scalars["verdict"] == "level"


def test_a_baseline_lost_under_one_update_is_named_with_what_it_leaves_unmeasured(write_run, tmp_path):
    whole = [write_run(query, seed=seed) for query in ("random", "ksas") for seed in range(2)]
    whole += [write_run(query, "fedavg", seed) for query in ("ksas", "badge") for seed in range(2)]
    lost = [tmp_path / f"toy/random-fedavg/seed_{seed}" for seed in range(2)]
    comparison = compare(load_runs([*whole, *lost]))
    assert comparison.lost_baseline is None
    sentence = "The baseline random-fedavg has no finished run. Not compared with a baseline: "
    (found,) = (warning for warning in warnings(comparison) if warning.startswith(sentence))
    assert set(found.removeprefix(sentence).removesuffix(".").split(", ")) == {"ksas-fedavg", "badge-fedavg"}
