"""Means and metrics: how much each batch counts."""
