#!/usr/bin/env bash
# Early stopping ends the job at the same step with the same bits whatever the cluster, and leaves the label "best" at the
# version with the least validation loss.
. "$(dirname "$0")/lib.sh"
small_data 1024

# job FILE STORE SERVERS WORKERS: learns fast and far too long, judged by rows held out of the training data.
job() {
    small_job "$1" "$2" "$3" "$4" 40
    sed -i -e '/validation: {/d' -e 's/^  augment: .*/  validation_split: 0.25/' -e 's/every_steps: 10/every_steps: 0/' \
        -e 's/learning_rate: 0.003/learning_rate: 0.02/' -e 's/^epochs: .*/epochs: 40\nearly_stopping: {patience: 2}/' "$1"
}

versions() { ls "$1/small/versions" | sort | tr '\n' ' '; }

job "$work/one.yaml" "$work/one" 1 1
timeout -k 5 200 "$PARAMILL" train "$work/one.yaml" >"$work/log" 2>&1 || { cat "$work/log"; fail "one worker"; }
grep 'validation was best at step' "$work/log" || { cat "$work/log"; fail "it did not stop early"; }
last=$(sed -n 's/.*the job ends at step \([0-9]*\).*/\1/p' "$work/log")
epochs=$((last / 12)) # 768 rows in batches of 64
[ "$(ls "$work/one/small/versions" | wc -l)" -eq "$epochs" ] || fail "$(versions "$work/one") for $epochs epochs"

# The least loss of the log is what "best" says.
best=$(sed -n 's/^validation at step \([0-9]*\): loss \([0-9.]*\).*/\2 \1/p' "$work/log" | sort -n -s | head -n 1)
"$PARAMILL" snapshot show "$work/one" small best >"$work/best" || fail "no version is labelled best"
grep -Eq "step\"?:? *${best#* }\b" "$work/best" || { cat "$work/best"; fail "best is not step ${best#* }"; }

job "$work/more.yaml" "$work/more" 3 4
timeout -k 5 200 "$PARAMILL" train "$work/more.yaml" >"$work/log" 2>&1 || { cat "$work/log"; fail "four workers"; }
[ "$(versions "$work/more")" = "$(versions "$work/one")" ] || fail "$(versions "$work/more") instead of $(versions "$work/one")"
[ "$(weights "$work/more")" = "$(weights "$work/one")" ] || fail "other bits with four workers"
metrics() { "$PARAMILL" snapshot show "$1" small best | grep -E '^ *"(digest|step|validation_loss|validation_accuracy)"'; }
[ "$(metrics "$work/more")" = "$(metrics "$work/one")" ] || { metrics "$work/one"; metrics "$work/more"; fail "another best"; }
metrics "$work/one" | grep -q validation_loss || fail "no validation loss in the best version"

job "$work/up.yaml" "$work/up" 2 2
timeout -k 5 200 "$PARAMILL" up "$work/up.yaml" >"$work/log" 2>&1 || { cat "$work/log"; fail "under up"; }
[ "$(weights "$work/up")" = "$(weights "$work/one")" ] || fail "other bits under up"
echo "the job ended at step $last with the same bits each time"
