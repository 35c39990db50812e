"""Answers to prompts, from ``darkit predict`` in its own process: the server needs no torch."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from darkit.errors import ConfigError
from darkit.runs.checkpoints import Checkpoint
from darkit.runs.child import environment, python_module

LONGEST_PROMPT = 20_000  # characters
LONGEST_ANSWER = 200_000  # characters
PATIENCE = 300.0  # seconds
_AT_ONCE = 2


class Prompts:
    """Run models on prompts, a few at a time, since each takes a process and the memory of a model."""

    def __init__(self) -> None:
        self._running = 0

    def check(self, prompt: object, tokens: object, temperature: object) -> tuple[str, int, float]:
        """Check a request of a page. Raises `ConfigError`."""
        if not isinstance(prompt, str) or not prompt or len(prompt) > LONGEST_PROMPT:
            raise ConfigError(f"A prompt must be a string of 1 to {LONGEST_PROMPT} characters.")
        if isinstance(tokens, bool) or not isinstance(tokens, int) or not 1 <= tokens <= 2000:
            raise ConfigError("The number of tokens must be from 1 to 2000.")
        if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature <= 10:
            raise ConfigError("The temperature must be from 0 to 10.")
        if self._running >= _AT_ONCE:
            raise ConfigError(f"{_AT_ONCE} prompts are already running. Wait until one is done.")
        return prompt, tokens, float(temperature)

    async def answer(
        self, folder: Path, checkpoint: Checkpoint | None, prompt: str, tokens: int, temperature: float
    ) -> AsyncIterator[bytes]:
        """Stream the output of the model in UTF-8. Closing the generator kills the process.

        The run's folder must have been checked; its home is two levels above. No checkpoint means the latest one.
        """
        reference = f"{folder.name}:{checkpoint.name}" if checkpoint is not None else folder.name
        limits = ("--max-new-tokens", str(tokens), "--temperature", str(temperature))
        command = python_module("darkit", "predict", *limits, "--", reference, "-")
        self._running += 1
        process = None
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment({"DARWIN_KIT_HOME": str(folder.parents[1]), "PYTHONUNBUFFERED": "1"}),
            )
            async for piece in _talk(process, prompt):
                yield piece
        finally:
            self._running -= 1
            if process is not None and process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()


async def _talk(process: asyncio.subprocess.Process, prompt: str) -> AsyncIterator[bytes]:
    assert process.stdin is not None  # noqa: S101 - the three are pipes by the call above
    assert process.stdout is not None  # noqa: S101
    assert process.stderr is not None  # noqa: S101
    errors = asyncio.create_task(process.stderr.read())
    with suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(prompt.encode("utf-8", "replace"))
        await process.stdin.drain()
    process.stdin.close()
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    length = 0
    try:
        async with asyncio.timeout(PATIENCE):
            while piece := await process.stdout.read(4096):
                text = decoder.decode(piece)
                length += len(text)
                yield text.encode()
                if length > LONGEST_ANSWER:
                    return
            await process.wait()
    except TimeoutError:
        yield f"\n[no answer within {PATIENCE:.0f} seconds]".encode()
        return
    if process.returncode:
        lines = (await errors).decode("utf-8", "replace").strip().splitlines()
        sentence = next(
            (line for line in lines if line.startswith("Error")), lines[-1] if lines else "The model gave no answer."
        )
        yield f"\n[{sentence}]".encode()
