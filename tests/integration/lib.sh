# What the integration tests share. PARAMILL: the binary; SOURCE: the source tree; both come from ctest.
set -euo pipefail
PARAMILL=${PARAMILL:?the paramill binary}
SOURCE=${SOURCE:?the source tree}
. "$SOURCE/scripts/mpi-environment"
fashion=${PARAMILL_FASHION:-/usr/share/datasets/fashion-mnist}

# Open MPI unloads its plugins before the end, which the leak sanitizer cannot see through; the same code is checked for
# leaks in the other ways of running.
have_mpirun() {
    # Nor is it built with the thread sanitizer, which takes its locks for ours.
    command -v mpirun >/dev/null && [ "${SANITIZE:-}" != thread ]
}
mpirun=(env "ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0" mpirun)

skip() { echo "skipped: $*"; exit 77; }
fail() { echo "FAILED: $*" >&2; exit 1; }

. "$SOURCE/scripts/workspace"
. "$SOURCE/tests/integration/jobs.sh"
