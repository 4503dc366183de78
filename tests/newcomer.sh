#!/usr/bin/env bash
# README's two commands as a newcomer meets them: a fresh copy, an ordinary user, an empty home folder, no settings.
#
#   tests/newcomer.sh            make demo, then make test; prints what they print, and fails if one of them does
#   tests/newcomer.sh make demo  another command
#
# Root makes a user for it and removes it after; everybody else is ordinary already. PYTHON names the interpreter whose
# folder is put on the PATH (default: the python3 found here). Needs python3 with venv, and make.
set -euo pipefail
cd "$(dirname "$0")/.."

# Set-up has to reach the package index: in a closed network these say where it is, through which proxy, and whom to
# trust. Caches save repeated downloads. Nothing else of this environment is passed on.
passed_on=(PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_CONFIG_FILE PIP_CERT PIP_CACHE_DIR PIP_TRUSTED_HOST
  UV_INDEX_URL UV_DEFAULT_INDEX UV_INDEX UV_FIND_LINKS UV_CONFIG_FILE UV_CACHE_DIR SSL_CERT_FILE SSL_CERT_DIR
  REQUESTS_CA_BUNDLE http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY)

main() {
  local python failed=0
  place=$(mktemp -d "${TMPDIR:-/tmp}/vouch-newcomer.XXXXXX")
  python=$("${PYTHON:-python3}" -c 'import os, sys; print(os.path.dirname(os.path.realpath(sys.executable)))')
  user=""
  trap clean EXIT
  chmod 755 "$place"
  mkdir "$place/vouch" "$place/home" "$place/tmp"
  copy "$place/vouch"
  environment=(env -i PATH="$python:/usr/bin:/bin" HOME="$place/home" TMPDIR="$place/tmp")
  local name
  for name in "${passed_on[@]}"; do
    if [[ -n ${!name:-} ]]; then
      environment+=("$name=${!name}")
    fi
  done
  become=()
  if [[ $(id -u) == 0 ]]; then
    user=vouch-newcomer-$$
    useradd --no-create-home --home-dir "$place/home" --shell /bin/bash "$user"
    chown -R "$user" "$place"
    become=(setpriv --reuid "$user" --regid "$user" --clear-groups)
    # An interpreter in root's own home folder is out of an ordinary user's reach; the system's is not.
    can_run "$python" || python=/usr/bin
    if ! can_run "$python"; then
      echo "newcomer: an ordinary user can run no Python with venv here; name one: PYTHON=/opt/python3.12 $0" >&2
      return 1
    fi
    environment[2]="PATH=$python:/usr/bin:/bin"
  fi
  cd "$place/vouch"
  if (($#)); then
    as_newcomer "$@" || failed=1
  else
    as_newcomer make demo || failed=1
    as_newcomer make test || failed=1
  fi
  return $failed
}

can_run() { "${become[@]}" env "$1/python3" -c 'import venv, ensurepip' 2>/dev/null; }

# What git knows and what is new, as it lies here; in an unpacked archive all but what set-up and the demo make.
copy() {
  if [[ -e .git ]] && git rev-parse >/dev/null 2>&1; then
    git ls-files -z --cached --others --exclude-standard | tar --create --null --ignore-failed-read --files-from - |
      tar --extract --no-same-owner --directory "$1"
  else
    tar --create --exclude=./.venv --exclude=./demo . | tar --extract --no-same-owner --directory "$1"
  fi
}

as_newcomer() {
  echo "== newcomer: $*"
  local since=$SECONDS code=0
  "${become[@]}" "${environment[@]}" "$@" </dev/null || code=$?
  echo "== newcomer: $* ended with $code after $((SECONDS - since)) s"
  return $code
}

clean() {
  cd /
  rm -rf "$place"
  if [[ -n $user ]]; then
    userdel "$user"
  fi
}

main "$@"
