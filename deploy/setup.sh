#!/usr/bin/env bash
# Sets up .venv from requirements.lock: `make setup` calls it, and so do the Dockerfiles.
#   deploy/setup.sh              finds python3 (3.11 to 3.13; or $PYTHON), makes .venv, installs the lock and the project
# uv installs about ten times as fast as pip; where it cannot be had, or cannot reach the index that pip is
# configured for, pip installs the same files by the same hashes.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv
export PYTHONUTF8=1 # folders may be called anything, whatever the locale says

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; }

find_python() {
  local candidate candidates=(python3 python3.13 python3.12 python3.11)
  if [[ -n ${PYTHON:-} ]]; then
    candidates=("$PYTHON")
  fi
  for candidate in "${candidates[@]}"; do
    if fits "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  local wanted=${PYTHON:-python3} found
  found=$("$wanted" -c 'import sys; print("Python %d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || found="no $wanted that runs"
  echo "setup: Python 3.11, 3.12 or 3.13 is needed and $found was found;" \
    "install one and name it, as in: make setup PYTHON=/usr/bin/python3.12" >&2
  return 1
}

make_venv() {
  local python
  if fits $venv/bin/python && $venv/bin/python -m pip --version >/dev/null 2>&1; then
    return
  fi
  python=$(find_python)
  if ! "$python" -m venv --clear $venv; then
    echo "setup: $python cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2
    return 1
  fi
}

# Where the home folder cannot keep what is downloaded, pip keeps nothing and uv keeps it in .venv until all is installed:
# on the same disk, where it links files instead of copying them.
choose_caches() {
  local home=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6 || true)}
  if [[ -w $home && ( ! -e $home/.cache || -w $home/.cache ) ]]; then
    return
  fi
  if [[ -z ${UV_CACHE_DIR:-} ]]; then
    export UV_CACHE_DIR=$PWD/$venv/uv-cache
    trap 'rm -rf "$UV_CACHE_DIR"' EXIT
  fi
  if [[ -z ${PIP_CACHE_DIR:-} ]]; then
    export PIP_NO_CACHE_DIR=1
  fi
}

# The lock's own entry of uv: version and hashes, nothing else.
install_uv() {
  local entry
  entry=$(mktemp)
  awk '/^uv==/ {on = 1} on && /^[^ ]/ && !/^uv==/ {exit} on' requirements.lock >"$entry"
  $venv/bin/python -m pip install -q --no-deps --require-hashes -r "$entry" || return 1
  rm -f "$entry"
}

install_lock() {
  echo "setup: installing what requirements.lock names into $venv"
  if install_uv && $venv/bin/uv pip install --quiet --python $venv/bin/python --no-deps --require-hashes \
    --compile-bytecode -r requirements.lock; then
    return
  fi
  echo "setup: uv could not install the lock; pip does, which takes some minutes more" >&2
  $venv/bin/python -m pip install --no-deps --require-hashes -r requirements.lock
}

make_venv
choose_caches
install_lock
$venv/bin/python -m pip install -q --no-deps --no-build-isolation --editable .
# Python reads this file in the locale's encoding, which may lack letters of this folder's name: so without the name.
for file in $venv/lib/python3.*/site-packages/*_vouch_labels.pth; do
  echo ../../../.. >"$file"
done
echo "setup: $($venv/bin/python --version) in $venv is ready"
