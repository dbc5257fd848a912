"""fine_tuning.py BUILD DATA ONNXRUNTIME_MJS: PyTorch trains a small ResNet on the first 10,000 images, exports it, and goes
on over all 60,000 for one epoch with each of three seeds; so does paramill from the exported file, with the same
optimizer, batch and rate, which falls by a cosine. What must hold: the mean accuracies on the 10,000 test images differ
by less than twice the standard error of their difference (spread over seeds, and of 10,000 answers), both are better
than where they began, and ONNX Runtime gives paramill's outputs within 1e-5.

Batch statistics are of 64 rows here (two lanes) and of 128 there."""
import gzip
import math
import os
import re
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from residual import Block

BATCH, RATE, MOMENTUM, SEEDS, BEGIN = 128, 0.02, 0.9, (1, 2, 3), 10000
warnings.filterwarnings("ignore")
torch.set_num_threads(2)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.Sequential(Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2))
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(torch.flatten(F.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1), 1))


def read(folder, name):
    raw = gzip.open(f"{folder}/{name}.gz", "rb").read()
    if name.endswith("labels-idx1-ubyte"):
        return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=8).astype("i8"))
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=16).astype("f4").reshape(-1, 1, 28, 28) / 255)


def accuracy(model, x, y):
    model.eval()
    with torch.no_grad():
        return sum((model(x[i:i + 500]).argmax(1) == y[i:i + 500]).sum().item() for i in range(0, len(x), 500)) / len(x)


def train(model, x, y, seed):
    torch.manual_seed(seed)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), RATE, MOMENTUM)
    order, steps = torch.randperm(len(x)), len(x) // BATCH
    for step in range(steps):
        rows = order[step * BATCH:(step + 1) * BATCH]
        for group in optimizer.param_groups:
            group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()


def train_here(build, data, folder, seed):
    """The accuracy of the last validation, and the folder of the last version."""
    store, job = f"{folder}/store{seed}", f"{folder}/{seed}.yaml"
    open(job, "w").write(f"""
name: further
seed: {seed}
model: {{onnx: {folder}/begun.onnx}}
data:
  train: {{features: {data}/train-images-idx3-ubyte.gz, targets: {data}/train-labels-idx1-ubyte.gz}}
  validation: {{features: {data}/t10k-images-idx3-ubyte.gz, targets: {data}/t10k-labels-idx1-ubyte.gz}}
loss: softmax_cross_entropy
optimizer: {{kind: momentum, learning_rate: {RATE}, momentum: {MOMENTUM}, schedule: cosine}}
batch: {BATCH}
lanes: 2
epochs: 1
cluster: {{servers: 1, workers: 2}}
checkpoint: {{store: {store}, every_steps: 0, keep: 1}}
""")
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    run = subprocess.run([f"{build}/cli/paramill", "train", job], capture_output=True, text=True, env=environment)
    if run.returncode != 0:
        sys.exit(f"paramill train: {run.stderr}{run.stdout}")
    found = re.findall(r"^validation at .*accuracy ([0-9.]+)", run.stdout + run.stderr, re.M)
    versions = f"{store}/further/versions"
    return float(found[-1]), job, f"{versions}/{sorted(os.listdir(versions))[-1]}"


def opens_elsewhere(build, data, folder, job, version, mjs):
    rows = 256
    x = read(data, "t10k-images-idx3-ubyte")[:rows].numpy()
    x.tofile(f"{folder}/x.f32")
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    with open(f"{folder}/y.f32", "wb") as out:
        # forward reads the job's validation images
        subprocess.run([f"{build}/tests/forward", job, f"{version}/model.safetensors", str(rows)], stdout=out, check=True, env=environment)
    return subprocess.run(["node", mjs, f"{version}/model.onnx", f"{folder}/x.f32", f"{folder}/y.f32", "1e-5"], env=environment).returncode == 0


def main():
    build, data, mjs = sys.argv[1:]
    x, y = read(data, "train-images-idx3-ubyte"), read(data, "train-labels-idx1-ubyte")
    tx, ty = read(data, "t10k-images-idx3-ubyte"), read(data, "t10k-labels-idx1-ubyte")
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(11)
        model = ResNet()
        train(model, x[:BEGIN], y[:BEGIN], 11)
        begun = {k: v.clone() for k, v in model.state_dict().items()}
        begin = accuracy(model, tx, ty)
        torch.onnx.export(model.train(), x[:2], f"{folder}/begun.onnx", input_names=["image"], output_names=["logits"],
                          dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}}, opset_version=14,
                          training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False)
        theirs, ours, opens = [], [], True
        for seed in SEEDS:
            model.load_state_dict(begun)
            train(model, x, y, seed)
            theirs.append(accuracy(model, tx, ty))
            here, job, version = train_here(build, data, folder, seed)
            ours.append(here)
            opens = opens and opens_elsewhere(build, data, folder, job, version, mjs)
            print(f"seed {seed}: PyTorch {theirs[-1]:.4f}, paramill {here:.4f}", flush=True)
    mean = lambda a: sum(a) / len(a)
    p = mean(theirs + ours)
    error = math.sqrt((np.var(theirs, ddof=1) + np.var(ours, ddof=1)) / len(SEEDS) + 2 * p * (1 - p) / len(tx))
    off = mean(ours) - mean(theirs)
    good = abs(off) < 2 * error and min(theirs + ours) > begin and opens
    print(f"from {begin:.4f}: PyTorch {mean(theirs):.4f}, paramill {mean(ours):.4f}; difference {off:+.4f}, noise {error:.4f}; "
          f"{'opens' if opens else 'DOES NOT OPEN'} in ONNX Runtime: {'within noise' if good else 'DIFFERENT'}")
    sys.exit(0 if good else 1)


main()
