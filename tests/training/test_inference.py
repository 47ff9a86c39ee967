from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from kafal_pipeline.config import ModelConfig
from kafal_pipeline.models.factory import build
from kafal_pipeline.training import fusion, inference
from kafal_pipeline.training.device_images import Pixels
from kafal_pipeline.training.fusion import FusedBlock, folded, fused
from kafal_pipeline.training.inference import outputs, predictions
from kafal_pipeline.training.precision import in_precision


def network(name, **options):
    """A network whose batch norms have something to say."""
    generator = torch.Generator().manual_seed(0)
    model = build(
        ModelConfig.model_validate({"name": name, **options}),
        in_channels=3,
        num_classes=5,
        image_size=(16, 16),
        generator=generator,
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            module.weight.data.uniform_(0.5, 2.0, generator=generator)
            module.bias.data.normal_(generator=generator)
    return model


@pytest.fixture
def pixels():
    images = np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3), dtype=np.uint8)
    return Pixels(images, [0.5] * 3, [0.25] * 3, torch.device("cpu"))


@pytest.mark.parametrize("options", [{}, {"normalisation": "group"}])
@pytest.mark.parametrize("name", ["resnet8", "cnn4", "resnet18", "mobilenet_v2"])
def test_outputs_are_those_of_the_plain_network_in_evaluation_mode(pixels, name, options):
    model = network(name, **options).train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    wanted = np.array([7, 299, 0, 7])
    found = outputs(model, pixels, wanted)
    with torch.no_grad():
        exact = model.double().eval()
        images = pixels.batch(torch.as_tensor(wanted)).double()
        torch.testing.assert_close(found.features.double(), exact.features(images), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.logits.double(), exact(images), rtol=1e-4, atol=1e-4)
        assert (predictions(model.float(), pixels, wanted) == exact.double()(images).argmax(1).numpy()).all()
    assert all(torch.equal(before[key], tensor.to(before[key].dtype)) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize(("name", "left"), [("resnet8", 1), ("cnn4", 0)])
def test_batch_norms_that_follow_a_convolution_are_folded(name, left):
    assert sum(isinstance(module, nn.BatchNorm2d) for module in folded(network(name)).modules()) == left


def blocks(model):
    return sum(isinstance(module, FusedBlock) for module in model.modules())


def test_residual_blocks_are_fused_where_their_batch_norms_are_folded():
    cpu = torch.device("cpu")
    assert blocks(fused(network("resnet8"), cpu)) == 3
    assert blocks(fused(network("resnet8", normalisation="group"), cpu)) == 0
    assert blocks(fused(network("resnet8"), torch.device("cuda"))) == 0


def test_without_the_operator_blocks_stay_and_say_the_same(pixels, monkeypatch):
    model = network("resnet8")
    fast = outputs(model, pixels, np.arange(100)).logits
    monkeypatch.setattr(fusion, "POINTWISE", "_no_such_operator")
    plain = outputs(model, pixels, np.arange(100)).logits
    assert blocks(fused(model, torch.device("cpu"))) == 0
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 1e-2)])
def test_weights_that_are_not_laid_out_beforehand_say_the_same(pixels, monkeypatch, precision, tolerance):
    model = in_precision(network("resnet8"), precision)
    monkeypatch.setitem(inference.PIXELS, "cpu", 64 * 16 * 16)  # the last batch is smaller than those laid out for
    fast = outputs(model, pixels, np.arange(300)).logits
    monkeypatch.setattr(fusion, "PACK", "_no_such_operator")
    slow = outputs(model, pixels, np.arange(300)).logits
    torch.testing.assert_close(fast, slow, rtol=tolerance, atol=tolerance)


def test_bf16_scores_are_close_and_float32(pixels):
    model = network("resnet8")
    exact, fast = (outputs(in_precision(model, precision), pixels, np.arange(200)) for precision in ("fp32", "bf16"))
    assert fast.logits.dtype == fast.features.dtype == torch.float32
    difference = float((fast.logits - exact.logits).norm() / exact.logits.norm())
    assert 0 < difference < 0.02


def test_without_bf16_in_the_processor_its_operators_are_not_used(pixels, monkeypatch):
    """A processor with AVX2 alone refuses them; PyTorch's own convolutions run everywhere."""
    model, cpu = network("resnet8"), torch.device("cpu")
    exact = outputs(model, pixels, np.arange(50)).logits
    monkeypatch.setattr("torch.ops.mkldnn._is_mkldnn_bf16_supported", lambda: False)
    assert blocks(fused(model, cpu, torch.bfloat16)) == 0
    assert blocks(fused(model, cpu, torch.float32)) == 3
    monkeypatch.setattr(fusion, "FusedBlock", None)
    slow = outputs(in_precision(model, "bf16"), pixels, np.arange(50)).logits
    assert 0 < float((slow - exact).norm() / exact.norm()) < 0.02


def test_no_images_give_empty_outputs(pixels):
    found = outputs(network("resnet8"), pixels, np.empty(0, dtype=np.int64))
    assert found.logits.shape == (0, 5)
    assert found.features.shape == (0, 64)
    assert predictions(network("resnet8"), pixels, np.empty(0, dtype=np.int64)).shape == (0,)
