"""The switches of `training.deterministic`, on a machine that need not have a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import resolve
from kafal_pipeline.data import ImageData
from kafal_pipeline.federation.workers import worker as worker_module
from kafal_pipeline.training.precision import WORKSPACE, prepare

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
SWITCHES = (
    (torch.backends.cudnn, "allow_tf32"),
    (torch.backends.cuda.matmul, "allow_tf32"),
    (torch.backends.cudnn, "benchmark"),
    (torch.backends.cudnn, "deterministic"),
)


@pytest.fixture(autouse=True)
def put_back(monkeypatch):
    """PyTorch's switches are the process's; an environment without the variable to begin with."""
    monkeypatch.setenv(WORKSPACE, "to be restored")
    monkeypatch.delenv(WORKSPACE)
    kept = [(module, name, getattr(module, name)) for module, name in SWITCHES]
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)
    for module, name, value in kept:
        setattr(module, name, value)


def switches():
    cudnn = torch.backends.cudnn
    return torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark


def tf32():
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def test_a_gpu_is_fast_unless_it_must_be_deterministic(monkeypatch):
    import os

    prepare(CUDA, "fp32")
    assert switches() == (False, False, True)
    assert WORKSPACE not in os.environ
    prepare(CUDA, "fp32", deterministic=True)
    assert switches() == (True, True, False)
    assert os.environ[WORKSPACE] == ":4096:8"
    assert tf32() == (False, False)
    prepare(CUDA, "tf32", deterministic=True)  # asked for, and as deterministic
    assert tf32() == (True, True)
    prepare(CUDA, "fp32")
    assert switches() == (False, False, True)


def test_a_cpu_is_left_as_it_is():
    before = switches(), tf32()
    prepare(CPU, "tf32", deterministic=True)
    assert (switches(), tf32()) == before


def test_the_variable_must_be_there_before_the_gpu_is_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(UserError, match=r"used the GPU already.*CUBLAS_WORKSPACE_CONFIG.*:4096:8"):
        prepare(CUDA, "fp32", deterministic=True)
    assert switches()[0] is False
    monkeypatch.setenv(WORKSPACE, ":16:8")
    prepare(CUDA, "fp32", deterministic=True)
    assert switches() == (True, True, False)


def test_a_value_that_contradicts_is_refused(monkeypatch):
    monkeypatch.setenv(WORKSPACE, ":4096:2:16:8")
    with pytest.raises(UserError, match=r"training\.deterministic: found ':4096:2:16:8'"):
        prepare(CUDA, "fp32", deterministic=True)


@pytest.mark.parametrize("wanted", [True, False])
def test_the_parameter_reaches_the_device(monkeypatch, wanted):
    given = []
    monkeypatch.setattr(worker_module, "prepare", lambda *args, **options: given.append((args, options)))
    pixels, labels = np.zeros((4, 6, 6, 1), dtype=np.uint8), np.zeros(4, dtype=np.int64)
    images = ImageData("t", pixels, labels, pixels, labels, ("a",), np.array([0.5]), np.array([0.5]))
    values = {"training": {"device": "cpu", "precision": "tf32", "deterministic": wanted}}
    worker_module.Worker(images, resolve(values))
    assert given == [((CPU, "tf32"), {"deterministic": wanted})]


def test_training_takes_no_step_that_has_no_deterministic_form_on_a_gpu(monkeypatch):
    """PyTorch refuses the median with indices there (torch.use_deterministic_algorithms)."""
    from kafal_pipeline.update.kcfu import KCFU

    monkeypatch.setattr(torch.Tensor, "median", None)
    beta, _ = KCFU()._mixing(torch.zeros(64, 1, 2, 2), torch.Generator().manual_seed(0))
    drawn = torch.rand((3, 64), generator=torch.Generator().manual_seed(0))
    assert torch.equal(beta, drawn.sort(dim=0).values[1])
