"""The registered updates."""

from typing import Any

from kafal_pipeline.common.registry import Entry

_ENTRIES: dict[str, tuple[Any, ...]] = {
    "fedavg": ("fedavg:FedAvg", "cross-entropy, models averaged by number of labels"),
    "fedprox": ("fedprox:FedProx", "fedavg with a pull towards the broadcast model"),
    "scaffold": ("scaffold:Scaffold", "fedavg with gradients corrected by control variates"),
    "fednova": ("fednova:FedNova", "fedavg of changes divided by the number of steps behind them"),
    "ridge": ("ridge:Ridge", "the head in closed form from sums over all labelled images, in one round"),
    "chase_alignment": ("chase:ChaseAlignment", "fedavg with CHASe's alignment to the global model"),
    "kcfu": ("kcfu:KCFU", "balanced softmax and compensatory distillation, as in the published code"),
    "kcfu_paper": (
        "kcfu:KCFU",
        "the same as in Algorithm 1 of the paper",
        {
            "partner": "permutation",
            "weigh_by": "original",
            "teacher_bn": "running",
            "unlabelled_pool": "current",
            "class_reduction": "sum",
        },
    ),
    "kcfu_balanced": ("kcfu:KCFU", "the balanced softmax alone", {"compensatory": False}),
    "kcfu_compensatory": ("kcfu:KCFU", "plain cross-entropy and the compensatory distillation", {"balanced": False}),
}
UPDATES = {name: Entry(f"kafal_pipeline.update.{target}", *rest) for name, (target, *rest) in _ENTRIES.items()}
