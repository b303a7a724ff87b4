#!/usr/bin/env bash
# Plants each bug of `planted/` in a copy of the working tree, and demands that the simulation finds it.
#
#   plant.sh [--check] [seeds]
#
# With --check it only sees whether each patch still applies. Otherwise one line for each bug: within how many seeds it was
# found (at most 10,000, or what is given), and the promise that was broken. Five minutes on two idle cores, most of it building.
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
# Cargo may take what an interrupted run has built there, with a bug in it, for what it would build from unchanged files: thus
# they are new each time, and gone in the end.
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree"
git ls-files -z --cached --others --exclude-standard | tar --null --files-from - --create | tar --extract --touch --directory "$tree"
cd "$tree"
export RUST_BACKTRACE=0 CARGO_TARGET_DIR=$root/target
sound=$(cargo test --quiet --locked --test simulation --no-run --message-format json |
    sed -n 's/.*"executable":"\([^"]*\/simulation-[^"]*\)".*/\1/p')
cp "$sound" "$tree/sound"
missed=0
for patch in "$planted"/${ONLY:-*}.patch; do
    name=$(basename "$patch" .patch)
    patch --quiet --strip 1 <"$patch"
    first=0
    while :; do
        STEADFAST_FIRST_SEED=$first STEADFAST_SEEDS=$((seeds - first)) cargo test --quiet --locked \
            --test simulation every_promise >"$tree/output" 2>&1 || true
        found=$(sed -n 's/^seed \([0-9]*\) breaks a promise, .* to do so: \([^:]*\).*/\1 \2/p' "$tree/output" | head -1)
        seed=${found%% *}
        # What breaks without the bug, too, says nothing about it.
        if [ -z "$seed" ] || STEADFAST_SEED=$seed "$tree/sound" every_promise >"$tree/without" 2>&1; then
            break
        fi
        echo "seed $seed breaks a promise with nothing planted: ${found#* }" >&2
        first=$((seed + 1))
    done
    patch --quiet --strip 1 --reverse <"$patch"
    if [ -n "$found" ]; then
        echo "| $name | $((seed + 1)) | ${found#* } |"
    else
        missed=$((missed + 1))
        echo "| $name | not found in $seeds seeds |"
        grep -E "^error|panicked" -A 5 "$tree/output" | head -20 || true
    fi
done
exit "$missed"
