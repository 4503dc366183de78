#!/usr/bin/env bash
# A real S3 server for the integration tests: one node of Ceph's object gateway, on loopback only.
#
#   eval "$(tests/radosgw.sh start)"    start it (about 20 s), and set what the tests marked s3 look for
#   tests/radosgw.sh stop               end the processes that start began, and delete their files
#
# RADOSGW_DIR  where it keeps its state      (default: vouch-radosgw below the folder for temporary files)
# RADOSGW_PORT its port; the next one is Ceph's own                                        (default: 19070)
#
# Needs Debian 12 or Ubuntu; installs the packages when they are missing, for which it must be root.
set -euo pipefail

state=${RADOSGW_DIR:-${TMPDIR:-/tmp}/vouch-radosgw}
port=${RADOSGW_PORT:-19070}
access_key=test-access
secret_key=test-secret
daemons=(radosgw osd mon) # in the order in which they are to be stopped
export CEPH_CONF=$state/ceph.conf

main() {
  case ${1:-} in
  start)
    stop
    install_packages
    mkdir -p "$state/mon" "$state/osd"
    local log=$state/start.log
    # In a process of its own, since within an "if" a failing command would not end it.
    if ! "$BASH" "$0" _daemons >"$log" 2>&1; then
      tail -n 25 "$log" >&2
      echo "radosgw did not start; the lines above are the end of its log" >&2
      stop
      exit 1
    fi
    print_settings
    ;;
  _daemons)
    write_config
    start_monitor
    start_storage
    start_gateway
    make_user
    ;;
  stop) stop ;;
  *)
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
  esac
}

install_packages() {
  command -v radosgw ceph-mon ceph-osd ceph >/dev/null && return
  {
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
      radosgw ceph-mon ceph-osd ceph-common
  } >&2
}

write_config() {
  fsid=$(cat /proc/sys/kernel/random/uuid)
  cat >"$CEPH_CONF" <<CONF
[global]
fsid = $fsid
mon host = [v1:127.0.0.1:$((port + 1))]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr2 = false
run dir = $state
pid file = $state/\$type.pid
log file = $state/\$type.log
admin socket = $state/\$type.\$pid.asok
setuser match path =
# Nobody else can reach it, so nobody has to prove who they are; the gateway still checks S3 signatures.
auth cluster required = none
auth service required = none
auth client required = none
auth allow insecure global id reclaim = false
# One disk holds one copy.
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
mon allow pool size one = true
mon max pg per osd = 1000
# A machine that builds things may have little space left.
mon data avail warn = 1
mon data avail crit = 1

[mon.a]
mon data = $state/mon

[osd.0]
osd data = $state/osd
osd objectstore = bluestore
bluestore block create = true
# A sparse file: it takes what is stored.
bluestore block size = 8589934592
osd memory target = 939524096

[client.radosgw]
pid file = $state/radosgw.pid
log file = $state/radosgw.log
rgw frontends = beast endpoint=127.0.0.1:$port
rgw thread pool size = 64
CONF
}

start_monitor() {
  monmaptool --create --clobber --fsid "$fsid" --addv a "[v1:127.0.0.1:$((port + 1))]" "$state/monmap"
  ceph-authtool --create-keyring "$state/mon.keyring" --gen-key -n mon. --cap mon 'allow *'
  ceph-mon --id a --mkfs --fsid "$fsid" --monmap "$state/monmap" --keyring "$state/mon.keyring"
  ceph-mon --id a
}

start_storage() {
  local uuid
  uuid=$(cat /proc/sys/kernel/random/uuid)
  timeout 600 ceph osd new "$uuid" 0
  ceph-osd --id 0 --mkfs --osd-uuid "$uuid"
  timeout 600 ceph osd crush add osd.0 1.0 host=local root=default
  # An OSD that asks before the monitor has its map ready gives up, so it gets more than one chance.
  local chance
  for chance in 1 2 3 4 5; do
    echo "starting the OSD, chance $chance"
    # It may give up before it goes into the background, or after.
    ceph-osd --id 0 || { sleep 2 && continue; }
    wait_for 120 osd_is_up && return
  done
  echo "the OSD did not come up"
  return 1
}

osd_is_up() { timeout 60 ceph osd stat | grep -q ' 1 up'; }

start_gateway() {
  radosgw --name client.radosgw
  wait_for 600 gateway_answers
}

gateway_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

make_user() {
  radosgw-admin --name client.radosgw user create --uid test --display-name test \
    --access-key "$access_key" --secret-key "$secret_key"
}

wait_for() { # SECONDS COMMAND
  local left=$(($1 * 5))
  until "$2"; do
    ((left-- > 0)) || return 1
    sleep 0.2
  done
}

stop() {
  local daemon pid_file pid
  for daemon in "${daemons[@]}"; do
    pid_file=$state/$daemon.pid
    [[ -s $pid_file ]] || continue
    pid=$(<"$pid_file")
    # The number may belong to another process by now.
    [[ $(cat "/proc/$pid/cmdline" 2>/dev/null | tr '\0' ' ') == *"$daemon"* ]] || continue
    kill "$pid" 2>/dev/null || continue
    for _ in $(seq 50); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.2
    done
    kill -9 "$pid" 2>/dev/null || true
  done
  # Only a folder that this script has filled is deleted.
  [[ ! -f $CEPH_CONF ]] || rm -rf "$state"
}

print_settings() {
  cat <<SETTINGS
export S3_TEST_ENDPOINT=http://127.0.0.1:$port
export AWS_ACCESS_KEY_ID=$access_key
export AWS_SECRET_ACCESS_KEY=$secret_key
export AWS_DEFAULT_REGION=us-east-1
SETTINGS
}

main "$@"
