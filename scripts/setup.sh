# Sourced by scripts/run and scripts/test. Creates .venv and installs the package with the given extras, again after each change
# of pyproject.toml, constraints.txt or configs/lock.txt. torch is installed first, at the pinned version, so that no dependency installs another build.
# Progress is printed to stderr: the number of each step and the time since the start, pip's output, and a line every 15 s.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

STEPS=3 # scripts with more steps increase it
STEP=0
SECONDS=0
TICK_S=15

elapsed() {
    printf '%d:%02d' $((SECONDS / 60)) $((SECONDS % 60))
}

# begin TEXT…: print the start of the next step.
begin() {
    STEP=$((STEP + 1))
    echo "[$STEP/$STEPS $(elapsed)] $*" >&2
}

# watched COMMAND…: run the command with its output on stderr, and print a line every TICK_S seconds while it runs. Returns its status.
watched() {
    local ticker status=0
    (
        trap 'kill "$sleeping" 2>/dev/null; exit' TERM
        while true; do
            sleep "$TICK_S" &
            sleeping=$!
            wait "$sleeping"
            kill -0 "$$" 2>/dev/null || exit 0 # interrupted: the script has ended
            echo "[$STEP/$STEPS $(elapsed)] still working" >&2
        done
    ) </dev/null >/dev/null &
    ticker=$!
    "$@" >&2 || status=$?
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    return "$status"
}

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

# install ARGUMENTS…: run pip install with the versions of the lock file, or, if those are unavailable, with the newest versions that pyproject.toml allows.
install() {
    local pip=(.venv/bin/python -m pip install --disable-pip-version-check --constraint constraints.txt)
    watched "${pip[@]}" --constraint configs/lock.txt "$@" && return
    echo "The versions in configs/lock.txt cannot be installed here; installing the newest versions that pyproject.toml allows" >&2
    watched "${pip[@]}" "$@"
}

set_up() {
    local extras="$1" python stamp checksum
    stamp=".venv/.installed$extras"
    checksum=$(cat pyproject.toml constraints.txt configs/lock.txt | cksum)
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$checksum" ] && [ -x .venv/bin/invokeclone ]; then
        STEP=$((STEP + 3))
        return
    fi
    python=.venv/bin/python
    [ -x "$python" ] || python=$(find_python)
    begin "Creating .venv with $("$python" --version)"
    [ -x .venv/bin/python ] || watched "$python" -m venv .venv
    begin "Installing torch (the largest download; several minutes the first time)"
    install torch
    begin "Installing invokeclone$extras and its dependencies"
    install --editable ".$extras"
    echo "$checksum" >"$stamp"
    echo "[$STEP/$STEPS $(elapsed)] Installed into .venv" >&2
}

# Install Chromium for the tests marked `browser`, if Debian's package is available; otherwise those tests are skipped.
set_up_browser() {
    begin "Installing Chromium for the browser tests"
    command -v chromium >/dev/null && return
    local sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo -n"
    if command -v apt-get >/dev/null && { [ -z "$sudo" ] || $sudo true 2>/dev/null; }; then
        if watched $sudo apt-get -qq update && watched $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends chromium fonts-dejavu-core; then
            return
        fi
    fi
    echo "Chromium is unavailable: tests marked 'browser' will be skipped" >&2
}

# Download the official web UI for the tests in tests/official_ui; if it is unavailable, those tests are skipped.
set_up_web_ui() {
    local version
    begin "Downloading the official web UI and an older OpenAI client for the tests"
    for version in 6.8.1 6.14.2; do
        if [ ! -f ".cache/webui/$version/index.html" ]; then
            watched .venv/bin/invokeclone webui install "$version" --root .cache ||
                echo "Web UI $version is unavailable: its tests will be skipped" >&2
        fi
    done
}

# Install the older major version of OpenAI's package and its dependencies, for the tests with clients of both versions.
set_up_older_openai() {
    [ -d .cache/openai-2/openai ] ||
        watched .venv/bin/python -m pip install --disable-pip-version-check --no-deps --target .cache/openai-2 "openai>=2,<3" distro jiter sniffio ||
        echo "openai 2 is unavailable: its tests will be skipped" >&2
}

# Install a JavaScript client of ComfyUI's API for the slow tests, if npm is available; otherwise those tests are skipped.
set_up_comfyui_client() {
    [ -d .cache/comfyui-client/node_modules/ws ] && return
    command -v npm >/dev/null &&
        watched npm install --silent --no-audit --no-fund --prefix .cache/comfyui-client "@stable-canvas/comfyui-client@~1.5" "ws@^8" ||
        echo "@stable-canvas/comfyui-client is unavailable: its tests will be skipped" >&2
}

# Install axe-core for the accessibility tests of the page, if npm is available; otherwise those tests are skipped.
set_up_axe() {
    [ -f .cache/axe/node_modules/axe-core/axe.min.js ] && return
    command -v npm >/dev/null &&
        watched npm install --silent --no-audit --no-fund --prefix .cache/axe "axe-core@^4.10" ||
        echo "axe-core is unavailable: its tests will be skipped" >&2
}

# Install spandrel for the tests of upscaling models, without torchvision, which it depends on but these models do not use.
set_up_spandrel() {
    [ -d .cache/spandrel/spandrel ] ||
        watched .venv/bin/python -m pip install --disable-pip-version-check --no-deps --target .cache/spandrel "spandrel>=0.4,<0.5" "einops>=0.8" ||
        echo "spandrel is unavailable: its tests will be skipped" >&2
}
