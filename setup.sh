#!/bin/sh
# Sets up everything that the make targets need: system libraries, the virtual environment in
# .venv, dependencies, compiled parts. Called by `make setup`; a second call changes nothing.
set -eu
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python3}
EXTRAS=${EXTRAS:-step,dev}

need=""
command -v "$PYTHON" >/dev/null 2>&1 || need="$need python3"
command -v gcc >/dev/null 2>&1 || need="$need gcc libc6-dev"
command -v g++ >/dev/null 2>&1 || need="$need g++" # pyclipr comes as C++ source
if command -v "$PYTHON" >/dev/null 2>&1; then
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "setup: $PYTHON is older than 3.11; give a newer one: make setup PYTHON=/path/to/python3.11" >&2
        exit 1
    }
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || need="$need python3-venv"
    "$PYTHON" -c 'import os, sysconfig as s; raise SystemExit(not os.path.exists(os.path.join(s.get_path("include"), "Python.h")))' ||
        need="$need python3-dev"
fi
# OpenCASCADE (STEP import) loads libGL although it draws nothing
case ",$EXTRAS," in
*,step,*) /sbin/ldconfig -p | grep -q 'libGL\.so\.1' || need="$need libgl1" ;;
esac

if [ -n "$need" ]; then
    if [ "$(id -u)" = 0 ]; then
        as_root=""
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        as_root="sudo"
    else
        echo "setup: system packages are missing. Type this once, then call make again:" >&2
        echo "  sudo apt-get update && sudo apt-get install -y$need" >&2
        exit 1
    fi
    echo "setup: installing system packages:$need"
    $as_root apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $need >/dev/null
fi

if [ ! -x .venv/bin/python ]; then
    echo "setup: making the virtual environment .venv"
    "$PYTHON" -m venv .venv
fi
echo "setup: installing dependencies and compiling (a few minutes the first time)"
PATH="$PWD/.venv/bin:$PATH" # pyclipr's build calls "python", which Debian does not have
pip() { .venv/bin/python -m pip --quiet --disable-pip-version-check "$@"; }
pip install --upgrade "pip>=24" "setuptools>=77" wheel "cython>=3.1" "numpy>=2.0"
# Dependencies first, each built by its own rules if it must be built; then this project, whose
# compiled parts are built with what is in the environment.
.venv/bin/python - "$EXTRAS" >.venv/requirements.txt <<'END'
import sys, tomllib

with open("pyproject.toml", "rb") as f:
    project = tomllib.load(f)["project"]
extras = project["optional-dependencies"]
print(*project["dependencies"], *(r for e in sys.argv[1].split(",") for r in extras[e]), sep="\n")
END
pip install --requirement .venv/requirements.txt
pip install --no-build-isolation --no-deps --editable .
