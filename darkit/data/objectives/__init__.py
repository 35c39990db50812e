"""Training objectives, one for each `data=` choice."""
