"""Points in feature space: k-means, k-means++, k-centre."""
