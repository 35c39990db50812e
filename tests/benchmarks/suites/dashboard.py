"""The dashboard beside TensorBoard, in a real browser."""

from frame import Suite

SUITE = Suite(program="dashboard.py", short=("--seconds", "10", "--minutes", "0.5", "--without", "table"))
