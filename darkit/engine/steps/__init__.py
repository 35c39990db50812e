"""One training step: the adapter, the loss, the optimizer and its schedule."""
