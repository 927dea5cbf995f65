"""Dynamic prompts as a service: one process of its own expands them, and is replaced when it takes too long."""

import asyncio
import contextlib
import json
import sys

import orjson

from invokeclone.utilities.schemas import DynamicPromptsResponse

COMMAND = (sys.executable, "-m", "invokeclone.utilities.expander")
PATIENCE_S = 10.0
LONGEST_ANSWER = 256 * 1024 * 1024


class DynamicPrompts:
    """The process, started when first needed and again whenever it has ended. All methods belong on the event loop."""

    def __init__(self, patience: float = PATIENCE_S) -> None:
        """Allow `patience` seconds for each request."""
        self._patience = patience
        self._process: asyncio.subprocess.Process | None = None
        self._one_at_a_time = asyncio.Lock()

    async def expand(
        self, prompt: str, max_prompts: int, seed: int | None, *, combinatorial: bool
    ) -> DynamicPromptsResponse:
        """Return the prompts that a pattern makes; where that fails, the pattern itself and why."""
        request = {"prompt": prompt, "max_prompts": max_prompts, "seed": seed, "combinatorial": combinatorial}
        prompt.encode()  # raises for what is no Unicode
        line = json.dumps(request).encode() + b"\n"
        async with self._one_at_a_time:
            for _try in range(2):  # the process may have ended of idleness just now
                try:
                    answer = await asyncio.wait_for(self._ask(line), self._patience)
                except TimeoutError:
                    await self._end()
                    return DynamicPromptsResponse(prompts=[prompt], error="The pattern takes too long to expand")
                except BaseException:
                    await self._end()
                    raise
                if answer:
                    return DynamicPromptsResponse.model_validate(await asyncio.to_thread(orjson.loads, answer))
                await self._end()
        return DynamicPromptsResponse(prompts=[prompt], error="The pattern needs too much memory")

    async def close(self) -> None:
        """End the process."""
        async with self._one_at_a_time:
            await self._end()

    async def _ask(self, line: bytes) -> bytes:
        """Send a line and return the answer; empty when the process ended instead."""
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *COMMAND,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                limit=LONGEST_ANSWER,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(line)
            await self._process.stdin.drain()
        return await self._process.stdout.readline()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        # communicate() closes the pipes, so that no transport is left behind
        await asyncio.shield(process.communicate())
