"""`invokeclone …` with short leases and times of silence, so that the deaths of machines are noticed within seconds."""

import os
import sys

from invokeclone.queue import store
from invokeclone.server.joined import protocol

store.LEASE_S = 4
protocol.ALIVE_S = 0.5
protocol.SILENCE_S = float(os.environ.get("INVOKECLONE_TEST_SILENCE_S", "3"))

if __name__ == "__main__":
    from invokeclone.cli.main import main

    sys.exit(main(sys.argv[1:]))
