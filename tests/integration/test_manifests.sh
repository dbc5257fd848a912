#!/usr/bin/env bash
# Every object of k8s/ passes a strict schema check, and the check itself catches a wrong field and a wrong type.
. "$(dirname "$0")/lib.sh"
"$SOURCE/tests/node/install" || exit $?
node_folder=$SOURCE/build/node
cp "$SOURCE/tests/node/manifests.mjs" "$node_folder/"
strict() { node "$node_folder/manifests.mjs" "$@"; }
refused() { # PATTERN, of what $work/wrong.yaml is refused for
    if strict "$work/wrong.yaml" >"$work/out"; then fail "passes: $1"; fi
    grep -q "$1" "$work/out" || { cat "$work/out"; fail "no $1"; }
}

mapfile -t files < <(ls "$SOURCE"/k8s/*.yaml | grep -vE '/(job|kustomization)\.yaml$')
strict "${files[@]}" || fail "k8s/"
sed 's/replicas:/replicaz:/' "$SOURCE/k8s/worker.yaml" >"$work/wrong.yaml"
refused 'replicaz is no field'
sed 's/replicas: .*/replicas: "two"/' "$SOURCE/k8s/worker.yaml" >"$work/wrong.yaml"
refused 'replicas is a string'

if command -v kubectl >/dev/null; then
    kubectl kustomize "$SOURCE/k8s" >"$work/all.yaml" || fail "kustomize"
    strict "$work/all.yaml" || fail "what kustomize makes"
fi
