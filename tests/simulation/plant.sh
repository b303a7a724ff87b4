#!/usr/bin/env bash
# Plants each bug of `planted/` in a copy of the working tree, and demands that the simulation finds it.
#
#   plant.sh [--check] [seeds]
#
# With --check it only sees whether each patch still applies. Otherwise one line for each bug: within how many seeds it was
# found (at most 10,000, or what is given), and the promise that was broken. A quarter of an hour, most of it building.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
planted=$root/tests/simulation/planted

if [ "${1:-}" = --check ]; then
    for patch in "$planted"/*.patch; do
        git apply --check "$patch" || { echo "$(basename "$patch") does not apply any more: plant it anew" >&2; exit 1; }
    done
    echo "all $(ls "$planted"/*.patch | wc -l) planted bugs can be planted"
    exit
fi

seeds=${1:-10000}
# Always the same place, so that what cargo has built there counts the next time.
tree=$root/target/planted
rm -rf "$tree"
mkdir -p "$tree"
git ls-files -z --cached --others --exclude-standard | tar --null --files-from - --create | tar --extract --directory "$tree"
cd "$tree"
missed=0
for patch in "$planted"/${ONLY:-*}.patch; do
    name=$(basename "$patch" .patch)
    patch --quiet --strip 1 <"$patch"
    set +e
    STEADFAST_SEEDS=$seeds RUST_BACKTRACE=0 CARGO_TARGET_DIR=$root/target cargo test --quiet --locked \
        --test simulation every_promise >"$tree/output" 2>&1
    set -e
    patch --quiet --strip 1 --reverse <"$patch"
    found=$(sed -n 's/.*breaks a promise, the first of \([0-9]*\) seeds to do so: \([^:]*\).*/\1 | \2/p' "$tree/output" | head -1)
    if [ -n "$found" ]; then
        echo "| $name | $found |"
    else
        missed=$((missed + 1))
        echo "| $name | not found in $seeds seeds |"
        grep -E "^error|panicked" -A 5 "$tree/output" | head -20 || true
    fi
done
exit "$missed"
