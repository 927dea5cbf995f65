"""Dynamic prompt expansion in a child process, which is replaced when a request takes too long."""

import json
import sys

import orjson

from invokeclone.kit.process.child_process import ChildEnded, LineServer, LineTooLong
from invokeclone.kit.process.offload import in_thread
from invokeclone.utilities.schemas import DynamicPromptsResponse

COMMAND = (sys.executable, "-m", "invokeclone.utilities.expander")
TIMEOUT_S = 10.0
LONGEST_ANSWER = 256 * 1024 * 1024


class PromptExpander:
    """The process, started on first use and restarted when it has ended. Call all methods on the event loop."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        """Set the seconds allowed for each request."""
        self._process = LineServer(COMMAND, timeout_s=timeout_s, line_limit=LONGEST_ANSWER)

    async def expand(
        self, prompt: str, max_prompts: int, seed: int | None, *, combinatorial: bool
    ) -> DynamicPromptsResponse:
        """Return the expanded prompts; on failure the input itself and the error."""
        request = {"prompt": prompt, "max_prompts": max_prompts, "seed": seed, "combinatorial": combinatorial}
        prompt.encode()  # raises UnicodeEncodeError for lone surrogates
        try:
            answer = await self._process.ask(json.dumps(request).encode() + b"\n")
        except TimeoutError:
            return DynamicPromptsResponse(prompts=[prompt], error="The dynamic prompt takes too long to expand")
        except (ChildEnded, LineTooLong):
            return DynamicPromptsResponse(prompts=[prompt], error="The dynamic prompt needs too much memory")
        return DynamicPromptsResponse.model_validate(await in_thread(orjson.loads, answer))

    async def close(self) -> None:
        """End the process."""
        await self._process.close()
