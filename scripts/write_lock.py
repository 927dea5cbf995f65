"""Write configs/lock.txt: the versions of everything that `.[dev]` installs in this environment.

To update: `.venv/bin/python -m pip install --upgrade --upgrade-strategy eager -c constraints.txt -e .[dev]`, run the
tests, `make lock`. Packages pinned by constraints.txt (torch, torchvision) are excluded. The file is used as
constraints for all Python versions: a library that only some of them need is pinned if the interpreter that writes the
file needs it.
"""

import re
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

HERE = Path(__file__).resolve().parents[1]
LOCK = HERE / "configs" / "lock.txt"
CONSTRAINTS = HERE / "constraints.txt"
HEAD = """# Written by scripts/write_lock.py (`make lock`) with Python {python}. Constraints for pip: which version of each library is
# installed where one is needed, on Python 3.11, 3.12 and 3.13. torch and torchvision: constraints.txt.
"""


def pins(file: Path) -> dict[str, str]:
    """Return the version of each library that a constraints file pins."""
    result = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;#]+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in result}


def closure(requirements: Iterable[str]) -> dict[str, str]:
    """Return the installed versions of the requirements and their dependencies, by canonical name."""
    versions: dict[str, str] = {}
    visited: set[tuple[str, str]] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        extras = {"", *requirement.extras}
        new = {extra for extra in extras if (name, extra) not in visited}
        if not new:
            continue
        visited |= {(name, extra) for extra in new}
        installed_distribution = distribution(name)
        versions[name] = Version(installed_distribution.version).public
        for text in installed_distribution.requires or []:
            inner = Requirement(text)
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in new):
                waiting.append(inner)
    return versions


def main() -> int:
    try:
        versions = closure(["invokeclone[dev]"])
    except PackageNotFoundError as error:
        print(f"{error.name} is not installed: scripts/test installs what is needed", file=sys.stderr)
        return 1
    left_out = {"invokeclone", *pins(CONSTRAINTS)}
    lines = [f"{name}=={version}\n" for name, version in sorted(versions.items()) if name not in left_out]
    LOCK.write_text(
        HEAD.format(python=f"{sys.version_info.major}.{sys.version_info.minor}") + "".join(lines), encoding="utf-8"
    )
    print(f"{LOCK.relative_to(HERE)}: {len(lines)} libraries")
    return 0


if __name__ == "__main__":
    sys.exit(main())
