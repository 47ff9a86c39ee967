"""What is logged computes what was trained, or is not logged."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kafal_pipeline.tracking import torchscript, tracker
from kafal_pipeline.tracking.journal import Journal, read
from kafal_pipeline.tracking.tracker import Tracker


class Undecided(nn.Module):
    """Does one thing with grey images and another with all others: a trace follows one branch only."""

    reason = "decision that depends on the images"

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        logits = self.head(images.flatten(1))
        return logits if bool((images == images.mean()).all()) else -logits


class OneByOne(nn.Module):
    """Does another thing with a batch of one image: PyTorch itself warns of it."""

    reason = "decision that depends on the images"

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        return self.head(images.flatten(1)) * (2 if images.shape[0] == 1 else 1)


class Drawing(nn.Module):
    """Draws random numbers when it predicts."""

    reason = "computes something else"

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        return nn.functional.dropout(self.head(images.flatten(1)), training=True)


@pytest.fixture
def description(tmp_path):
    """Return what is recorded of a model whose state is in a file, and that file."""
    network = nn.Module()
    network.head = nn.Linear(4, 2)
    state = tmp_path / "global_model.safetensors"
    save_file(network.state_dict(), state)
    shape = {"name": "resnet8", "in_channels": 1, "num_classes": 2}
    return state, {"model": shape, "image_shape": [1, 2, 2], "mean": [0.5], "std": [0.5]}


@pytest.mark.parametrize("network", [Undecided, OneByOne, Drawing])
def test_a_network_that_a_trace_misses_is_not_recorded_as_another(tmp_path, monkeypatch, caplog, description, network):
    state, described = description
    monkeypatch.setattr("kafal_pipeline.models.factory.build", lambda *_, **__: network())
    with pytest.raises(ValueError, match=network.reason):
        torchscript.save_torchscript(tmp_path / "model.pt", state, **described)
    assert not (tmp_path / "model.pt").exists()
    run = Tracker(Journal(tmp_path / "journal.jsonl"), None)
    run.model(state, ["a", "b"], step=8, **described)
    run.finish("FINISHED")
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("Not in MLflow: the model") and network.reason in message
    assert [entry.event["type"] for entry in read(run.journal)] == ["end"]


def test_a_restarted_run_records_the_model_that_it_has_recorded(tmp_path, monkeypatch, description):
    """Saved twice, TorchScript has other bytes, and the tracker would refuse the first."""
    state, described = description

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 2)

        def forward(self, images):
            return self.head(images.flatten(1))

    monkeypatch.setattr("kafal_pipeline.models.factory.build", lambda *_, **__: Linear())
    for _ in range(2):
        Tracker(Journal(tmp_path / "journal.jsonl"), None).model(state, ["a", "b"], step=8, **described)
        monkeypatch.setattr(tracker, "save_torchscript", pytest.fail)
    first, second = (entry.event for entry in read(tmp_path / "journal.jsonl"))
    assert {key: first[key] for key in ("path", "sha256")} == {key: second[key] for key in ("path", "sha256")}
    assert torch.jit.load(first["path"])(torch.ones(3, 1, 2, 2)).shape == (3, 2)
