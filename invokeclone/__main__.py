"""`python -m invokeclone`: the command line."""

import sys

from invokeclone.cli.main import main

sys.exit(main())
