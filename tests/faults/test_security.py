"""Nothing that lies on disk can make the program run code: pickles planted under every name that it reads.

The names of results come from `conf/base/catalog.yml` and those of data sets from the sources, so that a new one is
covered without a change here.
"""

from __future__ import annotations

import ast
import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from kedro.config import OmegaConfigLoader
from kedro.io import DataCatalog
from kedro.io.core import DatasetError

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.comparison.runs import load_runs
from kafal_pipeline.config import resolve
from kafal_pipeline.data import ImageData, open_store, read_split, read_store
from kafal_pipeline.data.sources import NAMED, find_source
from kafal_pipeline.federation.between_rounds.store import Store
from kafal_pipeline.models.factory import build
from kafal_pipeline.models.pretrained import load_pretrained
from kafal_pipeline.runs import provenance, resume, saved_run
from kafal_pipeline.runs.layout import Layout
from kafal_pipeline.settings import CONFIG_LOADER_ARGS
from kafal_pipeline.tracking.journal import JOURNAL, read
from kafal_pipeline.tracking.progress import PROGRESS, Progress

ROOT = Path(__file__).parents[2]
REFUSED = (UserError, DatasetError)
CATALOG = yaml.safe_load((ROOT / "conf/base/catalog.yml").read_text(encoding="utf-8"))


