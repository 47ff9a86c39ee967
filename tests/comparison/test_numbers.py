"""The numbers that a reader sees, on the page and in the figures, are those of the tables next to it."""

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from kafal_pipeline.comparison import compare, load_runs
from kafal_pipeline.comparison.analysis import FINAL_MEASURES
from kafal_pipeline.comparison.curves import REFERENCE
from kafal_pipeline.comparison.report.appearance import looks
from kafal_pipeline.comparison.report.figures import (
    critical_difference_figure,
    gains_figure,
    learning_curves_figure,
    scores_figure,
)
from kafal_pipeline.comparison.report.write import write_report

QUERIES = {"random": 0.0, "entropy": 0.03, "margin": 0.035, "ksas": 0.1}
SEEDS = 9
LEVELS = (12 / 2**SEEDS, 3 / 2**SEEDS)
"""The smallest p-values that Holm's method leaves of 12 and 3 tests: those of a strategy that wins every seed."""


class Bodies(HTMLParser):
    """Collects by section the rows of its first table's body: cells of `text`, `marks` (all classes) and `title`."""

    def __init__(self, page):
        super().__init__()
        self.rows, self._section, self._body, self._cell = {}, None, False, None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "section":
            self._section = attrs["id"]
        elif tag == "tbody":
            self._body = self._section not in self.rows
            self.rows.setdefault(self._section, [])
        elif self._body and tag == "tr":
            self.rows[self._section].append([])
        elif self._body and tag in {"td", "th"}:
            self._cell = {"text": "", "marks": [attrs.get("class")], "title": attrs.get("title", "")}
            self.rows[self._section][-1].append(self._cell)
        elif self._cell:
            self._cell["text"] += " "
            self._cell["marks"].append(attrs.get("class"))

    def handle_endtag(self, tag):
        self._body = self._body and tag != "tbody"
        if tag in {"td", "th"}:
            self._cell = None

    def handle_data(self, data):
        if self._cell:
            self._cell["text"] += data


def numbers(text):
    return [float(number) for number in re.findall(r"[-+]?\d+(?:\.\d+)?", text.replace("\N{MINUS SIGN}", "-"))]


def near(*values, places=1):
    """Match numbers that are rounded to so many decimals."""
    return pytest.approx(list(values), abs=0.501 * 10**-places)


@pytest.fixture(scope="module")
def tables(write_run_below, tmp_path_factory):
    """Runs whose scores, accuracies, clients and costs are all different, of wins, losses, a tie and a failed run."""
    root = tmp_path_factory.mktemp("numbers")
    split = root / "split_table.csv"
    split.write_text("client,class,count\n0,0,9\n0,1,1\n1,0,1\n1,1,9\n2,0,3\n2,1,2\n3,0,1\n3,1,4\n")
    folders = [
        write_run_below(root, query, seed=seed, gain=gain, classes=("cat", "cow", "dog"))
        for query, gain in QUERIES.items()
        for seed in range(SEEDS)
    ]
    lost = folders[0].with_name("seed_99")
    tables = load_runs([*folders, lost], splits=dict.fromkeys(range(SEEDS), split), failures={lost: "no"})
    rng = np.random.default_rng(1)
    cycles, n = tables.cycles, len(tables.cycles)
    gain = cycles["strategy"].str.removesuffix("-kcfu").map(QUERIES)
    aulc = gain + 0.03 * cycles["seed"] + 0.1 + 0.012 * rng.random(n)
    margin, entropy = (cycles["strategy"] == f"{query}-kcfu" for query in ("margin", "entropy"))
    aulc[margin & (cycles["seed"] == 0)] = aulc[entropy & (cycles["seed"] == 0)].to_numpy()
    aulc[margin & cycles["seed"].between(1, 3)] -= 0.09
    costs = {
        "train_seconds": 50 * rng.random(n),
        "query_seconds": 2 * rng.random(n),
        "evaluate_seconds": 700 * rng.random(n),
        "bytes_sent": 10 ** (9 * rng.random(n)),
        "skipped_client_rounds": rng.integers(0, 5, n),
    }
    costs |= {name: rng.random(n) for name in FINAL_MEASURES}
    classes = tables.classes
    classes = classes.assign(accuracy=rng.random(len(classes)))
    return replace(tables, cycles=cycles.assign(aulc=aulc, **costs), classes=classes)


@pytest.fixture(scope="module")
def comparison(tables):
    return compare(tables, alpha=LEVELS[0])


@pytest.fixture(scope="module", params=LEVELS)
def report(request, tables, tmp_path_factory):
    """The bodies of the page's tables, and functions that read a file next to it and say if a p-value is shown."""
    folder = tmp_path_factory.mktemp("report")
    page = write_report(tables, folder, alpha=request.param)[0].read_text(encoding="utf-8")

    def read(name, *index):
        table = pd.read_csv(folder / f"{name}.csv")
        return table.set_index(list(index)) if index else table

    def shown(p):
        return p <= request.param * (1 + 1e-5)  # the files have six digits

    return Bodies(page).rows, read, shown


