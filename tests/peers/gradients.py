"""gradients.py PARAMILL [MODEL…]: exports models from PyTorch with random weights, lets `paramill gradient` take one
step on the same rows, and compares the loss, every parameter's gradient and the batch statistics.

The rule: with g PyTorch's gradient of a parameter and h ours, max |h - g| <= 1e-4 max |g| and
|h - g| <= 1e-4 |g| (the norms). A gradient that is zero in exact arithmetic (a bias before a batch normalization, a
key's bias in attention) is rounding noise in both: where max |g| is below 1e-6 of the model's largest gradient,
|h - g| is held against 1e-6 of that instead."""
import copy
import json
import struct
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from residual import Block

TOLERANCE, NOISE, KINK = 1e-4, 1e-6, 2e-6
warnings.filterwarnings("ignore")
torch.set_num_threads(2)


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        x = F.avg_pool2d(torch.tanh(self.conv1(x)), 2)
        x = F.max_pool2d(torch.relu(self.conv2(x)), 2)
        x = torch.tanh(self.fc1(torch.flatten(x, 1)))
        return self.fc3(torch.sigmoid(self.fc2(x)))


class ResNet18(nn.Module):
    """He et al. 2016 in its CIFAR size: a 3x3 stem and no pool before the blocks."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        widths = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
        self.blocks = nn.Sequential(*[Block(*w) for w in widths])
        self.head = nn.Linear(512, 10)

    def forward(self, x):
        return self.head(torch.flatten(F.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1), 1))


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.rnn = kind(12, 20, batch_first=True, **options)
        self.head = nn.Linear(20 * (2 if options.get("bidirectional") else 1), 7)

    def forward(self, x):
        y, _ = self.rnn(x)
        return self.head(y[:, -1])


class Tagger(nn.Module):
    """Tokens through an embedding and two layers of LSTM, both ways, to a class for the row."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.rnn = nn.LSTM(16, 12, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(24, 5)

    def forward(self, tokens):
        y, (h, _) = self.rnn(self.embed(tokens))
        return self.head(y.mean(1) + torch.cat((h[-2], h[-1]), 1))


