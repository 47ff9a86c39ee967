"""FedProx: FedAvg with a penalty on the distance from the global model."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from kafal_pipeline.update.base import Correction, State
from kafal_pipeline.update.fedavg import FedAvg


@dataclass(frozen=True)
class FedProx(FedAvg):
    """FedAvg with ``mu / 2 |w - w_broadcast|^2`` added to the client's loss.

    The term enters as its gradient, ``mu (w - w_broadcast)``: exact, cheaper than a second backward, and the reported
    loss stays comparable with that of other updates. Batch norms that stay local (FedBN) are pulled to no one else's: a
    client's own are held near what they were when its round began.

    `mu`: strength of the pull; published values are 0.001 to 1. Where lr times mu is above 2, steps overshoot.

    Source: Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, eq. 2.
    """

    mu: Annotated[float, Field(ge=0, le=10)] = 0.01

    def correction(self, client: State, server: State) -> Correction:
        return Correction(pull=self.mu)
