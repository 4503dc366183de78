#!/usr/bin/env bash
# Runs a command in surroundings that users have and developers do not: without a home folder, in folders with spaces and
# umlauts, in the C locale, without a network ... Prints a table of what passed.
#
#   tests/places.sh                              the demo and some tests in each of them
#   PLACES="home:none no-network" tests/places.sh  in these only
#   tests/places.sh .venv/bin/vouch --version    another command in each of them
#
# Each copy of the tree is set up once, and several surroundings share it. Root becomes an ordinary user. What there is
# no right or tool for is skipped with a line. PYTHON and OTHER_PYTHON name interpreters that an ordinary user can run.
set -uo pipefail
cd "$(dirname "$0")/.."
source_tree=$PWD
TESTS="tests/flows/cli/test_label.py tests/flows/console tests/schemas
  tests/flows/test_user_folders.py tests/tasks/store/test_local.py tests/tasks/store/test_store.py tests/tasks/export
  tests/review_ui/server/test_serve.py tests/flows/test_prefect_server.py tests/deploy/test_deploy.py tests/docs"
ALL="plain home:none home:missing home:read-only home:root nameless-user umask locale:C locale:none odd-path
  odd-path,locale:C no-network other-disk other-python"
ME="--clear-groups --inh-caps=-all"
base=$(mktemp -d "${TMPDIR:-/tmp}/vouch-places.XXXXXX")
user="" results=()

main() {
  trap clean EXIT
  chmod 755 "$base"
  export UV_CACHE_DIR=${UV_CACHE_DIR:-$base/uv-cache} PIP_DISABLE_PIP_VERSION_CHECK=1
  if [[ $(id -u) == 0 ]]; then
    user=vouch-places-$$
    useradd --no-create-home --home-dir /nonexistent "$user" || exit 1
    chown "$user" "$base"
  fi
  local place failed=0
  for place in ${PLACES:-$ALL}; do
    local since=$SECONDS outcome
    (in_place "$place" "$@") >"$base/log" 2>&1
    case $? in
    0) outcome=passed ;;
    77) outcome="skipped: $(tail -n 1 "$base/log")" ;;
    *) outcome=FAILED failed=1 && tail -n 60 "$base/log" ;;
    esac
    results+=("$(printf '%-20s %6s s  %s' "$place" $((SECONDS - since)) "$outcome")")
    echo "${results[-1]}"
  done
  printf '\n%-20s %8s  %s\n' surrounding time outcome
  printf '%s\n' "${results[@]}"
  return $failed
}

# Sets up what a surrounding is, and runs the command there; 77: it cannot be had here.
in_place() {
  local place=$1 tree=$base/plain temporary=$base/tmp mask=022 python=${PYTHON:-/usr/bin/python3} alone=() wrap=()
  shift
  local settings=(HOME="$base/home" LANG=C.UTF-8) who=$user
  case $place in
  home:none) settings=(LANG=C.UTF-8) ;;
  home:missing) settings=(HOME="$base/missing/home" LANG=C.UTF-8) ;;
  home:read-only) settings=(HOME="$base/read-only" LANG=C.UTF-8) ;;
  home:root) settings=(HOME=/ LANG=C.UTF-8) ;;
  nameless-user)
    [[ -n $user ]] || skip "only root can become somebody else"
    who=54321
    settings=()
    ;;
  umask) mask=077 ;;
  locale:C) settings=(HOME="$base/home" LC_ALL=C PYTHONUTF8=0) ;;
  locale:none) settings=(HOME="$base/home") ;;
  odd-path*)
    tree="$base/Bilder für Größe/vouch x"
    temporary="$base/Bilder für Größe/tmp ö"
    [[ $place != *locale* ]] || settings=(HOME="$base/home" LC_ALL=C PYTHONUTF8=0)
    ;;
  no-network)
    alone=(unshare --net bash -c 'ip link set lo up && exec "$@"' -)
    "${alone[@]}" true || skip "no right to a network of its own, or no ip"
    ;;
  other-disk)
    [[ -w /dev/shm && $(stat -c %d /dev/shm) != $(stat -c %d "$base") ]] || skip "no /dev/shm on another disk"
    temporary=/dev/shm/${base##*/}
    ;;
  other-python)
    python=${OTHER_PYTHON:-$(command -v python3.13 python3.12 python3.11 | grep -vx "$(realpath "$python")" | head -n 1)}
    [[ -n $python ]] && as "$who" "$python" -c 'import venv, ensurepip' || skip "no other Python that $who can run"
    tree=$base/other-python
    ;;
  esac
  mkdir -p "$tree" "$temporary" "$base/home" "$base/read-only"
  chmod 1777 "$temporary"
  chmod 555 "$base/read-only"
  if [[ ! -e $tree/Makefile ]]; then
    (cd "$source_tree" && git ls-files -z -co --exclude-standard 2>/dev/null || find . -path ./.venv -prune -o -print0) |
      tar -C "$source_tree" --create --null --no-recursion --files-from - | tar -C "$tree" --extract --no-same-owner
    [[ -z $who ]] || chown -R "$who" "$tree" "$base/home" ${UV_CACHE_DIR##"$base"/*}
  fi
  chmod a+rwx "$tree" # the user without a name writes here too
  cd "$tree" && rm -rf demo "$temporary/Größe x" && umask "$mask" || return 1
  settings+=(TMPDIR="$temporary" PATH="$(dirname "$python"):/usr/bin:/bin" OMP_NUM_THREADS=1)
  as "${user}" "${settings[@]}" make setup PYTHON="$python" || return 1
  wrap=("${alone[@]}") # set-up is done, and nothing needs the network any more
  if (($#)); then
    here "$@"
    return
  fi
  here make demo && here cp -r demo "$temporary/Größe x" || return 1
  for command in run status export report; do
    here .venv/bin/vouch "$command" "$temporary/Größe x/campaign.yaml" || return 1
  done
  # The tests as "make test" runs them, but these alone.
  here make -s test JOBS=1 ARGS="--no-cov -q -p no:cacheprovider ${TESTS//$'\n'/}"
}

# Runs a command in the surrounding that in_place has made out.
here() { as "$who" "${settings[@]}" "$@"; }

# As a user, with nothing in the environment but the settings and what set-up needs of a closed network.
as() {
  local who=$1 name kept=()
  shift
  for name in ${!PIP_*} ${!UV_*} SSL_CERT_FILE SSL_CERT_DIR http_proxy https_proxy no_proxy; do
    [[ -z ${!name:-} ]] || kept+=("$name=${!name}")
  done
  if [[ -n $who ]]; then
    "${wrap[@]}" setpriv --reuid "$who" --regid "$(id -g "$user")" $ME env -i "${kept[@]}" "$@"
  else
    "${wrap[@]}" env -i "${kept[@]}" "$@"
  fi
}

skip() {
  echo "$*"
  exit 77
}

clean() {
  cd / && rm -rf "$base" "/dev/shm/${base##*/}"
  [[ -z $user ]] || userdel "$user"
}

main "$@"
