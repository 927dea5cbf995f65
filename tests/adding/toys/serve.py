"""The ordinary server and worker, with one more folder in `invokeclone.families`: what an edit of the tree would do."""

import os
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
    import uvicorn

    from invokeclone.kit.settings import Settings
    from invokeclone.server.app import create_app

    settings = Settings(root=Path(sys.argv[1]), device="cpu", precision="float32")
    app = create_app(settings, worker_command=(sys.executable, str(HERE), "worker"))
    uvicorn.run(app, port=int(os.environ["PORT"]), log_level="warning")
