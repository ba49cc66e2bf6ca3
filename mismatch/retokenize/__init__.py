"""What happens to sampled ids that become text or messages, and ids again. Pure functions."""
