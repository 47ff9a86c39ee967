"""The registered networks."""

from kafal_pipeline.common.registry import Entry

_ENTRIES = {
    "resnet8": ("resnet8:ResNet8", "8-layer residual network of KAFAL, 77,946 parameters"),
    "cnn4": ("cnn4:CNN4", "4-layer CNN of LoGo, IFAL and FairFAL, 115,658 parameters"),
    "resnet18": ("resnet18:ResNet18", "torchvision's ResNet-18, with a stem for small images"),
    "mobilenet_v2": ("mobilenet_v2:MobileNetV2", "torchvision's MobileNetV2, with a stem for small images"),
    "linear": ("flat:Linear", "one linear layer, for features"),
    "mlp": ("flat:MLP", "one hidden layer, for features"),
}
MODELS = {name: Entry(f"kafal_pipeline.models.{target}", summary) for name, (target, summary) in _ENTRIES.items()}
