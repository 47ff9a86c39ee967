"""The trial that a GPU machine runs, shortened and on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kafal_pipeline.evaluation import CycleMetrics
from kafal_pipeline.evaluation.curve import OF_PEOPLE

ROOT = Path(__file__).parents[2]
ABSENT = ("kedro", "kedro_datasets", "mlflow", "dvc", "filelock", "omegaconf", "rich")
ABSENT += ("matplotlib", "torchvision", "psutil")
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


def test_the_configuration_is_that_of_the_environment(gpu_trial):
    from omegaconf import OmegaConf

    from kafal_pipeline.config import resolve
    from protocol import plain

    written = [OmegaConf.load(ROOT / "conf" / name / "parameters.yml") for name in ("base", "cifar10")]
    expected = resolve(OmegaConf.to_container(OmegaConf.merge(*written)))
    config = gpu_trial.configuration(gpu_trial.parse(["--data", "x.npz"]))
    assert plain(config) == plain(expected)
    assert config.dataset.name == "cifar10_gpu_trial"


@pytest.mark.parametrize(
    ("option", "part"), [("--rounds=0", "federation.rounds: found 0"), ("--query=ksass", "Did you mean 'ksas'")]
)
def test_an_option_that_is_not_allowed_is_an_error_before_anything_is_read(gpu_trial, tmp_path, capsys, option, part):
    assert gpu_trial.main(["--data", "nowhere.npz", option, "--out", str(tmp_path)]) == 1
    assert part in capsys.readouterr().err


def test_a_killed_trial_on_a_bare_machine_resumes_to_the_same_curve(gpu_trial, files, tmp_path):
    """Without Kedro and the others; the reference runs in this process, which has them."""
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


@pytest.fixture
def gpu_report(gpu_trial):
    import gpu_report

    return gpu_report


def test_a_trial_is_reported_like_a_run_without_its_images(gpu_trial, gpu_report, files, tmp_path, capsys):
    out, folder = tmp_path / "out", tmp_path / "new/report"
    gpu_trial.main([*files, "--no-window", "--update", "fedavg", "--precision", "bf16", "--out", str(out)])
    written = json.loads((out / "trial.json").read_text())
    rows = written["cycles"]
    assert all(set(row) >= set(CycleMetrics.__annotations__) - set(OF_PEOPLE) for row in rows)
    assert [sum(row["queried_histogram"]) for row in rows] == [30, 20]
    assert rows[1]["bytes_sent"] > rows[0]["bytes_sent"] > 0  # KSAS asks for models besides those of the rounds
    capsys.readouterr()

    assert gpu_report.main([str(out / "trial.json"), str(folder)]) == 0

    curve = pd.read_csv(folder / "learning_curve.csv")
    for name in ("cycle", "labels", "labelled_fraction", "accuracy", "balanced_accuracy", "macro_f1", "bytes_sent"):
        assert curve[name].tolist() == [row[name] for row in rows], name
    for name in ("queried_entropy", "query_seconds"):
        assert np.array_equal(curve[name], [np.nan, rows[1][name]], equal_nan=True), name
    for name in ("train_seconds", "evaluate_seconds", "samples_per_second", "skipped_client_rounds"):
        assert curve[name].tolist() == [row[name] for row in rows], name
    for index in range(10):
        assert curve[f"accuracy_{index}"].tolist() == [row["per_class_accuracy"][index] for row in rows]
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["dataset"], summary["update"]) == ("cifar10_gpu_trial", "fedavg")
    assert summary["cost"]["peak_memory_mb"] == written["peak_memory_mb"]
    assert summary["trial"]["finished"]
    figures = {f"{name}.png" for name in ("learning_curve", "client_classes", "confusion_matrix", "queried_classes")}
    tables = {"summary.json", "learning_curve.csv", "classes.csv", "clients.csv"}
    assert {path.name for path in folder.iterdir()} == figures | tables
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in figures)
    assert summary["final_auroc_macro"] == rows[1]["auroc_macro"]
    assert pd.read_csv(folder / "classes.csv")["auroc"].tolist() == rows[1]["per_class_auroc"]
    shown = capsys.readouterr().out
    assert f"{100 * rows[1]['accuracy']:.2f} %" in shown
    assert f"{summary['cost']['samples_per_second']:,.0f} samples/s (cpu, bf16)" in shown
    assert f"{written['peak_memory_mb']:,.0f} MB" in shown
    assert "Not finished" not in shown


ROW = {"cycle": 0, "labels": 3, "labelled_fraction": 0.1, "accuracy": 0.5, "balanced_accuracy": 0.5}
ROW |= {"macro_f1": 0.5, "per_class_accuracy": [0.5, None], "classes": ["a", "b"], "queried_histogram": [2, 1]}
ROW |= {"queried_entropy": None, "train_seconds": 2.0, "query_seconds": None, "evaluate_seconds": 1.0}
ROW |= {"bytes_sent": 8, "skipped_client_rounds": 0, "steps": 4, "samples": 1000, "samples_per_second": 500.0}


@pytest.fixture
def trial_file(gpu_trial, tmp_path):
    """A function that writes the file of an unfinished trial on a GPU, with changes."""
    from protocol import plain

    def write(**changes):
        values = plain(gpu_trial.configuration(gpu_trial.parse(["--data", "x.npz", "--device", "cuda:7"])))
        content = {"dataset": gpu_trial.LABEL, "values": values, "finished": False, "cycles": [ROW]}
        content |= {"split_table": [{"client": 0, "class": 1, "count": 3}], "device": "NVIDIA H200", "torch": "2"}
        content |= {"peak_memory_mb": 4000.0, "peak_gpu_memory_mb": 3000.0, **changes}
        path = tmp_path / "trial.json"
        path.write_text(json.dumps({key: value for key, value in content.items() if value != "absent"}))
        return str(path)

    return write


def test_an_unfinished_trial_of_a_gpu_is_reported_as_far_as_it_came(gpu_report, trial_file, tmp_path, capsys):
    assert gpu_report.main([trial_file(), str(tmp_path / "report")]) == 0
    shown = capsys.readouterr().out
    assert "1 of 6 cycles" in shown
    assert "500 samples/s (NVIDIA H200, fp32)" in shown
    assert "4,000 MB, 3,000 MB on the GPU" in shown


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"cycles": "absent"}, "has not finished any cycle"),
        ({"cycles": []}, "has not finished any cycle"),
        ({"cycles": [{"cycle": 0}]}, "cycles.0.labels: is needed"),
        ({"cycles": [ROW | {"confusion_matrix": [[3]]}]}, "cycle 0 is not one that follows"),
        ({"cycles": [ROW | {"confusion_matrix": [[1, 2], [0]]}]}, "cycle 0 is not one that follows"),
        ({"split_table": "absent"}, "split_table: is needed"),
        ({"split_table": [{"client": 0, "class": 2, "count": 3}]}, "a class beyond"),
        ({"values": "absent"}, "values: is needed"),
        ({"values": {"training": 3}}, "trial.json: training: found 3"),
        ({"dataset": "../up"}, "trial.json: dataset.name"),
    ],
)
def test_files_that_are_of_no_trial(gpu_report, trial_file, tmp_path, capsys, changes, part):
    assert gpu_report.main([trial_file(**changes), str(tmp_path / "report")]) == 1
    assert part in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_files_that_cannot_be_read_or_written(gpu_report, trial_file, tmp_path, capsys):
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "file").touch()
    for arguments, part in (
        ((tmp_path / "nowhere.json", tmp_path / "report"), "nowhere.json: cannot be read"),
        ((tmp_path, tmp_path / "report"), "cannot be read"),
        ((tmp_path / "broken.json", tmp_path / "report"), "broken.json: damaged"),
        ((trial_file(), tmp_path / "file"), f"File exists: '{tmp_path / 'file'}'"),
    ):
        assert gpu_report.main([*map(str, arguments)]) == 1
        assert part in capsys.readouterr().err


def test_another_trials_state_is_refused(gpu_trial, files, tmp_path, capsys):
    for seed, code in (("0", 0), ("1", 1)):
        arguments = [*files, "--no-window", "--budget-seconds", "0", "--seed", seed, "--out", str(tmp_path)]
        assert gpu_trial.main(arguments) == code
    assert "other values" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["older", "no archive"])
def test_a_state_that_cannot_be_read_is_an_error_for_the_user(gpu_trial, files, tmp_path, capsys, damage):
    arguments = [*files, "--no-window", "--budget-seconds", "0", "--out", str(tmp_path)]
    assert gpu_trial.main(arguments) == 0
    path = tmp_path / "state.npz"
    if damage == "older":
        with np.load(path) as archive:
            arrays = dict(archive)
        meta = json.loads(arrays["meta"].tobytes())
        del meta["queried"]
        np.savez(path, **{**arrays, "meta": np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)})
    else:
        path.write_bytes(b"nothing")
    capsys.readouterr()
    assert gpu_trial.main(arguments) == 1
    assert f"{path} cannot be read as a trial's state" in capsys.readouterr().err


def test_the_window_compares_the_engine_with_the_published_way(files, tmp_path):
    subprocess.run(bare(*files, "--no-trial", "--out", str(tmp_path)), check=True, timeout=120)
    window = json.loads((tmp_path / "trial.json").read_text())["window"]
    assert window["turns"] == 3
    for name in ("engine_samples_per_second", "published_samples_per_second", "ratio"):
        assert 0 < window[name]["min"] <= window[name]["median"] <= window[name]["max"], name


@pytest.mark.parametrize("switch", [True, False])
def test_both_contestants_are_warm_and_only_the_engines_cudnn_searches(gpu_trial, files, monkeypatch, switch):
    import torch

    import cifar_parts
    import published

    calls = []

    def note(name, work):
        calls.append((name, len(work), torch.backends.cudnn.benchmark))
        return []

    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
    monkeypatch.setattr(gpu_trial.Workers, "map", lambda _, method, tasks: note(method, tasks))
    monkeypatch.setattr(published, "as_written", lambda _, __, clients, ___: len(note("published", clients)) + 1)
    monkeypatch.setattr(gpu_trial, "samples_of", lambda *_: 1)
    monkeypatch.setattr(gpu_trial.measure, "rate", lambda work: work() + 1.0)
    options = gpu_trial.parse([*files, *([] if switch else ["--no-cudnn-benchmark"])])
    config, data = gpu_trial.configuration(options), cifar_parts.load(options.data)
    split = [np.arange(client, 300, 10) for client in range(10)]
    gpu_trial.window(config, data, split, cudnn_benchmark=options.cudnn_benchmark)
    engine, other = ("train", 10, switch), ("published", 2, False)
    assert calls == [engine, other, engine, other, other, engine, engine, other]
    assert torch.backends.cudnn.benchmark is switch


def test_the_window_leaves_no_memory_to_the_trial(gpu_trial, monkeypatch):
    import torch

    done = []
    monkeypatch.setattr(gpu_trial.gc, "collect", lambda: done.append("collect"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("empty"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: done.append("reset"))
    gpu_trial.forget(torch.device("cuda:0"))
    gpu_trial.forget(torch.device("cpu"))
    assert done == ["collect", "empty", "reset", "collect"]


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
