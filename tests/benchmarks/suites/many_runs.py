"""The list of many runs, and the dashboard's table of them."""

from frame import Suite

SUITE = Suite(program="many_runs.py", short=("--runs", "2000", "--idle", "10"))
