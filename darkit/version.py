"""The version of darkit."""

__version__ = "0.1.0"
