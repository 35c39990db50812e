"""All benchmarks: ``make bench`` or ``make bench ARGS="steps checkpoints"``. Prints tables as Markdown.

``make bench ARGS="dashboard --only million table --seconds 20 --minutes 2"`` is a part, or shorter.

Contenders run in turn, each in a process of its own, several rounds; what counts is the median, and ratios more than
times, since they hold on other machines.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).parent
ROUNDS = 5
CHECKPOINT_ROUNDS = 3
SPIKING_STEPS = "400"
GENERATION_ROUNDS = 3


def measure(script: str, contenders: list[str], *arguments: str, rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Run contenders in turn and collect the number that each prints last."""
    found: dict[str, list[float]] = {contender: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            found[contender].append(float(answer_of(script, contender, *arguments)))
    return found


def answer_of(script: str, *arguments: str) -> str:
    """Run a script and return the last line that it prints; stop all when it fails."""
    command = [sys.executable, str(FOLDER / script), *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{answer.stderr[-4000:]}")
    return answer.stdout.splitlines()[-1]


def table(title: str, found: dict[str, list[float]], unit: str, base: str, digits: int = 0) -> None:
    """Print medians, their spread and their ratio to one contender."""
    middle = statistics.median(found[base]) or float("nan")
    print(f"\n### {title}\n\n| contender | {unit}, median | range | against {base} |\n| --- | ---: | ---: | ---: |")
    for contender, values in found.items():
        median, low, high = statistics.median(values), min(values), max(values)
        print(f"| {contender} | {median:.{digits}f} | {low:.{digits}f}-{high:.{digits}f} | {median / middle:.2f}x |")


def steps() -> None:
    """The cost of a step."""
    tiny = measure(
        "steps.py",
        ["plain", "lightning_barebones", "darkit_full", "darkit_module", "hugging_face", "lightning_full"],
        "tiny",
    )
    table("A tiny model (12-12-12, batch 4, Adam, one thread)", tiny, "us per step", "lightning_barebones")
    table("The same against a plain loop", tiny, "us per step", "plain")
    slow = measure("steps.py", ["plain", "darkit_full"], "slow")
    table("A model of 10 ms a step", slow, "us per step", "plain")


def loop() -> None:
    """The cost of `run.log` in a hand-written loop."""
    contenders = ["floats", "floats_and_ints", "cpu_tensor", "second_call_of_a_step"]
    table("run.log on the training thread", measure("loop.py", contenders), "us per call", "floats", digits=2)


def checkpoints() -> None:
    """The cost of a checkpoint of 600 MB."""
    contenders = ["bare_clone", "plain_save", "lightning_stock", "lightning_async", "darkit"]
    rows: dict[str, list[dict[str, float]]] = {contender: [] for contender in contenders}
    for _ in range(CHECKPOINT_ROUNDS):
        for contender in contenders:
            rows[contender].append(json.loads(answer_of("checkpoints.py", contender)))
    for column, unit in (("stall", "ms"), ("first", "ms"), ("durable", "s"), ("memory", "x the state")):
        found = {contender: [row[column] for row in measured] for contender, measured in rows.items()}
        base = "plain_save" if column == "durable" else "bare_clone"
        table(f"Checkpoint: {column}", found, unit, base, digits=2)


def fsdp() -> None:
    """The cost of a checkpoint in two processes that each hold a part of the model, or all of it."""
    rows = {name: json.loads(answer_of("fsdp.py", name)) for name in ("ddp", "fsdp")}
    for column, unit in (("memory", "MB more in one process"), ("stall", "ms"), ("durable", "s")):
        found = {name: [row[column]] for name, row in rows.items()}
        table(f"Two processes, a state of {rows['ddp']['state']:.0f} MB: {column}", found, unit, "ddp", digits=1)


def generation() -> None:
    """The speed of generating text."""
    contenders = ["darkit", "transformers", "transformers_loop", "darkit_transformers"]
    for size in ("small", "medium"):
        found = measure("generation.py", contenders, size, rounds=GENERATION_ROUNDS)
        table(f"A {size} model, one thread, with its cache", found, "tokens per second", "transformers")


def preparation() -> None:
    """The speed of making text ready."""
    found = measure("preparation.py", ["prepare", "encode_batch"])
    table("28 million characters, a vocabulary of 8,192", found, "million characters per second", "encode_batch", 2)


def collectives() -> None:
    """Messages between two processes."""
    rows = ["ddp", "lightning", "lightning_averaged", "darkit", "darkit_further"]
    found = measure("collectives.py", rows, rounds=1)
    table("Two processes, one batch a step", found, "messages per step", "ddp", digits=2)
    found = measure("collectives.py", ["ddp_4", "darkit_4"], rounds=1)
    table("Two processes, four batches a step", found, "messages per step", "ddp_4", digits=2)


def spiking() -> None:
    """A spiking language model beside the GPT of equal parameters, after equal steps."""
    rows = {model: json.loads(answer_of("spiking.py", model, SPIKING_STEPS)) for model in ("gpt", "spikegpt")}
    for column, unit in (("val_loss", "nats per token"), ("speed", "tokens per second")):
        table(f"{SPIKING_STEPS} steps: {column}", {name: [row[column]] for name, row in rows.items()}, unit, "gpt", 2)


def dashboard(*options: str) -> None:
    """The dashboard beside TensorBoard, in a real browser."""
    subprocess.run([sys.executable, str(FOLDER / "dashboard.py"), *options], check=True)


def many_runs(*options: str) -> None:
    """The list of ten thousand runs, and the dashboard's table of them."""
    subprocess.run([sys.executable, str(FOLDER / "many_runs.py"), *options], check=True)


SUITES: dict[str, Callable[..., None]] = {
    "steps": steps,
    "loop": loop,
    "checkpoints": checkpoints,
    "fsdp": fsdp,
    "generation": generation,
    "preparation": preparation,
    "collectives": collectives,
    "spiking": spiking,
    "dashboard": dashboard,
    "many_runs": many_runs,
}


def main(words: list[str]) -> int:
    """Run the suites of these names, or all; what follows from the first ``--`` on is for those that take it."""
    cut = next((place for place, word in enumerate(words) if word.startswith("--")), len(words))
    names, options = words[:cut], words[cut:]
    unknown = [name for name in names if name not in SUITES]
    if unknown:
        print(f"Unknown benchmark {unknown[0]!r}. Available: {', '.join(SUITES)}.", file=sys.stderr)
        return 2
    print(
        f"{platform.machine()}, {platform.platform()}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"
    )
    for name in names or SUITES:
        print(f"\n## {name}", flush=True)
        SUITES[name](*(options if name in ("dashboard", "many_runs") else ()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
