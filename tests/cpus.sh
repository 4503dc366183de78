#!/usr/bin/env bash
# Runs the tests of the models, of shards and of whole runs as other processors would compute them: `make test-cpus`.
#
# torch, oneDNN and MKL choose their kernels by the processor; each lets a variable choose a lesser one. Not every
# combination runs, but every value does, and the extremes: the least of everything on one thread, the most on four.
#
#   tests/cpus.sh [NUMBER ...]     these combinations alone; SLOW=1 adds the slow tests, JOBS test processes,
#                                  ARGS more for pytest, LOGS a folder that keeps pytest's output
set -uo pipefail
cd "$(dirname "$0")/.."

# ATEN_CPU_CAPABILITY  ONEDNN_MAX_CPU_ISA  MKL_CBWR  threads
COMBINATIONS=(
  "default AVX2    COMPATIBLE 1"
  "default DEFAULT default    4"
  "avx2    AVX2    default    1"
  "avx2    DEFAULT COMPATIBLE 4"
  "avx512  DEFAULT default    1"
  "avx512  AVX2    COMPATIBLE 4"
  "avx512  DEFAULT default    4"
)
TESTS=(
  tests/tasks/models tests/tasks/shard tests/starter/test_weights.py
  tests/flows/test_run.py tests/flows/test_resume.py tests/flows/cli/test_run_and_demo.py
  tests/flows/cli/test_demo.py tests/flows/cli/test_evaluate.py
)
PYTHON=.venv/bin/python
MARKERS="not gpu and not browser$([[ -n ${SLOW:-} ]] || echo " and not slow")"
LOGS=${LOGS:-$(mktemp -d)}
mkdir -p "$LOGS"

rank() { case ${1,,} in avx2) echo 1 ;; avx512) echo 2 ;; *) echo 0 ;; esac; }

# What the libraries say of themselves: the kernels of ATen, oneDNN's instruction set, MKL's mode, threads.
effect() {
  MKL_VERBOSE=1 $PYTHON - <<'EOF' 2>&1 | grep -oE 'ATen .*|isa:.*|CNR:[A-Z0-9_,]+' | sort -u | paste -sd ';'
import torch

print(f"ATen {torch.backends.cpu.get_cpu_capability()} on {torch.get_num_threads()} threads")
with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
    torch.nn.functional.conv2d(torch.ones(4, 64, 56, 56), torch.ones(64, 64, 3, 3))
torch.ones(256, 256) @ torch.ones(256, 256)
EOF
}

# Asked without the variable: with it, torch would take kernels that the processor cannot run.
most=$(env -u ATEN_CPU_CAPABILITY $PYTHON -c "import torch; print(torch.backends.cpu.get_cpu_capability())") || exit 1
table=$(printf '%-38s %7s %7s %7s %7s' "ATen, oneDNN, MKL, threads" passed failed skipped seconds)
status=0
for number in $(if (($#)); then echo "$@"; else seq ${#COMBINATIONS[@]}; fi); do
  read -r aten onednn mkl threads <<<"${COMBINATIONS[number - 1]}"
  name="$number: $aten, $onednn, $mkl, $threads"
  if (($(rank "$aten") > $(rank "$most"))); then
    echo "== $name: skipped, this processor has no $aten"
    table+=$(printf '\n%-38s %s' "$name" "not on this processor")
    continue
  fi
  began=$SECONDS
  log=$LOGS/$number.log
  (
    export ATEN_CPU_CAPABILITY=$aten ONEDNN_MAX_CPU_ISA=$onednn OMP_NUM_THREADS=$threads MKL_NUM_THREADS=$threads
    export MKL_DYNAMIC=FALSE # else MKL takes no more threads than there are cores
    if [[ $mkl == default ]]; then unset MKL_CBWR; else export MKL_CBWR=$mkl; fi
    found=$(effect)
    echo "== $name: $found"
    [[ $found == *"ATen ${aten^^} on $threads threads"* ]] || { echo "the variables have no effect"; exit 1; }
    # shellcheck disable=SC2086
    $PYTHON -m pytest -q -n "${JOBS:-auto}" --maxprocesses 4 --dist loadfile -m "$MARKERS" ${ARGS:-} "${TESTS[@]}"
  ) 2>&1 | tee "$log" | grep --line-buffered -E '^(== |FAILED|ERROR|the variables)'
  ended=${PIPESTATUS[0]}
  ((ended == 0)) || status=1
  count() { grep -E '^(=+ )?[0-9]+ .* in [0-9.]+s' "$log" | tail -1 | grep -oE "[0-9]+ $1" | grep -oE '[0-9]+' || echo 0; }
  failed=$(($(count failed) + $(count error)))
  ((ended == 0 || failed)) || failed="exit $ended"
  table+=$(printf '\n%-38s %7s %7s %7s %7s' "$name" "$(count passed)" "$failed" "$(count skipped)" $((SECONDS - began)))
done
echo
echo "$table"
echo "output: $LOGS"
exit $status
