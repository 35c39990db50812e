"""The data of a training: loaders, their order and position, and whether they fit the model."""
