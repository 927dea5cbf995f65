# Sourced by scripts/run and scripts/test: makes .venv and installs the package with the extras named in $1, once per change
# of pyproject.toml or constraints.txt. torch comes first, at the pinned version, so that nothing else pulls another build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

find_python() {
    local name
    for name in ${PYTHON:-} python3.12 python3.11 python3.13 python3; do
        if command -v "$name" >/dev/null && "$name" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "invokeclone needs Python 3.11, 3.12 or 3.13 with venv; set PYTHON=/path/to/python" >&2
    return 1
}

set_up() {
    local extras="$1" python stamp wanted
    stamp=".venv/.installed$extras"
    wanted=$(cat pyproject.toml constraints.txt | cksum)
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && [ -x .venv/bin/invokeclone ]; then
        return
    fi
    if [ ! -x .venv/bin/python ]; then
        python=$(find_python)
        echo "Creating .venv with $($python --version)" >&2
        "$python" -m venv .venv
    fi
    echo "Installing (torch first; the first time takes some minutes)" >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".$extras"
    echo "$wanted" >"$stamp"
}

# Chromium for the tests marked `browser`, where Debian's package can be had; without it those tests are skipped.
set_up_browser() {
    command -v chromium >/dev/null && return
    local sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo -n"
    if command -v apt-get >/dev/null && { [ -z "$sudo" ] || $sudo true 2>/dev/null; }; then
        echo "Installing chromium for the browser tests" >&2
        if $sudo apt-get -qq update >/dev/null && DEBIAN_FRONTEND=noninteractive $sudo apt-get -qq install -y --no-install-recommends chromium fonts-dejavu-core >/dev/null; then
            return
        fi
    fi
    echo "No chromium: tests marked 'browser' will be skipped" >&2
}

# The official web UI's bundles for the tests in tests/official_ui; without them (no package index) those tests are skipped.
set_up_web_ui() {
    local version
    for version in 6.8.1 6.14.2; do
        if [ ! -f ".cache/webui/$version/index.html" ]; then
            .venv/bin/invokeclone webui install "$version" --root .cache >/dev/null ||
                echo "No web UI $version: its tests will be skipped" >&2
        fi
    done
}

# The older major version of OpenAI's package and what it alone needs, for the tests that clients of both find what they need.
set_up_older_openai() {
    [ -d .cache/openai-2/openai ] ||
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target .cache/openai-2 "openai>=2,<3" distro jiter sniffio ||
        echo "No openai 2: its tests will be skipped" >&2
}
