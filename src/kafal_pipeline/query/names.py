"""The registered queries."""

from kafal_pipeline.registry import Entry

QUERIES = {
    "random": Entry("kafal_pipeline.query.random:Random", "uniformly at random"),
    "entropy": Entry("kafal_pipeline.query.entropy:Entropy", "largest predictive entropy"),
    "ksas": Entry("kafal_pipeline.query.ksas:KSAS", "largest prior-weighted discrepancy of local and global model"),
    "ksas_paper": Entry(
        "kafal_pipeline.query.ksas:KSAS",
        "ksas against the global model that each client last downloaded",
        {"global_model": "downloaded"},
    ),
}
