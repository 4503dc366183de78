#!/usr/bin/env bash
#SBATCH --job-name=vouch
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
# A campaign on the nodes of a Slurm job: Ray's head on the first, which computes as well, a worker on each other one.
#
#   sbatch deploy/slurm.sh CAMPAIGN [OPTIONS OF vouch run]      from the folder of the sources, on a file system of all nodes
#
# The campaign has `run: {runner: ray, workers: auto, ray: {address: auto}}`. A job that ends, or is ended, leaves finished
# shards; the same command goes on. VOUCH names another vouch, whose folder has its ray and python.
set -euo pipefail
vouch=${VOUCH:-$PWD/.venv/bin/vouch}
bin=$(dirname "$vouch")
(($#)) || { echo "usage: sbatch deploy/slurm.sh CAMPAIGN [OPTIONS]" >&2; exit 2; }
# Nodes may be shared with other jobs, and /tmp/ray be another user's.
port=$((20000 + SLURM_JOB_ID % 10000))
export RAY_TMPDIR=${SLURM_TMPDIR:-/tmp}/vouch-job-$SLURM_JOB_ID

# Known to this job's processes alone: srun hands the environment on, no command line shows it.
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
places=(--num-cpus="${SLURM_CPUS_PER_TASK:-1}" --object-store-memory=100000000)
[[ -z ${SLURM_GPUS_ON_NODE:-} ]] || places+=(--num-gpus="$SLURM_GPUS_ON_NODE")
on=(srun --overlap --nodes=1 --ntasks=1 --nodelist) # no function: $! is to be srun's own

# Ray gives up a node that is not there within 30 seconds, as where Python comes from a slow file system.
node() { # NAME OPTIONS; in the background, where it is a process of its own
  trap 'kill "$child" 2>/dev/null || true; wait "$child" || true; exit 143' TERM
  for _ in 1 2 3; do
    "${on[@]}" "$1" "$bin/ray" start --block "${places[@]}" "${@:2}" &
    child=$!
    if wait "$child"; then exit 0; fi
  done
  exit 1
}

run='' pids=()
end() { # Ray's processes end with the srun that started them, after the run has said where it stands.
  trap - EXIT TERM INT
  if [[ -n $run ]]; then kill "$run" 2>/dev/null && wait "$run" || true; fi
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait || true
}
trap end EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

address=$("${on[@]}" "${nodes[0]}" hostname --ip-address | awk '{print $1; exit}')
node "${nodes[0]}" --head --node-ip-address="$address" --port="$port" &
pids+=($!)
connect='import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False)' # as the run will
until "${on[@]}" "${nodes[0]}" "$bin/python" -c "$connect" "$address:$port" >/dev/null 2>&1; do
  kill -0 "${pids[0]}" 2>/dev/null || { echo "the head of the Ray cluster on ${nodes[0]} has ended; see above" >&2; exit 1; }
  sleep 2
done
for name in "${nodes[@]:1}"; do
  node "$name" --address="$address:$port" &
  pids+=($!)
done
export RAY_ADDRESS=$address:$port
# In the background, so that a signal to the job reaches the run at once.
"${on[@]}" "${nodes[0]}" "$vouch" run "$@" --plain &
run=$!
wait "$run"
