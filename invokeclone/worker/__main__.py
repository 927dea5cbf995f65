"""`python -m invokeclone.worker --device cpu`: started by the server, never by hand; stdin and stdout are the link."""

import argparse
import os
import signal

from invokeclone.kit.process.processes import end_with_parent


def main() -> None:
    """Become a worker. Ends by `os._exit`: a stuck node thread must not keep the process."""
    end_with_parent()
    parser = argparse.ArgumentParser(prog="invokeclone.worker", description=__doc__)
    parser.add_argument("--device", required=True, help="cpu, mps, cuda:N, xpu:N, or auto: the first one there is")
    device = parser.parse_args().device
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the server, which ends its workers in order
    # torch's threads spin for some microseconds before they sleep: fast where cores are idle, and busy ones stay usable
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    incoming, outgoing = take_pipes()
    from invokeclone.worker.process import serve  # only now nothing can print into the link

    serve(device, incoming, outgoing)
    os._exit(0)


def take_pipes() -> tuple[int, int]:
    """Return stdin and stdout as the link's descriptors; everybody else gets nothing to read and stderr to print to.

    Done before anything else is imported, so that no library can write into the link.
    """
    incoming, outgoing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return incoming, outgoing


if __name__ == "__main__":
    main()
