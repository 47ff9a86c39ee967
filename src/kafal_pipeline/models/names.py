"""The registered networks."""

from kafal_pipeline.common.registry import Entry

MODELS = {
    "resnet8": Entry("kafal_pipeline.models.resnet8:ResNet8", "8-layer residual network of KAFAL, 77,946 parameters"),
    "cnn4": Entry("kafal_pipeline.models.cnn4:CNN4", "4-layer CNN of LoGo, IFAL and FairFAL, 115,658 parameters"),
    "resnet18": Entry(
        "kafal_pipeline.models.resnet18:ResNet18", "torchvision's ResNet-18, with a stem for small images"
    ),
    "mobilenet_v2": Entry(
        "kafal_pipeline.models.mobilenet_v2:MobileNetV2", "torchvision's MobileNetV2, with a stem for small images"
    ),
}
