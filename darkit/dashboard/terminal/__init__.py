"""The runs in a terminal: ``darkit top``."""
