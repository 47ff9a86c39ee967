from __future__ import annotations

import dataclasses

import numpy as np
import torch

from kafal_pipeline.federation.prediction import CHUNK, predict_test
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.models.factory import build


@torch.no_grad()
def test_predicts_every_test_image_of_more_than_one_task(images, make_config, start):
    rng = np.random.default_rng(0)
    many = rng.integers(0, 256, size=(2 * CHUNK + 37, 6, 6, 1), dtype=np.uint8)
    data = dataclasses.replace(images, test_images=many, test_labels=np.zeros(len(many), dtype=np.int64))
    with Workers(data, make_config()) as workers:
        logits = predict_test(start, len(many), workers)
    network = build("resnet8", in_channels=1, num_classes=3)
    network.load_state_dict(start)
    pixels = torch.tensor((many / 255 - 0.5) / 0.25, dtype=torch.float32).permute(0, 3, 1, 2)
    np.testing.assert_allclose(logits, network.eval()(pixels), rtol=1e-4, atol=1e-5)
    assert logits.dtype == np.float32
    assert len(set(logits.argmax(1).tolist())) > 1
