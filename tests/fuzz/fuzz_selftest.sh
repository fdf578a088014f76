#!/bin/sh
# fuzz_selftest.sh PROGRAM CORPUS: the fuzz runner finds a planted bug, the same one each time, and replays it.
program=$1
corpus=$2
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
saved=fuzz-crash-fuzz_selftest.bin

fail() {
    echo "fuzz_selftest: $1" >&2
    exit 1
}

"$program" --runs 0 "$corpus" || fail "the corpus itself must pass"
"$program" --runs 100000 --seed 1 "$corpus" 2>first.log && fail "the planted bug was not found"
[ "$(head -c 4 $saved)" = 'BUG!' ] || fail "the saved input is not the one that failed"
cp $saved first.bin
"$program" --runs 100000 --seed 1 "$corpus" 2>second.log && fail "the second run passed"
cmp -s $saved first.bin || fail "the same seed found another input"
[ "$(grep 'fuzz: run' first.log)" = "$(grep 'fuzz: run' second.log)" ] || fail "the run's number changed"
"$program" first.bin 2>/dev/null && fail "the saved input does not fail again"
mkdir empty
"$program" --runs 1 empty 2>/dev/null
[ $? -eq 2 ] || fail "an empty corpus must be an error"
"$program" --runs 1 missing 2>/dev/null
[ $? -eq 2 ] || fail "a missing corpus must be an error"
"$program" --runs x "$corpus" 2>/dev/null
[ $? -eq 2 ] || fail "a bad number must be an error"
echo "fuzz_selftest: passed"
