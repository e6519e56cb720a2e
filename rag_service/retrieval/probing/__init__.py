"""Whether answers are still what they were: probes, the drift of scores, the fingerprint of the embedding model."""
