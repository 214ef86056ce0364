#!/usr/bin/env bash
# Debian packages that are missing (as root; otherwise the line to run), .venv with the pinned requirements, the project
# in it. What is there already is left alone, so a second run takes no time.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
POLICY=/usr/sbin/policy-rc.d
MARK="# put here by merchant-pipeline's devstack/setup.sh while it installs packages"

missing_packages() {
  [ -x /usr/lib/postgresql/15/bin/postgres ] || echo postgresql-15
  [ -e /usr/share/postgresql/15/extension/pgq.control ] || echo postgresql-15-pgq3
  command -v redis-server >/dev/null || echo redis-server
  [ -x /usr/sbin/pgbouncer ] || echo pgbouncer
  command -v mvn >/dev/null || echo maven
  command -v make >/dev/null || echo make
  "$PYTHON" -c 'import ensurepip' 2>/dev/null || echo python3-venv
}

# Debian starts a database server as soon as it is installed. We bring our own up, and leave that one alone.
forbid_starting() {
  trap allow_starting EXIT
  [ -e "$POLICY" ] || printf '#!/bin/sh\n%s\nexit 101\n' "$MARK" >"$POLICY"
  chmod +x "$POLICY"
}

allow_starting() {
  if grep -qsF "$MARK" "$POLICY"; then rm -f "$POLICY"; fi
}

install_packages() {
  local install=(apt-get install -y --no-install-recommends "$@")
  if [ "$(id -u)" != 0 ]; then
    echo "Debian packages are missing. As root, run:" >&2
    echo "  ${install[*]}" >&2
    exit 1
  fi
  export DEBIAN_FRONTEND=noninteractive
  forbid_starting
  echo "installing $*"
  "${install[@]}" >/dev/null || { apt-get update && "${install[@]}"; }
  allow_starting
}

check_python() {
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' && return
  echo "Python 3.11 or newer is needed; $PYTHON is $("$PYTHON" --version 2>&1). Name another: make PYTHON=python3.12" >&2
  exit 1
}

# A virtual environment holds absolute paths and belongs to one Python: a moved clone or another Python needs a new one.
usable_venv() {
  .venv/bin/python -c 'import pip' 2>/dev/null && grep -qsF "$PWD/.venv/bin/python" .venv/bin/pip &&
    [ "$(.venv/bin/python --version)" = "$("$PYTHON" --version)" ]
}

# What decides the packages. The gates' settings in pyproject.toml do not.
requirements() {
  cat requirements*.txt
  "$PYTHON" -c 'import tomllib; t = tomllib.load(open("pyproject.toml", "rb")); print(t["project"], t["tool"]["setuptools"])'
}

install_python_packages() {
  local wanted
  wanted=$(requirements | sha256sum)
  if usable_venv && [ "$(cat .venv/stamp 2>/dev/null)" = "$wanted" ]; then return; fi
  echo "installing Python packages into .venv"
  usable_venv || "$PYTHON" -m venv --clear .venv
  .venv/bin/python -m pip install -q -r requirements-dev.txt -c requirements-lock.txt
  .venv/bin/python -m pip install -q --no-deps -e .
  echo "$wanted" >.venv/stamp
}

# shellcheck disable=SC2046  # one word per package is meant
if [ -n "$(missing_packages)" ]; then install_packages $(missing_packages); fi
check_python
install_python_packages
