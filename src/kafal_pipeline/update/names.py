"""The registered updates."""

from kafal_pipeline.common.registry import Entry

KCFU = "kafal_pipeline.update.kcfu:KCFU"

UPDATES = {
    "fedavg": Entry("kafal_pipeline.update.fedavg:FedAvg", "cross-entropy, models averaged by number of labels"),
    "fedprox": Entry("kafal_pipeline.update.fedprox:FedProx", "fedavg with a pull towards the broadcast model"),
    "scaffold": Entry("kafal_pipeline.update.scaffold:Scaffold", "fedavg with gradients corrected by control variates"),
    "fednova": Entry(
        "kafal_pipeline.update.fednova:FedNova", "fedavg of changes divided by the number of steps behind them"
    ),
    "chase_alignment": Entry(
        "kafal_pipeline.update.chase:ChaseAlignment", "fedavg with CHASe's alignment to the global model"
    ),
    "kcfu": Entry(KCFU, "balanced softmax and compensatory distillation, as in the published code"),
    "kcfu_paper": Entry(
        KCFU,
        "the same as in Algorithm 1 of the paper",
        {
            "partner": "permutation",
            "weigh_by": "original",
            "teacher_bn": "running",
            "unlabelled_pool": "current",
            "class_reduction": "sum",
        },
    ),
    "kcfu_balanced": Entry(KCFU, "the balanced softmax alone", {"compensatory": False}),
    "kcfu_compensatory": Entry(KCFU, "plain cross-entropy and the compensatory distillation", {"balanced": False}),
}
