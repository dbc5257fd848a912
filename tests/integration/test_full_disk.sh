#!/usr/bin/env bash
# A disk that fills up while a version is published: one line says which file and why, the versions published before stay
# whole, and once there is room the job goes on from the newest to the same bits.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" -eq 0 ] || skip "a small disk needs root"
small_data 512
disk=$work/disk
mkdir "$disk"
mount -t tmpfs -o size=230k tmpfs "$disk" 2>/dev/null || skip "no mounts are allowed here"
trap 'umount "$disk"; finish' EXIT

small_job "$work/calm.yaml" "$work/calm" 1 1 4
timeout -k 5 100 "$PARAMILL" train "$work/calm.yaml" >"$work/log" 2>&1 || { cat "$work/log"; fail "the undisturbed run"; }

small_job "$work/job.yaml" "$disk/store" 1 1 4
code=0
timeout -k 5 100 "$PARAMILL" train "$work/job.yaml" >"$work/out" 2>"$work/err" || code=$?
[ "$code" -ne 0 ] && [ "$code" -ne 124 ] || { cat "$work/out" "$work/err"; fail "exit code $code on a full disk"; }
[ "$(grep -c '^paramill' "$work/err")" -eq 1 ] || { cat "$work/err"; fail "not one line"; }
grep -q "^paramill train: .*$disk/store/small/versions/.*No space left" "$work/err" || { cat "$work/err"; fail "which file?"; }
"$PARAMILL" snapshot verify "$disk/store" small all >"$work/out" || { cat "$work/out"; fail "a version is damaged"; }
[ "$(wc -l <"$work/out")" -ge 1 ] || fail "no version was published before"

mount -o remount,size=4m "$disk"
timeout -k 5 100 "$PARAMILL" train --resume "$work/job.yaml" >"$work/log" 2>&1 || { cat "$work/log"; fail "the resumed run"; }
[ "$(weights "$disk/store")" = "$(weights "$work/calm")" ] || fail "other bits after the full disk"
ls -A "$disk/store/small/versions" | grep -q '^\.' && fail "an unfinished version was left behind"
echo "a full disk costs one line and no version"
