import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from kafal_pipeline.evaluation import (
    client_classes_figure,
    confusion_figure,
    labelling_cost_figure,
    learning_curve,
    learning_curve_figure,
    queried_by_client_figure,
    queried_classes_figure,
)


def pixels(figure):
    """Draw the figure; constrained layout that does not fit warns, which is an error here."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba()).copy()


def split_table(counts):
    counts = np.asarray(counts)
    rows = [(client, index, counts[client, index]) for client, index in np.ndindex(counts.shape)]
    return pd.DataFrame(rows, columns=["client", "class", "count"])


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


pytestmark = pytest.mark.filterwarnings("error::UserWarning")


@pytest.mark.parametrize("cycles", [1, 2, 30])
def test_learning_curve_is_drawn_at_150_dpi(make_metrics, cycles):
    figure = learning_curve_figure(learning_curve(make_metrics(cycles=cycles)), "digits, ksas with kcfu, seed 0")
    assert pixels(figure).shape[:2] == (4.6 * 150, 7.5 * 150)
    lines = figure.axes[0].lines
    assert [len(line.get_xdata()) for line in lines] == [cycles, cycles]
    assert "AULC" in figure.axes[0].get_title(loc="left")


def test_lines_that_are_one_are_both_seen(make_metrics):
    curve = learning_curve(make_metrics(cycles=6))
    figure = learning_curve_figure(curve.assign(balanced_accuracy=curve["accuracy"]), "title")
    for text in figure.axes[0].texts:
        text.set_visible(False)
    figure.axes[0].get_legend().set_visible(False)
    seen = pixels(figure)[..., :3].astype(int)
    blue, red = seen[..., 2] - seen[..., 0], seen[..., 0] - seen[..., 2]
    shown = [(blue > 40).any(axis=0).sum(), (red > 100).any(axis=0).sum()]  # columns of pixels with either colour
    assert min(shown) > 300


@pytest.mark.parametrize("accuracies", [(0.7, 0.7), (0.7, 0.701), (0.701, 0.7), (1.0, 1.0), (0.0, 0.0), (0.9, 0.3)])
def test_end_values_never_touch(make_metrics, accuracies):
    metrics = make_metrics(cycles=4)
    metrics[-1] |= dict(zip(("accuracy", "balanced_accuracy"), accuracies, strict=True))
    figure = learning_curve_figure(learning_curve(metrics), "title")
    pixels(figure)
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert sorted(texts(figure)) == sorted(f"{value:.1%}" for value in accuracies)
    assert not boxes[0].overlaps(boxes[1])


def test_a_long_title_stays_inside(make_metrics):
    figure = learning_curve_figure(learning_curve(make_metrics()), "a_long_label " * 12)
    pixels(figure)
    assert figure.axes[0]._left_title.get_window_extent().x1 <= figure.bbox.x1  # noqa: SLF001


@pytest.mark.parametrize(("clients", "classes"), [(1, 2), (5, 10), (10, 10), (30, 20), (31, 10), (100, 10), (10, 100)])
def test_client_classes_fit(clients, classes):
    counts = np.arange(clients * classes).reshape(clients, classes)
    figure = client_classes_figure(split_table(counts), [f"class {index}" for index in range(classes)])
    pixels(figure)
    small = clients <= 30 and classes <= 20
    assert len(texts(figure)) == (counts.size - 1 if small else 0)  # an empty cell stays empty
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), counts)


def test_client_classes_name_clients_and_classes_that_nobody_holds():
    table = split_table([[1200, 0, 0], [30, 4, 0]])
    figure = client_classes_figure(
        table[table["count"] > 0], ["cat", "$dog$", "a horse of a different colour altogether"]
    )
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["client 0 (1,200)", "client 1 (34)"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "$dog$", "a horse of a different …"]
    assert "1,234 training samples" in axes.get_title(loc="left")
    pixels(figure)


def test_clients_are_shown_with_the_names_that_the_data_have():
    figure = client_classes_figure(
        split_table([[1, 0], [2, 4]]), ["cat", "dog"], ["$Köln$", "Klinik am Ende der Straße"]
    )
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["client 0, $Köln$ (1)", "client 1, Klinik am Ende der Stra… (6)"]
    pixels(figure)


@pytest.mark.parametrize(("cycles", "classes"), [(1, 2), (6, 10), (6, 11), (21, 3), (60, 10)])
def test_queried_classes_fit(cycles, classes):
    rng = np.random.default_rng(0)
    histograms = {cycle: rng.integers(0, 50, classes).tolist() for cycle in range(cycles)}
    pixels(queried_classes_figure(histograms, [f"class {index}" for index in range(classes)]))


def test_bars_add_up_to_one_and_carry_the_number_of_labels():
    figure = queried_classes_figure({1: [1, 1], 0: [30, 970], 2: [0, 0]}, ["_hidden", "dog"])
    axes = figure.axes[0]
    tops = [bar.get_y() + bar.get_height() for bar in axes.containers[-1]]
    assert tops == pytest.approx([1, 1, 0])
    assert texts(figure) == ["1,000", "2", "0"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["initial pool", "cycle 1", "cycle 2"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["dog", "_hidden"]


def test_what_was_queried_of_each_client_is_drawn_without_the_initial_pool():
    pool = pd.DataFrame(
        {
            "client": [0, 0, 0, 0, 1, 2, 2],
            "label": [0, 1, 1, 0, 1, 0, 0],
            "labelled_in_cycle": [1, 1, 2, 0, -1, 2, 0],
        }
    )
    figure = queried_by_client_figure(pool, ["cat", "dog"])
    axes = figure.axes[0]
    assert texts(figure) == ["3", "0", "1"]
    assert [bar.get_height() for bar in axes.containers[0]] == pytest.approx([1 / 3, 0, 1])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["client 0", "client 1", "client 2"]
    named = queried_by_client_figure(pool, ["cat", "dog"], ["Aachen", "A" * 30, "A" * 31])  # two are cut to one name
    labels = [label.get_text() for label in named.axes[0].get_xticklabels()]
    assert labels == ["Aachen", "A" * 23 + "…", "A" * 23 + "…"]
    assert [bar.get_height() for bar in named.axes[0].containers[0]] == pytest.approx([1 / 3, 0, 1])
    pixels(named)


def test_confusion_is_shared_out_by_true_class():
    figure = confusion_figure([[3, 1, 0], [0, 0, 0], [0, 1000, 1000]], ["cat", "dog", "$horse$"])
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), [[75, 25, 0], [0, 0, 0], [0, 50, 50]])
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["cat (4)", "dog (0)", "$horse$ (2,000)"]
    pixels(figure)


@pytest.mark.parametrize("classes", [2, 20, 21, 100])
def test_confusion_of_any_number_of_classes_fits(classes):
    pixels(confusion_figure(np.eye(classes, dtype=int).tolist(), [f"class {index}" for index in range(classes)]))


def test_results_without_a_confusion_matrix_say_so():
    assert "No confusion matrix" in confusion_figure([], ["cat", "dog"]).axes[0].get_title(loc="left")


def test_figures_differ_when_the_data_differ_and_are_equal_when_not(make_metrics):
    def draw(change):
        curve = learning_curve(make_metrics()).assign(accuracy=[0.2, 0.3, 0.4 + change])
        return [
            pixels(learning_curve_figure(curve, "title")),
            pixels(client_classes_figure(split_table([[5, 100 * change], [1, 2]]), ["cat", "dog"])),
            pixels(queried_classes_figure({0: [5, 100 * change]}, ["cat", "dog"])),
        ]

    for first, again, other in zip(draw(0.1), draw(0.1), draw(0.3), strict=True):
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)


def test_drawing_leaves_matplotlib_as_it_was(make_metrics):
    before = dict(mpl.rcParams)
    learning_curve_figure(learning_curve(make_metrics()), "title")
    assert dict(mpl.rcParams) == before


def test_importing_the_package_imports_nothing_heavy():
    heavy = {"matplotlib", "pandas", "torch", "sklearn", "scipy", "kedro", "mlflow"}
    script = f"import sys, kafal_pipeline.evaluation; print(sorted({heavy!r} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_accuracy_over_what_labels_cost(make_people_metrics):
    figure = labelling_cost_figure(learning_curve(make_people_metrics()), "digits, ksas with kcfu, seed 0")
    (line,) = figure.axes[0].lines
    assert line.get_xydata().tolist() == [[0.65, 0.5], [pytest.approx(0.68), 0.6], [pytest.approx(0.71), 0.7]]
    assert "2.2 s a label" in figure.axes[0].get_xlabel()
    pixels(figure)
    untimed = labelling_cost_figure(learning_curve(make_people_metrics(timed=False)), "x")
    assert "not known" in untimed.axes[0].get_title(loc="left")
    pixels(untimed)
