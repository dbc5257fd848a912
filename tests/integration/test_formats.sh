#!/usr/bin/env bash
# Every safetensors file of a version keeps the published rules of the format, by a reader that is not ours: a header of at
# most 100 MB that begins with '{', known types, sizes that fit the shapes, no hole, no overlap, an exact end.
. "$(dirname "$0")/lib.sh"
small_data 512
small_job "$work/job.yaml" "$work/store" 2 1 1
timeout -k 5 100 "$PARAMILL" train "$work/job.yaml" >"$work/log" 2>&1 || { cat "$work/log"; fail "training"; }
cat >"$work/rules.py" <<'PY'
import json, struct, sys

SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8}

def no_twice(pairs):
    keys = [k for k, _ in pairs]
    assert len(keys) == len(set(keys)), "a key twice"
    return dict(pairs)

def check(path):
    data = open(path, "rb").read()
    length, = struct.unpack("<Q", data[:8])
    assert length <= 100_000_000 and 8 + length <= len(data) and data[8:9] == b"{", "header"
    header = json.loads(data[8:8 + length].decode(), object_pairs_hook=no_twice)
    metadata = header.pop("__metadata__", {})
    assert all(isinstance(v, str) for v in metadata.values()), "metadata"
    end = 0
    for name, t in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        assert set(t) == {"dtype", "shape", "data_offsets"}, name
        begin, after = t["data_offsets"]
        count = 1
        for extent in t["shape"]:
            count *= extent
        assert begin == end and after - begin == count * SIZES[t["dtype"]], f"{name} at {begin}, not {end}"
        end = after
    assert 8 + length + end == len(data), "the end"
    return len(header)

for path in sys.argv[1:]:
    print(path.rsplit("/", 1)[1], check(path), "tensors")
PY
folder=$(ls -d "$work"/store/small/versions/* | tail -n 1)
/usr/bin/python3 "$work/rules.py" "$folder"/*.safetensors || fail "the format's rules"
head -c -1 "$folder/model.safetensors" >"$work/short.safetensors"
if /usr/bin/python3 "$work/rules.py" "$work/short.safetensors" 2>/dev/null; then fail "the check passes a short file"; fi
