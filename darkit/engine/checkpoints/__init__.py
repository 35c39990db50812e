"""Checkpoints: copying the state, writing it, reading and restoring it."""