class GPT(nn.Module):
    """A decoder block as nanoGPT writes it: tokens and positions, causal attention, a GELU MLP, tied to no head."""

    def __init__(self, vocabulary=65, length=16, width=32, heads=4):
        super().__init__()
        self.length, self.width, self.heads = length, width, heads
        self.token, self.place = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.ln1, self.ln2, self.ln3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.register_buffer("mask", torch.tril(torch.ones(length, length)).view(1, 1, length, length))

    def attend(self, x):
        n, t, c = x.size()
        q, k, v = (p.view(n, t, self.heads, c // self.heads).transpose(1, 2) for p in self.qkv(x).split(self.width, dim=2))
        scores = (q @ k.transpose(-2, -1)) * (1.0 / (c // self.heads) ** 0.5)
        scores = F.softmax(scores.masked_fill(self.mask[:, :, :t, :t] == 0, float("-inf")), dim=-1)
        return self.out((scores @ v).transpose(1, 2).contiguous().view(n, t, c))

    def forward(self, tokens):
        x = self.token(tokens) + self.place(torch.arange(0, tokens.size(1)).unsqueeze(0))
        x = x + self.attend(self.ln1(x))
        x = x + self.down(F.gelu(self.up(self.ln2(x))))
        return self.head(self.ln3(x))


class DeepFM(nn.Module):
    """Guo et al. 2017: ids of 8 fields and 4 numbers; linear part, factorization machine, deep part."""

    def __init__(self, fields=8, ids=100, numbers=4, width=8):
        super().__init__()
        self.register_buffer("offsets", torch.arange(fields) * ids)
        self.first, self.embed = nn.Embedding(fields * ids, 1), nn.Embedding(fields * ids, width)
        self.linear = nn.Linear(numbers, 1)
        self.deep = nn.Sequential(nn.Linear(fields * width + numbers, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, ids, numbers):
        at = ids + self.offsets
        e = self.embed(at)
        square = e.sum(1).pow(2) - e.pow(2).sum(1)
        deep = self.deep(torch.cat((e.flatten(1), numbers), 1))
        return self.linear(numbers) + self.first(at).sum(1) + 0.5 * square.sum(1, keepdim=True) + deep


def off_kinks(model, draw):
    """Rows for which, in exact arithmetic, no ReLU of two million lies within rounding of its kink: there the gradient jumps,
    and two engines that differ in the last bit take either side. Of 60 draws the one that stays clear the farthest."""
    exact, best, clear = copy.deepcopy(model).double().train(), None, 0.0
    near = []
    for module in exact.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda m, x, y: near.append(x[0].abs().min().item()))
    for _ in range(60):
        rows = draw()
        near.clear()
        with torch.no_grad():
            exact(rows.double())
        if min(near) > clear:
            best, clear = rows, min(near)
        if clear > KINK:
            break
    print(f"(no ReLU's input is nearer to 0 than {clear:.1e})")
    return best


def tokens(rows, length, limit):
    return torch.randint(0, limit, (rows, length))


def cases():
    mlp = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.Tanh(), nn.Linear(256, 10))
    classes = lambda rows, n: torch.randint(0, n, (rows,))
    ce, bce = "softmax_cross_entropy", "binary_cross_entropy"
    yield "MLP", mlp, (torch.randn(64, 784),), classes(64, 10), ce
    yield "LeNet", LeNet(), (torch.randn(32, 1, 28, 28),), classes(32, 10), ce
    resnet = ResNet18()
    yield "ResNet-18", resnet, (off_kinks(resnet, lambda: torch.randn(4, 3, 32, 32)),), classes(4, 10), ce
    yield "LSTM", Recurrent(nn.LSTM), (torch.randn(16, 9, 12),), classes(16, 7), ce
    yield "LSTM-tagger", Tagger(), (tokens(16, 11, 50),), classes(16, 5), ce
    yield "GRU", Recurrent(nn.GRU), (torch.randn(16, 9, 12),), classes(16, 7), ce
    yield "GRU-both-ways", Recurrent(nn.GRU, num_layers=2, bidirectional=True), (torch.randn(16, 9, 12),), classes(16, 7), ce
    yield "GPT", GPT(), (tokens(8, 16, 65),), tokens(8, 16, 65), ce
    yield "GPT-squares", GPT(), (tokens(8, 16, 65),), torch.randn(8, 16, 65), "mean_squared_error"
    yield "DeepFM", DeepFM(), (torch.randint(0, 100, (64, 8)), torch.randn(64, 4)), torch.randint(0, 2, (64, 1)).float(), bce
    yield "DeepFM-L1", DeepFM(), (torch.randint(0, 100, (64, 8)), torch.randn(64, 4)), torch.randn(64, 1), "l1"


LOSSES = {"softmax_cross_entropy": lambda y, t: F.cross_entropy(y.flatten(0, -2), t.flatten()), "mean_squared_error": F.mse_loss, "l1": F.l1_loss,
          "binary_cross_entropy": F.binary_cross_entropy_with_logits}
KINDS = {"float32": "F32", "int32": "I32", "int64": "I64"}


def write_tensors(path, tensors):
    header, data = {}, b""
    for name, t in tensors.items():
        a = np.ascontiguousarray(t.detach().numpy())
        header[name] = {"dtype": KINDS[str(a.dtype)], "shape": list(a.shape), "data_offsets": [len(data), len(data) + a.nbytes]}
        data += a.tobytes()
    text = json.dumps(header).encode()
    open(path, "wb").write(struct.pack("<Q", len(text)) + text + data)


def read_tensors(path):
    data = open(path, "rb").read()
    length, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    meta = header.pop("__metadata__", {})
    cut = lambda t: np.frombuffer(data[8 + length:][slice(*t["data_offsets"])], "<f4").reshape(t["shape"])
    return {name: cut(t) for name, t in header.items()}, meta


def batch_statistics(model, inputs):
    """What each batch normalization saw: mean and population variance, by the names of its buffers."""
    seen, hooks = {}, []
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            def hook(m, x, y, name=name):
                seen[name + ".running_mean"] = x[0].mean((0, 2, 3)).detach().numpy()
                seen[name + ".running_var"] = x[0].var((0, 2, 3), unbiased=False).detach().numpy()
            hooks.append(module.register_forward_hook(hook))
    with torch.no_grad():
        model(*inputs)
    for h in hooks:
        h.remove()
    return seen


def differences(wanted, got, largest):
    g, h = wanted.astype("f8").ravel(), got.astype("f8").ravel()
    scale, norm = np.abs(g).max(), np.linalg.norm(g)
    if scale <= NOISE * largest:
        return [np.abs(h - g).max() / (NOISE * largest) * TOLERANCE] * 2
    return np.abs(h - g).max() / scale, np.linalg.norm(h - g) / norm


def check(paramill, folder, name, model, inputs, target, loss):
    model.train()
    path = f"{folder}/{name}.onnx"
    state = {k: v.clone() for k, v in model.state_dict().items()}
    input_names = [f"input{i}" for i in range(len(inputs))]
    axes = {n: {0: "N"} for n in input_names + ["output"]}
    torch.onnx.export(model, inputs, path, input_names=input_names, output_names=["output"], dynamic_axes=axes, opset_version=14,
                      training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False)
    model.load_state_dict(state)
    model.train()
    statistics = batch_statistics(model, inputs)
    model.load_state_dict(state)
    value = LOSSES[loss](model(*inputs), target)
    model.zero_grad()
    value.backward()
    wanted = {n: p.grad.numpy() for n, p in model.named_parameters()}
    rows = dict(zip(input_names, inputs), target=target.int() if loss == "softmax_cross_entropy" else target)
    write_tensors(f"{folder}/{name}.rows", rows)
    run = subprocess.run([paramill, "gradient", path, "--rows", f"{folder}/{name}.rows", "--loss", loss, "--out", f"{folder}/{name}.out"],
                         capture_output=True, text=True)
    if run.returncode != 0:
        print(f"{name}: {run.stderr.strip()}")
        return False
    got, meta = read_tensors(f"{folder}/{name}.out")
    statistics = {n: s for n, s in statistics.items() if n in got}
    missing = sorted(n for n in {**wanted, **statistics} if n not in got)
    extra = sorted(n for n in got if n not in wanted and n not in statistics)
    largest = max(np.abs(g).max() for g in wanted.values())
    worst = {n: differences(g, got[n], largest) for n, g in {**wanted, **statistics}.items() if n in got}
    peak, norm = max(w[0] for w in worst.values()), max(w[1] for w in worst.values())
    off = abs(float(meta["loss"]) - value.item()) / abs(value.item())
    good = not missing and not extra and peak <= TOLERANCE and norm <= TOLERANCE and off <= TOLERANCE
    where = max(worst, key=lambda n: max(worst[n]))
    print(f"{name}: {len(wanted)} parameters, {len(statistics)} statistics; largest difference {peak:.1e} of the largest element, "
          f"{norm:.1e} of the norm ({where}); loss {value.item():.6f}, off by {off:.1e}: {'equal' if good else 'DIFFERENT'}")
    for n in missing:
        print(f"  no gradient of {n}")
    for n in extra:
        print(f"  unknown gradient {n} {got[n].shape}")
    if not good:
        for n in sorted(worst, key=lambda n: -max(worst[n]))[:8]:
            print(f"  {n}: {worst[n][0]:.2e} {worst[n][1]:.2e}")
    return good


def main():
    paramill, only = sys.argv[1], sys.argv[2:]
    torch.manual_seed(7)
    with tempfile.TemporaryDirectory() as folder:
        results = [check(paramill, folder, *case) for case in cases() if not only or case[0] in only]
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    sys.exit(0 if results and all(results) else 1)


main()
