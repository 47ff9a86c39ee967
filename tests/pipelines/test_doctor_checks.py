"""Each check of the doctor on its own: what it says when all is well, and every way in which it is not."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from kafal_pipeline.config import resolve
from kafal_pipeline.data import open_store
from kafal_pipeline.pipelines.doctor.checks import (
    dataset,
    device,
    disk,
    duration,
    memory,
    packages,
    torch_pair,
)
from kafal_pipeline.pipelines.doctor.finding import OK, Finding
from kafal_pipeline.pipelines.doctor.probe import Measured
from kafal_pipeline.pipelines.doctor.shape import DataShape

DIGITS = DataShape(1438, 359, (8, 8, 1), 10)

MEASURED = Measured(
    model_bytes=1_000_000,
    step_seconds=0.25,
    alone_seconds=0.24,
    image_seconds=0.001,
    side_by_side=2,
    processes=2,
    process_bytes=1_300_000_000,
)


def config(**values):
    return resolve(values)


class TestPackages:
    @pytest.fixture
    def project(self, tmp_path):
        (tmp_path / "pyproject.toml").write_text(
            '[project]\nname = "kafal_pipeline"\nrequires-python = ">=3.11"\n'
            'dependencies = ["numpy>=2.2", "torch>=2.15,<3"]\n'
        )
        return tmp_path

    def test_all_within_their_bounds(self, project):
        found = packages.check(project)
        assert (found.status, found.advice) == (OK, "")
        assert "2 packages" in found.found

    @pytest.mark.parametrize("of_another", [None, '[project]\nname = "other"\n', "[tool.ruff]\n"])
    def test_a_folder_with_configuration_alone(self, tmp_path, monkeypatch, of_another):
        """The bounds are those of the wheel that is installed."""
        if of_another:
            (tmp_path / "pyproject.toml").write_text(of_another)
        wanted = ["numpy>=99", 'ruff>=99; extra == "dev"']
        monkeypatch.setattr(importlib.metadata, "metadata", lambda name: {"requires-python": ">=3.11"})
        monkeypatch.setattr(importlib.metadata, "requires", lambda name: wanted)
        found = packages.check(tmp_path)
        assert found.status == "failure"
        assert found.found.startswith("numpy ") and found.found.endswith(" instead of >=99")
        assert "kafal_pipeline-...whl" in found.advice

    def test_a_version_out_of_bounds(self, project, monkeypatch):
        monkeypatch.setattr(importlib.metadata, "version", {"numpy": "1.26.4", "torch": "2.15.0+cpu"}.__getitem__)
        found = packages.check(project)
        assert found.status == "failure"
        assert found.found == "numpy 1.26.4 instead of >=2.2"
        assert "requirements.lock" in found.advice

    def test_a_missing_package(self, project, monkeypatch):
        def version(name):
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(importlib.metadata, "version", version)
        assert packages.check(project).found == "numpy is not installed; torch is not installed"

    def test_an_old_python(self, project, monkeypatch):
        monkeypatch.setattr(platform, "python_version", lambda: "3.10.2")
        assert packages.check(project).found.startswith("Python 3.10.2 instead of >=3.11")


class TestTorchPair:
    @pytest.fixture
    def break_torchvision(self, tmp_path, monkeypatch):
        (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
        monkeypatch.syspath_prepend(tmp_path)
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            monkeypatch.delitem(sys.modules, name)

    def test_a_pair(self):
        found, works = torch_pair.check(needed=True)
        assert (found.status, works) == (OK, True)

    def test_no_torch(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch", None)
        found, works = torch_pair.check(needed=False)
        assert (found.status, works) == ("failure", False)
        assert "requirements.lock" in found.advice

    @pytest.mark.parametrize(("needed", "status"), [(True, "failure"), (False, "warning")])
    @pytest.mark.usefixtures("break_torchvision")
    def test_a_broken_pair_fails_where_it_is_needed(self, needed, status):
        found, works = torch_pair.check(needed)
        assert (found.status, works) == (status, True)
        assert "torchvision::nms does not exist" in found.found
        assert "pair" in found.advice


class TestDevice:
    @pytest.fixture(autouse=True)
    def _a_plain_machine(self, monkeypatch):
        hardware = {"hardware.cpu": "Some CPU", "hardware.memory_gb": "16.0", "hardware.gpus": "none"}
        monkeypatch.setattr(device, "hardware_tags", lambda: self.hardware)
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
        monkeypatch.setattr("kafal_pipeline.common.machine.cores", lambda: 4)
        self.hardware = hardware

    @pytest.fixture
    def gpu(self, monkeypatch):
        memory = {"free": 70e9, "total": 80e9}
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
        monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "Some GPU")
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (memory["free"], memory["total"]))
        return memory

    def test_a_cpu(self):
        found = device.check(config())
        assert found == Finding("device", OK, "Some CPU, 4 cores, 16.0 GB of memory")

    def test_a_gpu(self, gpu):
        assert device.check(config()) == Finding("device", OK, "Some GPU, 70.0 of 80.0 GB free")

    def test_a_gpu_that_is_full(self, gpu):
        gpu["free"] = 1e9
        found = device.check(config())
        assert found.status == "warning"
        assert "nvidia-smi" in found.advice

    def test_a_gpu_that_cannot_be_used(self, gpu, monkeypatch):
        def broken(_):
            raise RuntimeError("CUDA error: driver too old\nmore")

        monkeypatch.setattr("torch.cuda.mem_get_info", broken)
        found = device.check(config())
        assert found.status == "failure"
        assert found.found == "Some GPU cannot be used (CUDA error: driver too old)"

    def test_a_device_that_is_not_there(self):
        found = device.check(config(training={"device": "cuda"}))
        assert found.status == "failure"
        assert "training.device: found 'cuda'" in found.found

    def test_a_gpu_that_this_torch_does_not_see(self):
        self.hardware["hardware.gpus"] = "Some GPU"
        assert device.check(config()).status == "warning"
        assert device.check(config(training={"device": "cpu"})).status == OK

    @pytest.mark.parametrize(("supported", "status"), [(True, OK), (False, "warning")])
    def test_bf16_is_slower_on_a_processor_that_lacks_it(self, monkeypatch, supported, status):
        monkeypatch.setattr("torch.ops.mkldnn._is_mkldnn_bf16_supported", lambda: supported)
        found = device.check(config(training={"precision": "bf16"}))
        assert found.status == status
        assert ("slower than fp32 on this processor" in found.advice) != supported

    @pytest.mark.parametrize("training", [{"processes": 5}, {"precision": "tf32"}])
    def test_settings_that_do_no_good(self, training):
        assert device.check(config(training=training)).status == "warning"


class TestDataset:
    @pytest.fixture
    def mine(self, tmp_path):
        """A project with a data set of its own, and the function that makes its store."""
        raw = tmp_path / "data/01_raw"
        raw.mkdir(parents=True)
        rng = np.random.default_rng(0)
        arrays = {
            f"{split}_{kind}": rng.integers(0, 256, (count, 6, 5, 3), dtype=np.uint8)
            if kind == "images"
            else np.arange(count) % 3
            for split, count in (("train", 12), ("test", 6))
            for kind in ("images", "labels")
        }
        np.savez(raw / "mine.npz", **arrays)
        section = config(dataset={"name": "mine"}).dataset
        folder = tmp_path / "data/02_intermediate/mine/images"
        return SimpleNamespace(
            root=tmp_path,
            config=section,
            file=raw / "mine.npz",
            folder=folder,
            arrays=arrays,
            store=lambda: open_store(section, raw, folder, tmp_path),
            look=lambda: dataset.look(section, tmp_path),
        )

    def test_files_without_a_store_are_read(self, mine):
        seen = mine.look()
        assert seen.finding.status == OK
        assert seen.shape == DataShape(12, 6, (6, 5, 3), 3)
        assert (seen.downloaded, seen.stored) == (True, False)
        assert not mine.folder.exists()

    def test_image_files_are_decoded_as_far_as_time_allows(self, tmp_path, monkeypatch):
        for split in ("train", "test"):
            for name in ("cat", "dog"):
                (tmp_path / split / name).mkdir(parents=True)
                Image.effect_noise((64, 60), 50).save(tmp_path / split / name / "0.jpg")
        section = config(dataset={"name": "mine", "path": str(tmp_path), "image_size": 8}).dataset
        assert "all files decoded" in dataset.look(section, tmp_path).finding.found
        file = tmp_path / "test/cat/0.jpg"
        file.write_bytes(file.read_bytes()[:-100])  # its header is whole
        seen = dataset.look(section, tmp_path)
        assert seen.finding.status == "failure"
        assert "test/cat/0.jpg: cannot be read as an image" in seen.finding.found
        monkeypatch.setattr(dataset, "DECODING_SECONDS", -1)
        seen = dataset.look(section, tmp_path)
        assert (seen.finding.status, "0 files decoded; of the others the headers alone" in seen.finding.found) == (
            OK,
            True,
        )

    @pytest.mark.parametrize("stored", [False, True])
    def test_a_class_that_is_never_tested(self, mine, stored):
        np.savez(mine.file, **mine.arrays | {"test_labels": np.zeros(6, dtype=int)})
        if stored:
            mine.store()
        finding = mine.look().finding
        assert finding.status == "warning"
        assert "class '1', '2': training images but no test image" in finding.advice

    @pytest.mark.parametrize("stored", [False, True])
    def test_labels_that_are_missing(self, mine, stored):
        names = {"classes": np.array(["a", "b", "c"])}
        np.savez(mine.file, **mine.arrays | names | {"train_labels": np.arange(12) % 4 - 1})
        if stored:
            mine.store()
        found = dataset.look(mine.config, mine.root, "people")
        assert (found.finding.status, found.stored) == (OK, stored)
        assert "3 classes, 3 of the images without a label, " in found.finding.found
        found = mine.look()
        assert (found.finding.status, found.shape) == ("failure", DataShape(12, 6, (6, 5, 3), 3))
        assert "annotation.source: found 'oracle'" in found.finding.found

    def test_people_where_all_labels_are_there(self, mine):
        finding = dataset.look(mine.config, mine.root, "people").finding
        assert finding.status == "failure"
        assert "annotation.source: found 'people'" in finding.found

    def test_how_large_the_store_gets(self, mine, monkeypatch):
        section = mine.config.model_copy(update={"image_size": 1024})  # 18 images of 3 MB
        monkeypatch.setattr(dataset, "LARGE", 1e6)
        assert ", a store of 57 MB, " in dataset.look(section, mine.root).finding.found
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5e7))
        finding = dataset.look(section, mine.root).finding
        assert finding.status == "warning"
        assert "The store takes 57 MB, and 50 MB are free" in finding.advice

    def test_a_damaged_file(self, mine):
        mine.file.write_bytes(mine.file.read_bytes()[:200])
        seen = mine.look()
        assert seen.finding.status == "failure"
        assert "mine.npz" in seen.finding.found
        assert seen.shape is None

    def test_a_whole_store(self, mine):
        mine.store()
        before = sorted((path, path.stat().st_mtime_ns) for path in mine.root.rglob("*"))
        seen = mine.look()
        assert (seen.finding.status, seen.stored) == (OK, True)
        assert "SHA-256 as written" in seen.finding.found
        assert sorted((path, path.stat().st_mtime_ns) for path in mine.root.rglob("*")) == before

    def test_one_wrong_bit_in_a_store(self, mine):
        mine.store()
        path = mine.folder / "train_images.npy"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        finding = mine.look().finding
        assert finding.status == "failure"
        assert "train_images.npy" in finding.found
        assert "Remove the folder" in finding.advice

    def test_a_cut_store(self, mine):
        mine.store()
        path = mine.folder / "test_labels.npy"
        path.write_bytes(path.read_bytes()[:-8])
        assert mine.look().finding.status == "failure"

    def test_files_that_changed_since(self, mine):
        mine.store()
        np.savez(mine.file, **mine.arrays | {"train_labels": (np.arange(12) + 1) % 3})
        seen = mine.look()
        assert (seen.finding.status, seen.stored) == (OK, False)
        assert "changed" in seen.finding.found

    def test_a_store_whose_source_is_gone(self, mine):
        mine.store()
        mine.file.unlink()
        seen = mine.look()
        assert (seen.finding.status, seen.stored) == (OK, True)
        assert "gone" in seen.finding.found

    def test_a_store_that_is_too_large_to_be_read_in_seconds(self, mine, monkeypatch):
        mine.store()
        monkeypatch.setattr(dataset, "HASHED", 100)
        assert mine.look().finding.status == "warning"

    @pytest.mark.parametrize(
        ("section", "part"),
        [
            ({"name": "nowhere"}, "nowhere.npz"),
            ({"name": "cifar10"}, "dataset.download"),
            ({"name": "mine", "path": "absent.npz"}, "absent.npz"),
            ({"name": "mine", "path": "absent"}, "absent"),
        ],
    )
    def test_what_is_not_there(self, tmp_path, section, part):
        seen = dataset.look(config(dataset=section).dataset, tmp_path)
        assert seen.finding.status == "failure"
        assert part in seen.finding.found

    def test_what_the_run_will_download_is_known_without_it(self, tmp_path):
        section = config(dataset={"name": "cifar10", "download": True, "image_size": 16}).dataset
        seen = dataset.look(section, tmp_path)
        assert (seen.finding.status, seen.downloaded) == (OK, False)
        assert seen.shape == DataShape(50_000, 10_000, (16, 16, 3), 10)
        assert not list(tmp_path.iterdir())

    def test_planted_files_of_a_published_data_set_fail_their_checksums(self, tmp_path):
        for path in dataset.find_source(config(dataset={"name": "cifar10"}).dataset, tmp_path / "data/01_raw").files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"rubbish")
        seen = dataset.look(config(dataset={"name": "cifar10"}).dataset, tmp_path)
        assert seen.finding.status == "failure"
        assert "damaged or not the published ones" in seen.finding.found

    def test_which_data_sets_need_torchvision(self, tmp_path):
        needs = [config(dataset={"name": name}).dataset for name in ("cifar10", "digits", "nowhere")]
        assert [dataset.needs_torchvision(section, tmp_path) for section in needs] == [True, False, False]
        broken = config(dataset={"name": "mine", "path": "."}).dataset
        assert not dataset.needs_torchvision(broken, tmp_path)


class TestDisk:
    def check(self, monkeypatch, root, free, measured=MEASURED, **seen):
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
        data = dataset.Seen(Finding("data", OK, ""), DIGITS, **seen)
        return disk.check(config(), data, measured, root)

    @pytest.mark.parametrize(("free", "status"), [(1e12, OK), (1.9e8, "warning"), (1e8, "failure")])
    def test_free_space_against_the_estimate(self, monkeypatch, tmp_path, free, status):
        # 1 MB x (6 cycles x (1 + 5 + 5 models) + 4 x 5) = 86 MB, and 52 MB of tables and the like
        found = self.check(monkeypatch, tmp_path, free)
        assert found.status == status
        assert "138 MB needed" in found.found or "0.1 GB needed" in found.found

    def test_images_that_are_not_there_yet_count(self, monkeypatch, tmp_path):
        big = DataShape(1_000_000, 0, (10, 10, 10), 10)
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2e9))
        for seen, status in (
            ({"stored": True}, OK),
            ({}, "warning"),
            ({"downloaded": False}, "failure"),
        ):
            data = dataset.Seen(Finding("data", OK, ""), big, **seen)
            assert disk.check(config(), data, MEASURED, tmp_path).status == status

    def test_without_an_estimate(self, monkeypatch, tmp_path):
        assert self.check(monkeypatch, tmp_path, 1e12, measured=None).status == "warning"


@pytest.mark.parametrize(
    ("free", "left", "status", "advice"),
    [
        (4e9, None, OK, ""),
        (3e9, None, "warning", "=1"),
        (2e9, None, "warning", "training.processes=1"),
        (9e9, int(2e9), "warning", "=1"),
    ],
)
def test_memory_against_what_processes_need(monkeypatch, free, left, status, advice):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=free, total=32e9))
    monkeypatch.setattr(memory, "memory_left", lambda: left)
    found = memory.check(MEASURED)
    assert (found.status, advice in found.advice) == (status, True)
    assert "about 2.6 GB needed (2 processes of 1.3 GB)" in found.found
    assert memory.check(None).status == "warning"


class TestDuration:
    def test_in_words(self):
        found = duration.check(config(), DIGITS, MEASURED)
        assert found.status == OK
        assert found.found == "about 5 min (2,214 client steps at 250 ms, 2 side by side)"

    def test_on_a_machine_that_is_busy(self):
        found = duration.check(config(), DIGITS, replace(MEASURED, alone_seconds=0.1))
        assert found.status == "warning"
        assert found.advice.endswith("without them it would be about 2 min.")

    def test_a_step_that_fails(self):
        found = duration.check(config(), DIGITS, "a training step failed (OutOfMemoryError: CUDA out of memory)")
        assert found.status == "failure"
        assert "out of memory" in found.found

    def test_without_data(self):
        assert duration.check(config(), None, None).status == "warning"
