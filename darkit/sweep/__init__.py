"""Sweeps: many runs over a space of settings, sampled, pruned, survived and compared."""
