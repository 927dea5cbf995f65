"""Entry point `python -m invokeclone.worker --device cpu`, run by the server only; stdin and stdout are the link."""

import argparse
import os
import signal

from invokeclone.kit.process.processes import end_with_parent


def main() -> None:
    """Run a worker. Exits with `os._exit`, so that a blocked node thread cannot keep the process alive."""
    end_with_parent()
    parser = argparse.ArgumentParser(prog="invokeclone.worker", description=__doc__)
    parser.add_argument("--device", required=True, help="cpu, mps, cuda:N, xpu:N, or auto (the first available device)")
    device = parser.parse_args().device
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl+C the server stops its workers
    # Let torch's threads spin only microseconds before they sleep: fast on idle cores, without blocking busy ones.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    incoming, outgoing = take_pipes()
    from invokeclone.worker.process import serve  # import only after the pipes are taken

    serve(device, incoming, outgoing)
    os._exit(0)


def take_pipes() -> tuple[int, int]:
    """Return duplicates of stdin and stdout for the link; redirect stdin to /dev/null and stdout to stderr.

    Called before other imports, so that no library can print into the link.
    """
    incoming, outgoing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return incoming, outgoing


if __name__ == "__main__":
    main()
