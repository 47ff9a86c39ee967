"""The trial that a GPU machine runs, shortened and on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
ABSENT = ("pydantic", "pydantic_core", "kedro", "kedro_datasets", "mlflow", "dvc", "filelock", "omegaconf", "rich")
ABSENT += ("matplotlib", "torchvision", "psutil", "yaml")
BARE = f"""
import runpy, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
sys.argv = ["gpu_trial.py", *sys.argv[1:]]
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
runpy.run_path({str(ROOT / "benchmarks" / "gpu_trial.py")!r}, run_name="__main__")
"""
SHORT = ["--device", "cpu", "--cycles", "2", "--rounds", "2", "--epochs", "1"]
TIMES = ("train_seconds", "query_seconds", "evaluate_seconds", "samples_per_second")


@pytest.fixture
def gpu_trial(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import gpu_trial

    return gpu_trial


@pytest.fixture
def files(tmp_path):
    """Noise of ten clients with 30 images each, and its split."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, size in (("train", 300), ("test", 40)):
        arrays[f"{split}_labels"] = np.arange(size) % 10
        noise = rng.integers(0, 40, (size, 8, 8, 3))
        arrays[f"{split}_images"] = (noise + 20 * arrays[f"{split}_labels"][:, None, None, None]).astype(np.uint8)
    np.savez(tmp_path / "noise.npz", **arrays)
    (tmp_path / "split.json").write_text(json.dumps([list(range(client, 300, 10)) for client in range(10)]))
    return ["--data", str(tmp_path / "noise.npz"), "--split", str(tmp_path / "split.json"), *SHORT]


def curve(out):
    rows = json.loads((out / "trial.json").read_text())["cycles"]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def bare(*arguments):
    return [sys.executable, "-c", BARE, *arguments]


def test_values_are_those_of_the_environment(gpu_trial):
    from omegaconf import OmegaConf

    from kafal_pipeline.config import resolve
    from protocol import CIFAR10

    written = [OmegaConf.load(ROOT / "conf" / name / "parameters.yml") for name in ("base", "cifar10")]
    resolved = resolve(OmegaConf.to_container(OmegaConf.merge(*written))).model_dump()
    assert {key: resolved[key] for key in CIFAR10} == CIFAR10
    assert set(resolved) - set(CIFAR10) == {"preset", "dataset", "tracking", "restart"}
    assert gpu_trial.trial_values(gpu_trial.parse(["--data", "x.npz"])) == CIFAR10


def test_a_killed_trial_on_a_bare_machine_goes_on_to_the_same_curve(gpu_trial, files, tmp_path):
    """Without pydantic, Kedro and the others; the reference runs in this process, which has them."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert gpu_trial.main([*files, "--no-window", "--out", str(whole)]) == 0
    command = bare(*files, "--no-window", "--out", str(killed))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("cycle 1, round 1"):
                process.kill()
    assert (killed / "state.npz").is_file()
    assert not (killed / "trial.json").exists()
    restarted = subprocess.run(command, check=True, timeout=120, stdout=subprocess.PIPE, text=True).stdout
    assert "cycle 0" not in restarted
    results = json.loads((killed / "trial.json").read_text())
    assert results["finished"]
    assert [row["labels"] for row in results["cycles"]] == [30, 50]
    assert curve(killed) == curve(whole)


def test_a_trial_out_of_time_says_so_and_ends_later(gpu_trial, files, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    gpu_trial.main([*files, "--no-window", "--update", "scaffold", "--out", str(whole)])
    finished = []
    for _ in range(5):
        gpu_trial.main([*files, "--no-window", "--update", "scaffold", "--budget-seconds", "0", "--out", str(parts)])
        finished.append(json.loads((parts / "trial.json").read_text())["finished"])
    assert finished == [False, False, False, False, True]
    assert curve(parts) == curve(whole)


def test_another_trials_state_is_refused(gpu_trial, files, tmp_path, capsys):
    for seed, code in (("0", 0), ("1", 1)):
        arguments = [*files, "--no-window", "--budget-seconds", "0", "--seed", seed, "--out", str(tmp_path)]
        assert gpu_trial.main(arguments) == code
    assert "other values" in capsys.readouterr().err


def test_the_window_compares_the_engine_with_the_published_way(files, tmp_path):
    subprocess.run(bare(*files, "--no-trial", "--out", str(tmp_path)), check=True, timeout=120)
    window = json.loads((tmp_path / "trial.json").read_text())["window"]
    assert window["ratio"] == window["engine_samples_per_second"] / window["published_samples_per_second"] > 0


def test_packed_parts_are_the_same_images(gpu_trial, files, tmp_path):
    import cifar_parts

    assert gpu_trial.main([*files, "--pack", "--out", str(tmp_path / "parts")]) == 0
    parts = sorted((tmp_path / "parts").iterdir())
    assert len(parts) == 2
    one, joined = cifar_parts.load([tmp_path / "noise.npz"]), cifar_parts.load(parts)
    for name in ("train_images", "train_labels", "test_images", "test_labels", "mean", "std"):
        assert np.array_equal(getattr(one, name), getattr(joined, name)), name


@pytest.mark.parametrize(("flip", "padding"), [(True, 4), (False, 1), (True, 0)])
def test_the_plain_transform_is_torchvisions(gpu_trial, flip, padding):
    transforms = pytest.importorskip("torchvision.transforms")
    import torch
    from PIL import Image

    from pil_transforms import PlainTransform, transform_of

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    theirs, ours = transform_of(8, 3, flip, padding), PlainTransform(8, 3, flip, padding)
    assert isinstance(theirs, transforms.Compose)
    for seed in range(8):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            expected = theirs(picture)
            torch.manual_seed(seed)
            torch.testing.assert_close(ours(picture), expected, rtol=0, atol=1e-6)
