"""The pipelines data and partition, on a catalog in memory."""

import shutil

import numpy as np
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.data import read_store
from kafal_pipeline.pipelines import data, partition
from kafal_pipeline.pipelines.fal.nodes import queried_table
from kafal_pipeline.query.base import Selection


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


def test_sites_keep_their_names_and_queried_images_their_files(run, tmp_path, image_folder, caplog):
    (image_folder / "train_clients.csv").write_text(
        "file,client\n"
        + "".join(f"{name}/{number}.png,{'BA'[number % 2]}\n" for name in ("cat", "dog") for number in range(3))
    )
    section = {"name": "mine", "path": str(image_folder)}
    splits, table = run(dataset=section, partition={"method": "natural", "clients": 2})
    assert splits == [[1, 4], [0, 2, 3, 5]]
    assert table[["client", "client_name"]].drop_duplicates().to_numpy().tolist() == [[0, "A"], [1, "B"]]
    assert "never tested" not in caplog.text
    images = read_store(tmp_path / "data/02_intermediate/mine/images")
    chosen = {client: Selection(np.array([sample]), np.array([0.5]), {}) for client, sample in ((0, 4), (1, 2))}
    queried = queried_table(chosen, images, images.clients_of("natural"))
    assert queried.columns.tolist() == ["client", "client_name", "sample", "score", "rank", "file"]
    assert queried["client_name"].tolist() == ["A", "B"]
    assert queried["file"].tolist() == ["train/dog/1.png", "train/cat/2.png"]
    assert images.clients_of("iid") is None
    shutil.rmtree(image_folder / "test/dog")
    run(dataset=section, partition={"method": "iid", "clients": 2})
    assert "mine: class 'dog': training images but no test image, so it is never tested" in caplog.text


def test_who_annotates_must_suit_the_labels(run, image_folder, tmp_path):
    section = {"name": "mine", "path": str(image_folder)}
    with pytest.raises(UserError, match="annotation.source: found 'people', but all 10 images of mine"):
        run(dataset=section, annotation={"source": "people"})
    shutil.copytree(image_folder / "train/cat", image_folder / "unlabelled")
    with pytest.raises(UserError, match="annotation.source: found 'oracle'.*3 of 13 images of mine have none"):
        run(dataset=section, partition={"method": "iid", "clients": 2})
    with pytest.raises(UserError, match="partition.method: found 'dirichlet'"):
        run(dataset=section, annotation={"source": "people"})
    splits, table = run(dataset=section, partition={"method": "iid", "clients": 2}, annotation={"source": "people"})
    assert sorted(splits[0] + splits[1]) == list(range(9))
    assert table["count"].sum() == 6


def test_names_and_tags():
    nodes = {node.name: node.tags for node in (data.create_pipeline() + partition.create_pipeline()).nodes}
    assert nodes == {"data.load": {"data"}, "partition.split": {"partition"}}
