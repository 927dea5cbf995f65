"""The ordinary server, worker and command line, with one more folder in `invokeclone.families`: what an edit of the tree would do."""

import argparse
import sys
from pathlib import Path

import invokeclone.families

HERE = Path(__file__).resolve()
invokeclone.families.__path__.append(str(HERE.parent))

if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        from invokeclone.worker.__main__ import main

        sys.argv[1:2] = []
        sys.exit(main())
    if sys.argv[1:2] == ["generate"]:
        from invokeclone.cli.main import main

        sys.exit(main())
    import uvicorn

    from invokeclone.kit.config.settings import Settings
    from invokeclone.server.app import create_app

    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path)
    parser.add_argument("--port", type=int)
    arguments = parser.parse_args()
    settings = Settings(root=arguments.root, device="cpu", precision="float32")
    app = create_app(settings, worker_command=(sys.executable, str(HERE), "worker"))
    uvicorn.run(app, port=arguments.port, log_level="warning")
