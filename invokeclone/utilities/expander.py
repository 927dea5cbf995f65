"""The process that expands dynamic prompts: a hostile prompt can take unlimited time or memory.

`python -m invokeclone.utilities.expander` reads a JSON request per line and answers each with a line; it exits after
some idle time, or with its parent. It limits its own memory; the caller limits the time by killing it.
"""

import json
import logging
import select
import sys
from random import Random
from typing import Any

from invokeclone.kit.process.processes import end_with_parent

MEMORY = 1 << 30
IDLE_S = 120.0
MAX_CHARACTERS = 20_000_000
MAX_RECURSION = 2_000


class OutputTooLong(Exception):
    """The prompts are longer in total than allowed."""


def expand(prompt: str, max_prompts: int, seed: int | None, *, combinatorial: bool) -> dict[str, Any]:
    """Return `prompts` and `error`; after an error the only prompt is the input itself."""
    try:
        return {"prompts": _expand(prompt, max_prompts, seed, combinatorial=combinatorial) or [""], "error": None}
    except (MemoryError, RecursionError):
        return {"prompts": [prompt], "error": "The dynamic prompt is nested too deeply or expands to too much text"}
    except Exception as error:  # noqa: BLE001  (the library's parser and samplers raise many types)
        return {"prompts": [prompt], "error": str(error) or type(error).__name__}


def _expand(prompt: str, max_prompts: int, seed: int | None, *, combinatorial: bool) -> list[str]:
    from dynamicprompts.enums import SamplingMethod
    from dynamicprompts.sampling_context import SamplingContext
    from dynamicprompts.wildcards import WildcardManager

    method = SamplingMethod.COMBINATORIAL if combinatorial else SamplingMethod.RANDOM
    context = SamplingContext(method, WildcardManager(), rand=Random(seed))
    prompts, characters = [], 0
    for sample in context.sample_prompts(prompt, max_prompts):
        prompts.append(str(sample))
        characters += len(prompts[-1])
        if characters > MAX_CHARACTERS:
            raise OutputTooLong(f"The prompts have more than {MAX_CHARACTERS} characters")
    return prompts


def _bound_memory() -> None:
    try:
        import resource
    except ImportError:  # not available on this system
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def main() -> None:
    """Answer requests line by line."""
    end_with_parent()
    _bound_memory()
    logging.disable()
    sys.setrecursionlimit(MAX_RECURSION)
    while select.select([sys.stdin], [], [], IDLE_S)[0]:
        line = sys.stdin.readline()
        if not line:
            return
        answer = expand(**json.loads(line))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
