import numpy as np
import pandas as pd
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from kedro_datasets.json import JSONDataset
from kedro_datasets.matplotlib import MatplotlibDataset
from kedro_datasets.pandas import CSVDataset

from kafal_pipeline.data import ImageData
from kafal_pipeline.evaluation.curve import NO_COUNTS, OF_PEOPLE
from kafal_pipeline.pipelines.report import create_pipeline


@pytest.fixture
def images():
    pixels, labels = np.zeros((4, 2, 2, 1), dtype=np.uint8), np.array([0, 0, 1, 1])
    return ImageData("toy", pixels, labels, pixels, labels, ("cat", "dog"), np.zeros(1), np.ones(1))


@pytest.fixture
def split_table():
    return pd.DataFrame({"client": [0, 0, 1, 1], "class": [0, 1, 0, 1], "count": [2, 0, 0, 2]})


def metrics(cycle):
    return {
        "cycle": cycle,
        "labels": 2 + cycle,
        "labelled_fraction": (2 + cycle) / 4,
        "accuracy": 0.5 + 0.25 * cycle,
        "balanced_accuracy": 0.5,
        "macro_f1": 0.5,
        "per_class_accuracy": [0.5, None],
        "classes": ["cat", "dog"],
        "queried_histogram": [1, 1],
        "queried_entropy": 0.69 if cycle else None,
        "train_seconds": 1.0,
        "query_seconds": 1.0 if cycle else None,
        "evaluate_seconds": 1.0,
        "bytes_sent": 8,
    }


def test_nodes_and_datasets_have_the_agreed_names():
    pipeline = create_pipeline(cycles=12)
    assert {node.name for node in pipeline.nodes} == {"report.summarise", "report.draw"}
    cycles = {f"cycle_{cycle:02d}.metrics" for cycle in range(12)}
    assert pipeline.inputs() == {"parameters", "split_table", "images", "cycle_11.pool", *cycles}
    assert pipeline.all_outputs() == {*TABLES, *FIGURES}


SOURCES = ("oracle", "people")
PEOPLE = {name: None if name in NO_COUNTS else 4 for name in OF_PEOPLE}  # none of them timed
TABLES = ("learning_curve", "summary", "class_table", "client_table")
FIGURES = (
    *("learning_curve_figure", "client_classes_figure", "confusion_figure"),
    *("queried_classes_figure", "queried_by_client_figure"),
)


@pytest.mark.parametrize(("cycles", "people"), [(1, False), (3, False), (3, True)])
def test_a_run_is_summed_up_and_drawn(cycles, people, images, split_table, tmp_path):
    parameters = {"cycles": cycles, "query": "entropy", "seed": 7, "annotation": {"source": SOURCES[people]}}
    figures = [*FIGURES, "labelling_cost_figure"] if people else FIGURES
    inputs = {"parameters": parameters, "images": images, "split_table": split_table}
    pool = {"client": [0, 0, 1, 1], "label": [0, 0, 1, 1], "labelled_in_cycle": [0, cycles - 1, 0, -1]}
    inputs[f"cycle_{cycles - 1:02d}.pool"] = pd.DataFrame(pool)
    inputs |= {f"cycle_{cycle:02d}.metrics": metrics(cycle) | (PEOPLE if people else {}) for cycle in range(cycles)}
    outputs = {"summary": JSONDataset(filepath=(tmp_path / "summary.json").as_posix())}
    outputs |= {
        name: CSVDataset(filepath=(tmp_path / f"{name}.csv").as_posix(), save_args={"index": False})
        for name in ("learning_curve", "class_table", "client_table")
    }
    outputs |= {name: MatplotlibDataset(filepath=(tmp_path / f"{name}.png").as_posix()) for name in figures}
    catalog = DataCatalog({name: MemoryDataset(value) for name, value in inputs.items()} | outputs)

    SequentialRunner().run(create_pipeline(cycles, people=people), catalog)

    assert catalog.load("learning_curve")["cycle"].tolist() == list(range(cycles))
    summary = catalog.load("summary")
    assert (summary["query"], summary["seed"], summary["labels"]) == ("entropy", 7, cycles + 1)
    assert catalog.load("class_table")["sensitivity"].tolist() == pytest.approx([0.5, np.nan], nan_ok=True)
    assert len(catalog.load("client_table")) == 0
    assert ("annotation_asked" in summary) == people
    drawn = list(tmp_path.glob("*_figure.png"))
    assert len(drawn) == len(figures)
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in drawn)
