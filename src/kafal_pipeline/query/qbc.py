"""Query by committee."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.query.base import ScoreQuery, Scores
from kafal_pipeline.query.parts.disagreement import mutual_information
from kafal_pipeline.query.pool import PoolView, QueryModel


@dataclass(frozen=True)
class QBC(ScoreQuery):
    """Largest disagreement of a committee: the mean KL divergence of its members' predictions to their mean.

    The published committees are models drawn at random; here the federation has them already.

    Source: Seung, Opper and Sompolinsky, COLT 1992; the measure is that of McCallum and Nigam, ICML 1998.
    """

    committee: Annotated[tuple[QueryModel, ...], Field(min_length=2)] = ("global", "local")

    def __post_init__(self) -> None:
        if len(set(self.committee)) < len(self.committee):
            raise UserError(f"query.committee: found {', '.join(self.committee)}; a member may be listed only once.")

    def scores(self, pool: PoolView, rng: np.random.Generator) -> Scores:
        return mutual_information(pool.log_probabilities(model) for model in self.committee).cpu().numpy()
