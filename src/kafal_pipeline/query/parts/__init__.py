"""The parts of a composed query besides its score: quotas over groups of samples, and diversity within a group."""
