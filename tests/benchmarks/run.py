"""All benchmarks: ``make bench`` or ``make bench ARGS="steps checkpoints"``. Prints tables as Markdown.

``make bench ARGS=quick`` prints only the table of goals, after fewer and shorter turns; ``ARGS="quick steps"`` a part
of it.
``make bench ARGS="dashboard --only million table --seconds 20 --minutes 2"`` passes options on.

Contenders run in turn, each in a process of its own, several rounds; what counts is the median, and ratios more than
times, since they hold on other machines.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import time

from frame import FOLDER, GOALS_HEAD, Suite, Turns, goal_line, suites, table_lines

QUICK = "quick"


def main(words: list[str]) -> int:
    """Run the suites of these names, or all; what follows from the first ``--`` on is for those that take it.

    Returns:
        The exit code: 0, 1 when a benchmark failed, or 2 when a name is unknown.
    """
    cut = next((place for place, word in enumerate(words) if word.startswith("--")), len(words))
    names, options = [word for word in words[:cut] if word != QUICK], words[cut:]
    quick = QUICK in words[:cut]
    known = suites()
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"Unknown benchmark {unknown[0]!r}. Available: {', '.join(known)}, {QUICK}.", file=sys.stderr)
        return 2
    print(f"{platform.machine()}, {platform.platform()}, Python {platform.python_version()}, {time.strftime('%F')}")
    begin, turns = time.monotonic(), Turns()
    lines, spent, programs_failed = [], [], 0
    for name, suite in known.items():
        if names and name not in names:
            continue
        started = time.monotonic()
        if suite.program is None:
            lines += _measure(name, suite, turns, quick=quick)
        elif not quick:
            programs_failed += _run_program(name, suite.program, options or ([] if names else list(suite.short)))
        spent.append(f"{name} {time.monotonic() - started:.0f}")
    if lines:
        print("\n## Goals\n")
        print(GOALS_HEAD)
        print("\n".join(lines))
    print(f"\nMinutes: {(time.monotonic() - begin) / 60:.1f}; seconds: {', '.join(spent)}")
    return 1 if turns.failed or programs_failed else 0


def _measure(name: str, suite: Suite, turns: Turns, *, quick: bool) -> list[str]:
    """Run a suite, print its tables and return its rows of the table of goals."""
    rounds, least, seconds = (
        (suite.quick_rounds, 1, suite.quick_seconds) if quick else (suite.rounds, suite.least, suite.seconds)
    )
    answers = turns.take(suite.commands(quick=quick), rounds, least, seconds, suite.once(quick=quick))
    if not quick:
        print(f"\n## {name}", flush=True)
        for table in suite.tables:
            print("\n" + "\n".join(table_lines(table, answers)), flush=True)
    goals = [goal for goal in suite.goals if goal.in_quick or not quick]
    return [goal_line(goal, goal.results(answers, quick=quick)) for goal in goals]


def _run_program(name: str, program: str, options: list[str]) -> int:
    """Run a script that prints a table of its own, and return its exit code."""
    print(f"\n## {name}\n", flush=True)
    return subprocess.run([sys.executable, str(FOLDER / program), *options], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
