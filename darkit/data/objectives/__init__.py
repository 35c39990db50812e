"""Objectives: what a model learns from a sample, one for each `data=` choice."""