def test_the_ranking_on_the_page_is_that_of_its_files(report):
    bodies, read, shown = report
    summary, tests = read("ranking", "strategy"), read("against_baseline", "strategy")
    labels = read("labels_to_reach")
    labels = labels[labels["target"] == REFERENCE].set_index("strategy")
    assert sorted(summary["aulc"], reverse=True) == summary["aulc"].tolist()
    assert set(tests["p_holm"].map(shown)) == {True, False}
    assert LEVELS[1] == pytest.approx(tests["p_holm"].min(), rel=1e-5)
    for place, (row, (name, line)) in enumerate(zip(bodies["ranking"], summary.iterrows(), strict=True), 1):
        number, strategy, aulc, accuracy, gap, seeds, p, share, rank, runs = row
        assert number["text"] == str(place)
        assert strategy["text"].split()[-1] == name
        assert numbers(aulc["text"]) == near(100 * line["aulc"], 100 * line["aulc_std"])
        assert numbers(accuracy["text"]) == near(100 * line["final_accuracy"], 100 * line["final_accuracy_std"])
        assert numbers(rank["text"]) == near(line["mean_rank"], places=2)
        assert numbers(runs["text"]) == [line["n"], *([line["failed"]] if line["failed"] else [])]
        if name == "random-kcfu":
            assert [cell["text"].strip() for cell in (gap, seeds, p, share)] == ["baseline", "", "", ""]
            continue
        test = tests.loc[name]
        assert numbers(gap["text"]) == near(*(100 * test[column] for column in ("difference", "low", "high")))
        assert numbers(seeds["text"]) == [test["wins"], test["n"]]
        assert numbers(p["text"]) == near(test["p_holm"], places=3 if test["p_holm"] < 0.1 else 2)
        assert ("yes" in p["marks"]) == shown(test["p_holm"])
        assert numbers(share["text"])[0] == pytest.approx(100 * labels["share"][name], abs=0.501)


def test_the_win_matrix_on_the_page_is_that_of_its_files(report):
    bodies, read, shown = report
    wins, pairs = read("win_matrix", "strategy"), read("pairs", "strategy", "against")
    assert LEVELS[0] == pytest.approx(pairs["p_holm"].min(), rel=1e-5)
    assert pairs["ties"].any()
    seen = 0
    for row, name in zip(bodies["pairs"], wins.index, strict=True):
        head, *cells = row
        assert head["text"].split()[-1] == name
        for cell, against in zip(cells, wins.columns, strict=True):
            if against == name:
                assert (cell["text"], cell["marks"]) == ("", ["self"])
                continue
            pair = pairs.loc[(name, against)]
            share = (pair["wins"] + pair["ties"] / 2) / pair["n"]
            assert wins.loc[name, against] == pytest.approx(share, rel=1e-5)
            assert numbers(cell["text"]) == near(100 * share, places=0)
            assert ("•" in cell["text"]) == ("yes" in cell["marks"]) == shown(pair["p_holm"])
            assert ("less" in cell["marks"]) == (share < 0.5)
            assert cell["title"].startswith(f"{name} against {against}: ")
            difference, won, n, p = numbers(cell["title"].partition(": ")[2])
            assert [difference] == near(100 * pair["difference"])
            assert (won, n) == (pair["wins"], pair["n"])
            assert [p] == near(pair["p_holm"], places=3 if pair["p_holm"] < 0.1 else 2)
            seen += 1
    assert seen == len(pairs) == 12


def test_the_clients_on_the_page_are_those_of_their_file(report):
    bodies, read, _ = report
    runs = read("client_accuracy").groupby(["strategy", "seed"])["accuracy"]
    means = {name: getattr(runs, name)().groupby("strategy").mean() for name in ("min", "median", "max")}
    names = read("ranking")["strategy"]
    for row, name in zip(bodies["clients"], names, strict=True):
        head, *cells = row
        assert head["text"].split()[-1] == name
        worst, median, best = (100 * means[key][name] for key in ("min", "median", "max"))
        assert best - worst > 1
        assert [numbers(cell["text"])[0] for cell in cells] == near(worst, median, best, best - worst)


def test_auroc_and_calibration_on_the_page_are_those_of_their_file(report, tables):
    bodies, read, _ = report
    last = tables.cycles[tables.cycles["cycle"] == 2]
    means = last.groupby("strategy")[list(FINAL_MEASURES)].mean()
    table = read("final_measures", "strategy")
    pd.testing.assert_frame_equal(table, means.loc[table.index], rtol=1e-5)
    for row, (name, line) in zip(bodies["measures"], table.iterrows(), strict=True):
        head, sensitivity, specificity, auroc, error = row
        assert head["text"].split()[-1] == name
        assert numbers(auroc["text"]) == near(line["auroc_macro"], places=3)
        for cell, key in (
            (sensitivity, FINAL_MEASURES[0]),
            (specificity, FINAL_MEASURES[1]),
            (error, "calibration_error"),
        ):
            assert numbers(cell["text"]) == near(100 * line[key]), key


