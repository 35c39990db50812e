"""A run's model in the formats of other programs, each a function ``(run, wanted, output)`` of ``darkit export``."""
