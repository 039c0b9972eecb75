#!/usr/bin/env bash
# The test suite in three processes, two at a time: `make test`, `make test-slow` and `make compat`.
#
#     tests/run_suite.sh PYTHON [option of pytest ...]
#
# Triton reads TRITON_INTERPRET once in a process. So the kernels' tests run twice: with the interpreter, which executes
# the kernels on the CPU, and without it, which compiles them for GPUs that are not there. The first run and then the
# folders of BESIDE take one core, the rest of the suite takes the other one.
#
# pytest-xdist would not replace this: the interpreter still needs a process of its own, and every worker would import
# torch and compile again what the tests of one process share.
set -u

python=$1
shift
# A hung test ends with its traceback; the slowest takes a fraction of this.
pytest=("$python" -m pytest --timeout=600 --durations=10 --durations-min=5)
BESIDE=(tests/data tests/report tests/training tests/bench tests/experiments)
NOTHING_SELECTED=5

# Half of the cores for each process: threads that wait for a core spin.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((($(nproc) + 1) / 2))}

work=$(mktemp -d)
echo 1 1 >"$work/statuses" # in case the second process is killed

run_beside() {
    trap 'kill $run; exit 1' TERM
    TRITON_INTERPRET=1 "${pytest[@]}" tests/kernels "$@" &
    run=$!
    wait $run
    kernels=$?
    "${pytest[@]}" "${BESIDE[@]}" "$@" &
    run=$!
    wait $run
    echo $kernels $? >"$work/statuses"
}

run_beside "$@" >"$work/log" 2>&1 &
beside=$!
trap 'kill $beside; rm -rf "$work"; exit 1' INT TERM
"${pytest[@]}" "${BESIDE[@]/#/--ignore=}" "$@"
suite=$?
wait $beside
cat "$work/log"
statuses="$suite $(cat "$work/statuses")"
rm -rf "$work"

for status in $statuses; do
    [ "$status" -eq 0 ] || [ "$status" -eq $NOTHING_SELECTED ] || exit 1
done
[ "$statuses" != "$NOTHING_SELECTED $NOTHING_SELECTED $NOTHING_SELECTED" ]