def test_the_costs_on_the_page_are_those_of_their_file(report, tables):
    bodies, read, _ = report
    costs = read("costs", "strategy")
    runs = tables.cycles.groupby(["strategy", "seed"])[list(costs.columns)].sum()
    pd.testing.assert_frame_equal(costs, runs.groupby("strategy").mean().loc[costs.index], rtol=1e-5)
    units = {"s": 1, "min": 60, "h": 3600, "B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
    for row, (name, line) in zip(bodies["costs"], costs.iterrows(), strict=True):
        head, *cells, skipped = row
        assert head["text"].split()[-1] == name
        found = [float(cell["text"].split()[0]) * units[cell["text"].split()[1]] for cell in cells]
        columns = ["train_seconds", "query_seconds", "evaluate_seconds", "bytes_sent"]
        assert found == pytest.approx(line[columns].tolist(), rel=0.05)
        assert numbers(skipped["text"]) == near(line["skipped_client_rounds"], places=2)


def test_the_intervals_of_the_means_are_students(tables):
    found = compare(tables, alpha=0.05)
    mean, half = found.scores.mean(), 2.306004 * found.scores.std() / math.sqrt(SEEDS)  # R: qt(0.975, 8)
    assert (half > 0.01).all()
    np.testing.assert_allclose(found.summary["aulc"], mean)
    np.testing.assert_allclose(found.summary["aulc_low"], mean - half, rtol=1e-6)
    np.testing.assert_allclose(found.summary["aulc_high"], mean + half, rtol=1e-6)


@pytest.mark.parametrize(("draw", "table"), [(learning_curves_figure, "curves"), (gains_figure, "gains")])
def test_curves_are_means_between_the_ends_of_their_bands(comparison, draw, table):
    appearance = looks(comparison)
    (axes, *_) = draw(comparison, appearance).axes
    curves = dict(iter(getattr(comparison, table).groupby("strategy")))
    assert len(curves) == 4 - (table == "gains")
    lines = {line.get_color(): line for line in axes.lines if len(line.get_xdata()) == 3}
    bands = {tuple(band.get_facecolor()[0][:3]): band for band in axes.collections}
    assert len(lines) == len(bands) == len(curves)
    for name, curve in curves.items():
        colour = appearance[name].colour
        np.testing.assert_allclose(lines[colour].get_xydata(), curve[["labels", "mean"]])
        red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
        corners = pd.DataFrame(bands[red, green, blue].get_paths()[0].vertices, columns=["labels", "value"])
        ends = corners.groupby("labels")["value"].agg(["min", "max"])
        np.testing.assert_allclose(ends.reset_index(), curve[["labels", "low", "high"]])


def test_the_figure_of_the_scores_shows_seeds_means_and_intervals(comparison):
    summary = comparison.summary
    (axes,) = scores_figure(comparison, looks(comparison)).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == comparison.strategies
    for row, name in enumerate(comparison.strategies):
        low, high, mean = summary.loc[name, ["aulc_low", "aulc_high", "aulc"]]
        np.testing.assert_allclose(axes.lines[row].get_xydata(), [[low, row], [high, row]])
        seeds, middle = axes.collections[2 * row : 2 * row + 2]
        np.testing.assert_allclose(seeds.get_offsets()[:, 0], comparison.scores[name])
        np.testing.assert_allclose(middle.get_offsets(), [[mean, row]])


def test_the_label_below_the_scores_is_whole_beside_long_names(make_tables):
    queries = ("random", "a_composition_of_many_parts_with_a_long_name")
    long = compare(make_tables(queries=queries), baseline="random")
    figure = scores_figure(long, looks(long))
    figure.canvas.draw()
    label = figure.axes[0].xaxis.label.get_window_extent()
    assert 0 <= label.x0 < label.x1 <= figure.bbox.x1


def test_the_bar_of_the_critical_difference_is_as_long_as_that(comparison):
    ranking = comparison.ranking
    (axes,) = critical_difference_figure(comparison, looks(comparison)).axes
    (bar,) = axes.lines
    assert 1 < ranking.critical_difference < 3
    np.testing.assert_allclose(bar.get_xdata(), [1, 1 + ranking.critical_difference])
    assert [text.get_text() for text in axes.texts] == [f"critical difference {ranking.critical_difference:.2f}"]
    names, ranks = list(ranking.mean_ranks), list(ranking.mean_ranks.values())
    _, *rest = axes.collections  # the first are the lines from rank 1
    np.testing.assert_allclose(
        [mark.get_offsets()[0] for mark in rest[: len(names)]], list(zip(ranks, range(4), strict=True))
    )
    joins = [tuple(join.get_segments()[0][:, 1]) for join in rest[len(names) :]]
    assert joins == [(names.index(group[0]) - 0.3, names.index(group[-1]) + 0.3) for group in ranking.groups] != []
