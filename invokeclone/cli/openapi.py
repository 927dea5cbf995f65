"""`invokeclone openapi`: print the OpenAPI document, without accessing the root folder."""

import argparse
import sys

import orjson

from invokeclone.cli.command_settings import settings_for
from invokeclone.server.app import create_app


def run(arguments: argparse.Namespace) -> int:
    """Write the document to stdout; return 0."""
    settings = settings_for(arguments, level="error", uses=())
    document = create_app(settings, worker_command=None).openapi()
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    return 0
