"""Prediction of text: generating, masked tokens, sequence to sequence."""
