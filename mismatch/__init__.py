"""mismatch: how far a trainer and a rollout engine disagree on the same tokens."""

__version__ = "0.1.0"
