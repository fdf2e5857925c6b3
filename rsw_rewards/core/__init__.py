"""The contracts: records, scores, verifiers, metrics, rubrics, rewards."""
