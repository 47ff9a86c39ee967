"""The registered networks."""

from kafal_pipeline.registry import Entry

MODELS = {
    "resnet8": Entry("kafal_pipeline.models.resnet8:ResNet8", "8-layer residual network of KAFAL, 77,946 parameters"),
}
