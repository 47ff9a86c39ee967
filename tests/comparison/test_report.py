import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from kafal_pipeline.common import locks
from kafal_pipeline.common.files import write_text
from kafal_pipeline.comparison import compare, load_runs, write_report
from kafal_pipeline.comparison.report import write as report_module
from kafal_pipeline.comparison.report.appearance import HIGHLIGHTED, VARIABLES, looks
from kafal_pipeline.comparison.report.write import FIGURES, PAGE, draw

HOSTILE = ('</style><script>alert("cat")</script>', "R&D $x$", "fill: #1b1f24")
VOID = {"meta", "link", "br", "img", "input", "hr", "wbr"}


class Page(HTMLParser):
    """Collects what tests ask for, and checks that every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links, self.text, self._open = [], [], [], [], []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id"]
        self.links += [value for key, value in attrs if key in {"href", "src"}]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def report(write_run_below, tmp_path_factory):
    """A report of names made to break pages, with a failed run and clients."""
    root = tmp_path_factory.mktemp("report")
    split = root / "split_table.csv"
    split.write_text("client,class,count\n0,0,5\n0,1,2\n1,1,4\n1,2,4\n")
    folders = [
        write_run_below(root, query, seed=seed, gain=gain, classes=HOSTILE)
        for query, gain in (("random", 0.0), ("ksas", 0.02))
        for seed in range(6)
    ]
    tables = load_runs(
        [*folders, folders[-1].with_name("seed_9")],
        splits=dict.fromkeys(range(6), split),
        failures={folders[-1].with_name("seed_9"): "<b>out</b> of memory & time"},
    )
    folder = root / "comparison"
    files = write_report(tables, folder, title="<i>toy</i> & co", targets=[0.6, 0.99], versions={"torch": "<9>"})
    return folder, files


def test_the_report_is_whole_safe_and_needs_no_network(report):
    folder, files = report
    assert files[0] == folder / PAGE
    assert all(file.stat().st_size for file in files)
    assert {file.name for file in folder.iterdir()} == {file.name for file in files}
    text = files[0].read_text(encoding="utf-8")
    page = Page(text)
    names = [tag for tag, _ in page.tags]
    assert "script" not in names
    assert "i" not in names
    assert names.count("style") == 1
    assert "url(" not in re.sub(r"url\(#", "", text)
    assert "@import" not in text
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        assert link[1:] in page.ids if link.startswith("#") else (folder / link).is_file(), link
    content = " ".join(page.text)
    for shown in ("<i>toy</i> & co", "<b>out</b> of memory & time", "<9>", *HOSTILE):
        assert shown in content


def test_the_report_can_be_read_without_seeing_it(report):
    page = Page(report[1][0].read_text(encoding="utf-8"))
    figures = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(figures) >= 4
    assert all(attrs["role"] == "img" and len(attrs["aria-label"]) > 20 for attrs in figures)
    assert all("scope" in attrs for tag, attrs in page.tags if tag == "th")
    assert any(tag == "html" and attrs["lang"] == "en" for tag, attrs in page.tags)
    assert any(attrs.get("name") == "viewport" for tag, attrs in page.tags if tag == "meta")


def test_figures_follow_the_dark_screen(report):
    text = report[1][0].read_text(encoding="utf-8")
    figures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    styles = " ".join(re.findall(r'style="([^"]*)"', " ".join(figures)))
    assert "var(--ink)" in styles
    assert "var(--s0)" in styles
    left = set(re.findall(r"#[0-9a-f]{6}", styles))
    assert not left & set(VARIABLES), left
    assert "prefers-color-scheme: dark" in text


def test_tables_and_scalars_are_written_beside_it(report):
    folder, _ = report
    scalars = json.loads((folder / "comparison.json").read_text())
    assert (scalars["winner"], scalars["verdict"], scalars["seeds"]) == ("ksas-kcfu", "shown", 6)
    assert set(scalars["aulc"]) == {"ksas-kcfu", "random-kcfu"}
    ranking = pd.read_csv(folder / "ranking.csv", index_col="strategy")
    assert ranking.loc["ksas-kcfu", "aulc"] == pytest.approx(scalars["aulc"]["ksas-kcfu"], abs=1e-5)
    assert ranking.loc["ksas-kcfu", "failed"] == 1
    labels = pd.read_csv(folder / "labels_to_reach.csv")
    assert labels[labels["target"] == "0.99"]["reached"].tolist() == [0, 0]
    assert set(HOSTILE) < set(pd.read_csv(folder / "queried_classes.csv").columns)


def test_the_same_runs_give_the_same_report(make_tables, tmp_path):
    tables = make_tables(queries=("random", "ksas"), seeds=2)
    one, two = write_report(tables, tmp_path / "a"), write_report(tables, tmp_path / "b")
    for first, second in zip(one, two, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name


def test_a_smaller_report_leaves_no_figure_of_a_larger_one(make_tables, write_run, tmp_path):
    folder = tmp_path / "report"
    tables = make_tables(queries=("random", "ksas"))
    before = set(write_report(tables, folder))
    assert {path.stem for path in before if path.suffix == ".png"} == set(FIGURES) == set(draw(compare(tables), "ab"))
    (folder / "own.png").write_bytes(b"")
    after = set(write_report(load_runs([write_run("badge")]), folder, baseline="badge"))
    assert {path.stem for path in before - after} == {"gains", "win_matrix", "critical_difference"}
    assert set(folder.iterdir()) == after | {folder / "own.png"}


def test_reports_are_written_into_one_folder_one_after_the_other(make_tables, tmp_path, monkeypatch):
    folder = tmp_path / "reports/report"
    free = []

    def write(path, text):
        lock = locks.take(folder.with_name(".report.lock"))
        free.append(lock is not None)
        write_text(path, text)

    monkeypatch.setattr(report_module, "write_text", write)
    write_report(make_tables(queries=("random", "ksas"), seeds=2), folder)
    assert free
    assert not any(free)
    assert list(folder.parent.iterdir()) == [folder]


def test_many_strategies_stay_apart(make_tables, tmp_path):
    queries = ["random", *(f"q{place:02d}" for place in range(8))]
    tables = make_tables(queries=queries, seeds=2, step=0.003)
    appearance = looks(compare(tables))
    coloured = [look for name, look in appearance.items() if look.highlighted and name != "random-kcfu"]
    assert len({look.colour for look in coloured}) == len({look.marker for look in coloured}) == HIGHLIGHTED
    page = Page(write_report(tables, tmp_path / "report")[0].read_text(encoding="utf-8"))
    assert sum("Learning curve of" in attrs.get("aria-label", "") for _, attrs in page.tags) == 9


@pytest.mark.parametrize(
    "options",
    [{"queries": ("ksas",)}, {"queries": ("ksas",), "cycles": 1, "finished": 1}, {"queries": ("random", "ksas")}],
)
def test_one_seed_strategy_or_cycle_has_a_report_without_made_up_numbers(make_tables, tmp_path, options):
    page = Page(write_report(make_tables(seeds=1, **options), tmp_path / "report")[0].read_text(encoding="utf-8"))
    assert not re.search(r"\b(nan|inf)\b", " ".join(page.text).lower())
    assert not [attrs for _, attrs in page.tags if "nan" in attrs.get("points", "")]


def test_the_page_says_how_often_clients_were_skipped(write_run, tmp_path):
    tables = load_runs([write_run("random"), write_run("ksas", skipped=4)])
    write_report(tables, tmp_path / "comparison", versions={})
    page = (tmp_path / "comparison" / PAGE).read_text()
    costs = page.partition('<section id="costs">')[2].partition("</tbody>")[0]
    rows = {re.search(r"(ksas|random)-kcfu", row)[0]: row for row in costs.split("<tr>")[2:]}
    cells = {name: re.findall(r"<td>(.*?)</td>", row)[-1] for name, row in rows.items()}
    assert cells == {"ksas-kcfu": "12", "random-kcfu": "0"}
    assert "under ksas-kcfu" in page
    assert pd.read_csv(tmp_path / "comparison/costs.csv")["skipped_client_rounds"].sum() == 12


def test_runs_of_an_earlier_version_leave_auroc_and_calibration_blank(write_run, tmp_path):
    tables = load_runs([write_run("random"), write_run("ksas")])
    assert 'id="measures"' not in write_report(tables, tmp_path / "old", versions={})[0].read_text()
    new = (tables.cycles["strategy"] == "ksas-kcfu") & (tables.cycles["cycle"] == 2)
    tables = replace(tables, cycles=tables.cycles.assign(auroc_macro=np.where(new, 0.875, np.nan)))
    page = write_report(tables, tmp_path / "new", versions={})[0].read_text()
    table = page.partition('<section id="measures">')[2].partition("</tbody>")[0]
    rows = {re.search(r"(ksas|random)-kcfu", row)[0]: row for row in table.split("<tr>")[2:]}
    cells = {name: re.findall(r"<td>(.*?)</td>", row)[1:] for name, row in rows.items()}
    assert cells == {"ksas-kcfu": ["–", "0.875", "–"], "random-kcfu": ["–", "–", "–"]}


def test_classes_of_the_names_of_other_columns_keep_their_own(make_tables, tmp_path):
    classes = ("strategy", "balance", "balance_")
    write_report(make_tables(queries=("ksas",), seeds=1, classes=classes), tmp_path / "report")
    for name, others in (("queried_classes", ["balance__"]), ("class_accuracy", [])):
        header, row = (tmp_path / f"report/{name}.csv").read_text().splitlines()
        assert header.split(",") == ["strategy_", *classes, *others]
        assert row.startswith("ksas-kcfu,")
    shares = [63 / 143, 40 / 143, 40 / 143]  # 31 and 32 of the first, 20 and 20 of the others
    queried = pd.read_csv(tmp_path / "report/queried_classes.csv").iloc[0, 1:].tolist()
    assert queried == pytest.approx([*shares, -sum(share * math.log(share, 3) for share in shares)], rel=1e-5)


def test_the_page_counts_the_tests_that_were_made(write_run, tmp_path):
    """Of three strategies with the same update, one shares no seed with the others."""
    folders = [write_run(query, seed=seed) for query in ("random", "ksas", "badge") for seed in range(2)]
    folders += [write_run("entropy", seed=2), *(tmp_path / f"toy/entropy-kcfu/seed_{seed}" for seed in range(2))]
    page = write_report(load_runs(folders), tmp_path / "report")[0].read_text(encoding="utf-8")
    assert "<small>Holm, 2 tests</small>" in page
    assert "correction for all 6 tests." in page
    assert "adjusted for 2 tests" in page


def test_the_page_says_at_most_where_the_initial_pool_reaches_an_accuracy(make_tables, tmp_path):
    page = write_report(make_tables(seeds=1), tmp_path / "report", targets=[0.4, 0.6])[0].read_text(encoding="utf-8")
    rows = page.partition('<section id="labels">')[2].partition("<tbody>")[2].partition("</tbody>")[0]
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in rows.split("</tr>")[:-1]]
    assert [row[0] for row in cells] == ["≤&nbsp;100"] * 3
    assert all(re.fullmatch(r"1\d\d", row[1]) for row in cells)


def test_the_baselines_accuracy_is_at_most_the_initial_pool_too(make_tables, tmp_path):
    tables = make_tables(queries=("random", "ksas"), seeds=1, cycles=1, finished=1)
    page = write_report(tables, tmp_path / "report")[0].read_text(encoding="utf-8")
    assert "<td>≤&nbsp;100\N{NO-BREAK SPACE}%</td>" in page
