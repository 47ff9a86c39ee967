"""Tasks for worker processes and their results; made of arrays, so that they can be sent between processes."""

from dataclasses import dataclass, field

from kafal_pipeline.federation.site import Site
from kafal_pipeline.models.state import Arrays


@dataclass(frozen=True)
class Broadcast:
    """What the server sends to the participants of a round: the global model, and what the update has on the server."""

    cycle: int
    round: int
    model: Arrays
    server: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class TrainTask:
    """Local training of one client in one round; its site has `model` where the update wants the previous one."""

    site: Site
    broadcast: Broadcast


@dataclass(frozen=True)
class TrainResult:
    """A client's site after its training, and what it sends and says of itself.

    `travel`, `parameters` and `message` are those of `kafal_pipeline.update.base.ClientUpdate`; `loss` is the mean.
    """

    site: Site
    loss: float
    steps: int
    seconds: float
    travel: float
    parameters: frozenset[str]
    message: Arrays

    @property
    def model(self) -> Arrays:
        """The trained model."""
        assert self.site.model is not None
        return self.site.model


@dataclass(frozen=True)
class PredictTask:
    """Predictions of one model for test images ``start .. stop``."""

    state: Arrays
    start: int
    stop: int