class Weapon:
    """An object whose unpickling makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def in_npy(weapon: Weapon) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([weapon], dtype=object), allow_pickle=True)
    return file.getvalue()


def in_npz(weapon: Weapon) -> bytes:
    file = io.BytesIO()
    keys = ("train_images", "train_labels", "test_images", "test_labels", "train_clients", "test_clients", "classes")
    np.savez(file, **{key: np.array([weapon], dtype=object) for key in keys})
    return file.getvalue()


def in_torch(weapon: Weapon) -> bytes:
    file = io.BytesIO()
    torch.save({"weight": weapon}, file)
    return file.getvalue()


def in_torch_legacy(weapon: Weapon) -> bytes:
    file = io.BytesIO()
    torch.save({"weight": weapon}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


WRAPPINGS = {
    "pickle": pickle.dumps,
    "oldest pickle": lambda weapon: pickle.dumps(weapon, protocol=0),
    "npy": in_npy,
    "npz": in_npz,
    "torch": in_torch,
    "torch legacy": in_torch_legacy,
}


@pytest.fixture
def marker(tmp_path):
    """The file that no reader may make; the test fails afterwards if it is there."""
    path = tmp_path / "marker"
    yield path
    assert not path.exists(), "planted code was run"


@pytest.fixture(params=list(WRAPPINGS))
def planted(request, marker):
    """The bytes of a planted file."""
    return WRAPPINGS[request.param](Weapon(marker))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project, which is the working directory."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def plant(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def config(**values):
    return resolve({"tracking": "off", **values})


def test_the_weapon_works(tmp_path):
    for name, wrap in WRAPPINGS.items():
        marker = tmp_path / name
        content = io.BytesIO(wrap(Weapon(marker)))
        if "pickle" in name:
            pickle.load(content)
        elif "torch" in name:
            torch.load(content, weights_only=False)
        else:
            loaded = np.load(content, allow_pickle=True)
            _ = loaded if isinstance(loaded, np.ndarray) else loaded["train_images"]
        assert marker.exists(), name


@pytest.mark.parametrize("entry", sorted(name for name, entry in CATALOG.items() if "filepath" in entry))
def test_results(entry, planted, project, marker):
    """Whatever the catalog reads; its errors name the file."""
    loader = OmegaConfigLoader(str(ROOT / "conf"), **CONFIG_LOADER_ARGS)
    catalog = DataCatalog.from_config(loader["catalog"])
    dataset = catalog.get(entry.replace("{cycle}", "cycle_00"))
    path = Path(dataset._describe()["filepath"])
    if path.suffix:
        plant(project / path, planted)
    else:
        for name in ("client_00000.safetensors", "meta.json", "train_images.npy", "train_labels.npy"):
            plant(project / path / name, planted)
    try:
        loaded = dataset.load()
        if isinstance(loaded, Mapping):  # read when it is asked for
            _ = [loaded[key] for key in loaded]
    except REFUSED:
        return
    assert path.suffix == ".csv"  # the oldest pickles are text, and so make a strange table


@pytest.mark.parametrize("name", ["train_images", "train_labels", "test_images", "test_labels"])
def test_arrays_of_a_store(name, planted, project, marker):
    section = config().dataset
    folder = project / "data/02_intermediate/digits/images"
    before = open_store(section, project / "data/01_raw", folder)
    assert isinstance(before, ImageData)
    plant(folder / f"{name}.npy", planted)
    with pytest.raises(UserError, match="images"):
        read_store(folder)
    assert isinstance(open_store(section, project / "data/01_raw", folder), ImageData)  # made again


@pytest.mark.parametrize("name", sorted(set(NAMED) - {"digits"}))
def test_published_data_sets(name, planted, project, marker):
    """Two of them are published as pickles: these are opened only if their checksums are the published ones."""
    section = config(dataset={"name": name}).dataset
    for path in find_source(section, project / "raw").files:
        plant(path, planted)
    with pytest.raises(UserError, match=rf"dataset\.name.*{name}"):
        find_source(section, project / "raw").read()


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("emnist", "EMNIST")]
)
def test_what_old_versions_of_torchvision_left(name, folder, planted, project, marker):
    section = config(dataset={"name": name}).dataset
    source = find_source(section, project / "raw")
    end = f"_{section.emnist_split}" if name == "emnist" else ""
    old = [project / "raw" / folder / "processed" / f"{kind}{end}.pt" for kind in ("training", "test")]
    for path in (*source.files, *old):
        plant(path, planted)
    with pytest.raises(UserError, match=r"dataset\.name.*cache of an old torchvision"):
        source.read()
    for path in old:
        path.unlink()
    with pytest.raises(UserError, match=r"dataset\.name.*damaged or not the published ones"):
        source.read()


def test_data_of_ones_own(planted, project, marker):
    plant(project / "raw/mine.npz", planted)
    with pytest.raises(UserError, match=r"mine\.npz"):
        find_source(config(dataset={"name": "mine"}).dataset, project / "raw").read()


@pytest.mark.parametrize("name", ["train/cat/0.png", "train/dog/0.jpg", "train_clients.csv", "test_clients.csv"])
def test_a_folder_of_images(name, planted, project, marker):
    from PIL import Image

    for path in ("train/cat/0.png", "train/dog/0.jpg", "test/cat/0.png", "test/dog/0.png"):
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((6, 6), dtype=np.uint8)).save(project / path)
    plant(project / name, planted)
    # What is wrong with a table that is no text is said by the decoder.
    expected = UserError
    with pytest.raises(expected):
        find_source(config(dataset={"name": "mine", "path": str(project)}).dataset, project).read()


def test_a_picture_that_would_unpack_to_a_huge_one(project):
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    for path in ("train/cat/0.png", "train/dog/0.png", "test/cat/0.png", "test/dog/0.png"):
        plant(project / path, b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + b"\0" * 4)
    with pytest.raises(UserError, match=r"0\.png: is too large"):
        find_source(config(dataset={"name": "mine", "path": str(project)}).dataset, project).read()


def test_pretrained_weights(planted, project, marker):
    plant(project / "weights.safetensors", planted)
    network = build("resnet8", in_channels=1, num_classes=10, generator=torch.Generator().manual_seed(0))
    with pytest.raises(UserError, match=r"model\.pretrained.*weights"):
        load_pretrained(network, project / "weights.safetensors")


def test_a_split(planted, project, marker):
    plant(project / "split.json", planted)
    with pytest.raises(UserError, match=r"split\.json"):
        read_split(project / "split.json")


def test_checkpoints(planted, project, marker):
    """With the right digest in the name, so that it is not that which refuses the file."""
    digest = hashlib.sha256(planted).hexdigest()[:16]
    for name in (f"00000-{digest}.json", f"global-{digest}.safetensors"):
        plant(project / "checkpoints" / name, planted)
    assert Store(project / "checkpoints", "owner").resumed is None


def test_the_tracker_s_files(planted, project, marker):
    plant(project / JOURNAL, planted + b"\n")
    with pytest.raises(UserError, match=JOURNAL):
        read(project / JOURNAL)
    plant(project / PROGRESS, planted)
    with pytest.raises(UserError, match=PROGRESS):
        Progress.load(project)


def test_what_says_how_results_were_made(planted, project, marker):
    run = Layout(project, config())
    for file in (run.configuration, run.provenance):
        plant(file, planted)
    assert provenance.read(run) is None
    with pytest.raises(UserError):
        resume.check(run)
    with pytest.raises(UserError):
        saved_run.parameters_of(project, run.name)
    with pytest.raises(UserError):
        load_runs([run.outputs])


FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {"eval", "exec", "torch.load", "torch.jit.load", "pd.read_pickle", "yaml.load", "os.system"}


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.py")), ids=lambda path: path.stem)
def test_no_module_can_unpickle(path):
    """The rule in the source: what the tests above cannot reach, such as a reader that is written tomorrow."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {alias.name.partition(".")[0] for alias in node.names} & FORBIDDEN_MODULES
        elif isinstance(node, ast.ImportFrom):
            assert str(node.module).partition(".")[0] not in FORBIDDEN_MODULES
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert name not in FORBIDDEN_CALLS
            if name == "np.load":
                assert options.get("allow_pickle") == "False"
            assert options.get("shell") in {None, "False"}
