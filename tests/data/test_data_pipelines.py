"""The pipelines data and partition, on a catalog in memory."""

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.data import read_store
from kafal_pipeline.pipelines import data, partition


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run both pipelines in an empty project folder; return the splits and their table."""
    monkeypatch.chdir(tmp_path)

    def run(**parameters):
        names = ("splits", "split_table")
        catalog = DataCatalog({"parameters": MemoryDataset(parameters)} | {name: MemoryDataset() for name in names})
        SequentialRunner().run(data.create_pipeline() + partition.create_pipeline(), catalog)
        return [catalog.load(name) for name in names]

    return run


def test_default_data(run, tmp_path):
    splits, table = run(partition={"clients": 4, "min_size": 40}, seed=3)
    images = read_store(tmp_path / "data/02_intermediate/digits/images")
    assert images.num_classes == 10
    assert sorted(index for items in splits for index in items) == list(range(len(images.train_labels)))
    assert type(splits[0][0]) is int
    assert min(map(len, splits)) >= 40
    assert len(table) == 4 * 10
    assert table["count"].sum() == len(images.train_labels)


def test_label_names_the_folder(run, tmp_path):
    run(dataset={"label": "other"})
    assert (tmp_path / "data/02_intermediate/other/images/meta.json").is_file()


def test_a_users_mistake_passes_through(run):
    with pytest.raises(UserError, match="no known data set"):
        run(dataset={"name": "nothing"})


def test_names_and_tags():
    nodes = {node.name: node.tags for node in (data.create_pipeline() + partition.create_pipeline()).nodes}
    assert nodes == {"data.load": {"data"}, "partition.split": {"partition"}}
