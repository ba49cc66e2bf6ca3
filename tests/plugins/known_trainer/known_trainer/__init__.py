"""A trainer of one's own: nothing of mismatch and nothing of transformers is imported."""
