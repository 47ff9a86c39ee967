"""The registered queries."""

from kafal_pipeline.common.registry import Entry

_HERE = "kafal_pipeline.query"

QUERIES = {
    "random": Entry(f"{_HERE}.random:Random", "uniformly at random"),
    "entropy": Entry(f"{_HERE}.entropy:Entropy", "largest predictive entropy"),
    "margin": Entry(f"{_HERE}.margin:Margin", "smallest margin between the two likeliest classes"),
    "least_confidence": Entry(
        f"{_HERE}.least_confidence:LeastConfidence", "smallest probability of the predicted class"
    ),
    "bald": Entry(
        f"{_HERE}.bald:BALD", "largest mutual information of label and parameters, by dropout on the features"
    ),
    "egl": Entry(f"{_HERE}.egl:EGL", "largest expected gradient length of the last layer"),
    "coreset": Entry(f"{_HERE}.coreset:Coreset", "greedy k-centre in feature space, from the labelled samples on"),
    "badge": Entry(f"{_HERE}.badge:BADGE", "k-means++ on gradient embeddings"),
    "cluster_margin": Entry(
        f"{_HERE}.cluster_margin:ClusterMargin", "small margins, spread over weighted k-means clusters"
    ),
    "alfa_mix": Entry(f"{_HERE}.alfa_mix:ALFAMix", "predictions that flip when features are mixed; then k-means"),
    "qbc": Entry(f"{_HERE}.qbc:QBC", "largest disagreement of a committee of models"),
    "logo": Entry(f"{_HERE}.logo:LoGo", "largest entropy of the global model in each cluster of a local_only model"),
    "ifal": Entry(f"{_HERE}.ifal:IFAL", "samples whose neighbours' votes differ between three models; then k-means"),
    "fairfal": Entry(
        f"{_HERE}.fairfal:FairFAL", "entropy of the better suited model, equal over global-prototype classes, k-centre"
    ),
    "feal": Entry(f"{_HERE}.feal:FEAL", "evidential uncertainty of local and global model, skipping near copies"),
    "chase": Entry(f"{_HERE}.chase:CHASe", "predictions that changed most often while the client trained"),
    "ahfal": Entry(f"{_HERE}.ahfal:AHFAL", "entropy, under quotas that move the class mix towards that of all clients"),
    "typiclust": Entry(
        f"{_HERE}.typiclust:TypiClust", "most typical sample of each cluster without labels; for low budgets"
    ),
    "probcover": Entry(f"{_HERE}.probcover:ProbCover", "samples with most uncovered samples nearby; for low budgets"),
    "ksas": Entry(f"{_HERE}.ksas:KSAS", "largest prior-weighted discrepancy of local and global model"),
    "ksas_paper": Entry(
        f"{_HERE}.ksas:KSAS",
        "ksas against the global model that each client last downloaded",
        {"global_model": "downloaded"},
    ),
    "rank_sum": Entry(f"{_HERE}.rank_sum:RankSum", "ksas with smoothed counts and global entropy, by rank"),
    "coverage": Entry(f"{_HERE}.coverage:Coverage", "rank_sum, equal over global-prototype classes, k-centre"),
    "compose": Entry(f"{_HERE}.compose:Compose", "any score with any quota and any diversity", {"score": "entropy"}),
}
