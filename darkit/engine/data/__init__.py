"""Training data: loaders, their order and position, and checks that data and model fit."""
