"""The commands. Those that only read runs never import torch."""
