"""The fixtures of tests/fake_downloads.py."""

from tests.fake_downloads import (  # noqa: F401
    _at_once,
    _no_account,
    app,
    client,
    downloads,
    fake_hub,
    fake_web,
    installer,
    settings,
)
