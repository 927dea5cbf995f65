"""An agent with a fake worker, as a process that a test may stop and kill: `agent_process.py URL NAME ROOT`."""

import asyncio
import os
import sys
from pathlib import Path

from invokeclone.kit.config.settings import Settings
from invokeclone.server.joined.address import ServerAddress
from invokeclone.server.joined.agent import Agent

if __name__ == "__main__":
    url, name, root = sys.argv[1:]
    agent = Agent(
        ServerAddress(url),
        os.environ["INVOKECLONE_WORKER_TOKEN"],
        settings=Settings(root=Path(root), device="cpu"),
        name=name,
        device="cpu",
        command=(sys.executable, "-S", str(Path(__file__).with_name("fake_worker.py"))),
        first_delay_s=0.05,
    )
    asyncio.run(agent.run())
