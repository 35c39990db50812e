"""Prediction and evaluation with the model of a run, found by its name."""
