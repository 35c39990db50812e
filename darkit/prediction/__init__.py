"""Prediction: from the name of a run to an answer."""
