"""Trainings by Lightning's own loop: the run of a LightningModule, in `darkit.fit` and in a stock trainer."""
