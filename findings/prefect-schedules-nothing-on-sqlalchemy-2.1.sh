#!/usr/bin/env bash
# Expected: Prefect's own requirement (sqlalchemy >= 2.0, below 3 as its metadata says) means that its server works with
#   SQLAlchemy 2.1: a deployment with a schedule gets its runs.
# Happens: the server starts, is healthy and takes the deployment, but no run is ever scheduled. Only its log says why:
#   each insert of scheduled runs ends with "Can't evaluate bulk DML statement". With SQLAlchemy 2.0 the runs are there.
# Versions: Prefect 3.8.8, FastAPI 0.150.0, SQLAlchemy 2.1.9 and 2.0.58, SQLite, seen on 2026-11-30.
# Matters: a nightly labelling of new images that is set up on a fresh installation never runs, and nothing looks broken.
set -euo pipefail
folder=$(mktemp -d)
server=
finish() {
  if [[ -n $server ]]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
  rm -rf "$folder"
}
trap finish EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check)
"${pip[@]}" prefect==3.8.8 fastapi==0.150.0 sqlalchemy==2.1.9
cat >"$folder/schedule.py" <<'PY'
import asyncio
import sys
from datetime import timedelta

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import IntervalSchedule


async def main():
    async with PrefectClient(sys.argv[1]) as client:
        for _ in range(120):
            if await client.api_healthcheck() is None:
                break
            await asyncio.sleep(0.5)
        flow = await client.create_flow_from_name("nightly")
        schedule = DeploymentScheduleCreate(schedule=IntervalSchedule(interval=timedelta(hours=24)), active=True)
        await client.create_deployment(flow_id=flow, name="nightly", schedules=[schedule])
        for _ in range(int(sys.argv[2])):
            await asyncio.sleep(1)
            if found := await client.read_flow_runs():
                break
        print(len(found))


asyncio.run(main())
PY
export PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1 PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS=2
runs() {
  port=$("$folder/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])')
  export PREFECT_HOME=$folder/home-$1
  "$folder/venv/bin/prefect" server start --host localhost --port "$port" >"$folder/log-$1" 2>&1 &
  server=$!
  "$folder/venv/bin/python" "$folder/schedule.py" "http://localhost:$port/api" 20
  kill "$server"
  wait "$server" 2>/dev/null || true
  server=
}
runs new >"$folder/new"
errors=$(grep -c "evaluate bulk DML" "$folder/log-new" || true)
"${pip[@]}" sqlalchemy==2.0.58
runs old >"$folder/old"
"$folder/venv/bin/python" -c 'import prefect; print("Prefect", prefect.__version__)'
echo "scheduled runs with SQLAlchemy 2.1.9: $(cat "$folder/new") ($errors lines of its log name the statement); with 2.0.58: $(cat "$folder/old")"
(($(cat "$folder/new") == 0 && $(cat "$folder/old") > 0 && errors > 0))
echo "FINDING: on SQLAlchemy 2.1 Prefect 3.8.8 takes a schedule and never makes a run of it"
