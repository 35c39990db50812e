"""One suite of benchmarks, one file: its tables and goals as data."""

ORDER = (
    "steps",
    "checkpoints",
    "gpt",
    "windows",
    "generation",
    "spiking",
    "start",
    "loop",
    "fsdp",
    "preparation",
    "collectives",
    "dashboard",
    "many_runs",
)
