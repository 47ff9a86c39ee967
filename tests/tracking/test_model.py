"""What is logged computes what was trained, or is not logged."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kafal_pipeline.tracking.model import log_model


class Undecided(nn.Module):
    """Does one thing with grey images and another with all others: a trace follows one branch only."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        logits = self.head(images.flatten(1))
        return logits if bool((images == images.mean()).all()) else -logits


def test_a_network_that_depends_on_its_images_is_not_logged_as_another(tmp_path, monkeypatch):
    network = Undecided()
    save_file(network.state_dict(), tmp_path / "global_model.safetensors")
    monkeypatch.setattr("kafal_pipeline.models.build", lambda *_, **__: Undecided())
    event = {
        "state": str(tmp_path / "global_model.safetensors"),
        "model": {"name": "resnet8", "in_channels": 1, "num_classes": 2},
        "image_shape": [1, 2, 2],
        "mean": [0.5],
        "std": [0.5],
        "classes": ["a", "b"],
    }
    before = torch.get_num_threads()
    try:
        with pytest.raises(ValueError, match="computes something else"):
            log_model("run", "experiment", event)
    finally:
        torch.set_num_threads(before)
