"""The registered queries."""

from typing import Any

from kafal_pipeline.common.registry import Entry

_ENTRIES: dict[str, tuple[Any, ...]] = {
    "random": ("random:Random", "uniformly at random"),
    "entropy": ("entropy:Entropy", "largest predictive entropy"),
    "margin": ("margin:Margin", "smallest margin between the two likeliest classes"),
    "least_confidence": ("least_confidence:LeastConfidence", "smallest probability of the predicted class"),
    "bald": ("bald:BALD", "largest mutual information of label and parameters, by dropout on the features"),
    "egl": ("egl:EGL", "largest expected gradient length of the last layer"),
    "coreset": ("coreset:Coreset", "greedy k-centre in feature space, from the labelled samples on"),
    "badge": ("badge:BADGE", "k-means++ on gradient embeddings"),
    "cluster_margin": ("cluster_margin:ClusterMargin", "small margins, spread over weighted k-means clusters"),
    "alfa_mix": ("alfa_mix:ALFAMix", "predictions that flip when features are mixed; then k-means"),
    "qbc": ("qbc:QBC", "largest disagreement of a committee of models"),
    "logo": ("logo:LoGo", "largest entropy of the global model in each cluster of a local_only model"),
    "ifal": ("ifal:IFAL", "samples whose neighbours' votes differ between three models; then k-means"),
    "fairfal": ("fairfal:FairFAL", "entropy of the better suited model, equal over global-prototype classes, k-centre"),
    "feal": ("feal:FEAL", "evidential uncertainty of local and global model, skipping near copies"),
    "chase": ("chase:CHASe", "predictions that changed most often while the client trained"),
    "ahfal": ("ahfal:AHFAL", "entropy, under quotas that move the class mix towards that of all clients"),
    "typiclust": ("typiclust:TypiClust", "most typical sample of each cluster without labels; for low budgets"),
    "probcover": ("probcover:ProbCover", "samples with most uncovered samples nearby; for low budgets"),
    "max_herding": ("max_herding:MaxHerding", "samples that add most to a smooth coverage; for low budgets"),
    "uherding": ("uherding:UHerding", "samples that add most to the coverage of uncertain ones; for all budgets"),
    "dropquery": ("dropquery:DropQuery", "predictions that change when features are dropped; then k-means"),
    "leverage": ("leverage:Leverage", "directions of the feature space that no client has labels of"),
    "tm_fal": ("tm_fal:TMFAL", "features that differ most between models, equal over predicted classes"),
    "ksas": ("ksas:KSAS", "largest prior-weighted discrepancy of local and global model"),
    "ksas_paper": (
        "ksas:KSAS",
        "ksas against the global model that each client last downloaded",
        {"global_model": "downloaded"},
    ),
    "rank_sum": ("rank_sum:RankSum", "ksas with smoothed counts and global entropy, by rank"),
    "coverage": ("coverage:Coverage", "rank_sum, equal over global-prototype classes, k-centre"),
    "compose": ("compose:Compose", "any score with any quota and any diversity", {"score": "entropy"}),
}
QUERIES = {name: Entry(f"kafal_pipeline.query.{target}", *rest) for name, (target, *rest) in _ENTRIES.items()}
