"""Queries composed of a score, a quota and a diversity step."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, JsonValue

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.registry import create
from kafal_pipeline.query.base import NOTHING, ScoreQuery, Scores, Selection, by_score, check_scores, chosen
from kafal_pipeline.query.geometry.points import Space
from kafal_pipeline.query.parts.diversity import Best, Candidates, Diversity, Herding, KCentre, KMeans, KMeansPP
from kafal_pipeline.query.parts.quota import QUOTAS, Quota
from kafal_pipeline.query.pool import Arrays, PoolView, QueryModel

DIVERSITIES = {"k_means": KMeans, "k_centre": KCentre, "k_means_pp": KMeansPP, "herding": Herding}


def compose(
    pool: PoolView,
    scores: Scores,
    quota: Quota,
    diversity: Diversity,
    candidates: float,
    budget: int,
    rng: np.random.Generator,
    memory: Arrays = NOTHING,
) -> Selection:
    """Choose in each group, among its ``candidates x quota`` largest scores ``(n,)``, by diversity.

    `candidates`: at least 1, which leaves nothing to the diversity step.
    """
    check_scores(scores, len(pool))
    groups = quota.groups(pool, min(budget, len(pool)))
    order = by_score(scores, rng)
    taken = [np.empty(0, dtype=np.int64)]
    for group in np.flatnonzero(groups.quotas):
        count = int(groups.quotas[group])
        best = order[groups.group[order] == group][: int(np.ceil(candidates * count))]
        among = Candidates(pool, best, scores, count, int(group) if groups.classes else None)
        taken.append(diversity.choose(among, rng))
    return chosen(pool.samples, np.concatenate(taken), scores, memory)


@dataclass(frozen=True)
class Compose:
    """Any score with any quota and any diversity.

    Written ``query: {score: ksas, quota: global_prototypes, diversity: k_centre}``, without a `name`. Options of the
    score stand next to it, as in ``{score: ksas, prior_smoothing: 1}``, or below it, as in ``{score: {name: ksas,
    prior_smoothing: 1}}``.

    - `score`: name of a registered query that is a score, or the dotted path of a `ScoreQuery` of your own.
    - `quota`: ``none``; ``global_prototypes``: the same number of each class of nearest global prototypes;
      ``towards_global_mix``: so that the client's labels come nearer to the proportions of all clients' labels.
    - `diversity`: ``none``; ``k_means``: nearest to the centres; ``k_centre``: greedy, seeded with the client's
      labelled samples (of the same class, under a quota); ``k_means_pp``: D^2 sampling; ``herding``: greedy, most
      added to the coverage of the candidates, weighted by score.
    - `space`, `space_model`: what diversity measures distances of, and the model that says where samples lie.
    - `candidates`: the diversity step chooses among the best ``candidates x quota`` of each group.
    - `weighted`: whether scores weigh samples in ``k_means``; negative ones weigh nothing. In ``herding`` they always
      weigh samples.
    """

    score: str | dict[str, JsonValue] = "entropy"
    quota: Literal["none", "global_prototypes", "towards_global_mix"] = "none"
    diversity: Literal["none", "k_means", "k_centre", "k_means_pp", "herding"] = "none"
    space: Space = "gradients"
    space_model: QueryModel = "global"
    candidates: Annotated[float, Field(ge=1, le=1e6)] = 4.0
    weighted: bool = False

    def __post_init__(self) -> None:
        if self.weighted and self.diversity != "k_means":
            raise UserError(f"query.weighted: is for diversity k_means alone; found diversity {self.diversity!r}.")
        _ = self.score_part  # its mistakes are the user's, and are reported before anything runs

    @cached_property
    def score_part(self) -> ScoreQuery:
        from kafal_pipeline.query.names import QUERIES  # which names this class

        options: Mapping[str, Any] = {"name": self.score} if isinstance(self.score, str) else self.score
        name = options.get("name")
        if not isinstance(name, str):
            raise UserError(f"query.score: found {self.score!r}; it must be a name, or a mapping with the key `name`.")
        part = create("query", name, {key: value for key, value in options.items() if key != "name"}, QUERIES)
        if not isinstance(part, ScoreQuery):
            raise UserError(
                f"query.score: found {name!r}, which is a query but no score. Scores are listed in docs/queries.md."
            )
        return part

    @cached_property
    def quota_part(self) -> Quota:
        return QUOTAS[self.quota]()

    @cached_property
    def diversity_part(self) -> Diversity:
        if self.diversity == "none":
            return Best()
        options = {"weighted": self.weighted} if self.diversity == "k_means" else {}
        return DIVERSITIES[self.diversity](self.space, self.space_model, **options)

    @property
    def summary(self) -> Any:
        """The quota's summary; None if it needs none."""
        return getattr(self.quota_part, "summary", None)

    @property
    def watched_samples(self) -> int:
        return int(getattr(self.score_part, "watched_samples", 0))

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        scores = self.score_part.scores(pool, rng)
        return compose(pool, scores, self.quota_part, self.diversity_part, self.candidates, budget, rng)
