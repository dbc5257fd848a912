#!/usr/bin/python3
"""Two routers, two infer workers and their clients: answers are the trainer's own forward pass bit for bit, alone and
in any batch; bad requests are refused by name and disturb nobody; a router may die; the command line reads files."""
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

import numpy
import zmq

PARAMILL, SOURCE, BUILD = os.environ["PARAMILL"], os.environ["SOURCE"], os.environ["BUILD"]
sys.path.insert(0, f"{BUILD}/client/python")
from paramill import Client, InvalidRequest, NotFound, RequestTimeout, inference_pb2, paramill_pb2  # noqa: E402

FASHION = "/usr/share/datasets/fashion-mnist"
ROWS = 96
processes = []


def run(*command, **options):
    return subprocess.run(command, capture_output=True, timeout=120, **options)


def paramill(*args):
    done = run(PARAMILL, *args, text=True)
    return done.returncode, done.stdout, done.stderr


class Process:
    def __init__(self, work, name, *args):
        self.name, self.path = name, f"{work}/{name}.log"
        self.log = open(self.path, "w")
        self.process = subprocess.Popen([PARAMILL, *args], stdout=self.log, stderr=self.log)
        processes.append(self)

    def wait_for(self, pattern, seconds=60):
        end = time.time() + seconds
        while time.time() < end:
            found = re.search(pattern, open(self.path).read())
            if found:
                return found
            assert self.process.poll() is None, f"{self.name} ended: {open(self.path).read()}"
            time.sleep(0.02)
        raise AssertionError(f"{self.name}: no {pattern}: {open(self.path).read()}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0, f"{self.name} ended with {self.process.returncode}: {open(self.path).read()}"


def prepare(work):
    script = f"work={work}; fashion={FASHION}; . {SOURCE}/tests/integration/jobs.sh; small_data 1024; " \
             f"small_job {work}/job.yaml {work}/store 1 1 2"
    assert run("bash", "-c", script).returncode == 0, "no job"
    code, _, err = paramill("train", f"{work}/job.yaml")
    assert code == 0, err
    versions = sorted(os.listdir(f"{work}/store/small/versions"))
    outputs = {}
    for version in (versions[2], versions[-1]):
        weights = f"{work}/store/small/versions/{version}/model.safetensors"
        done = run(f"{BUILD}/tests/forward", f"{work}/job.yaml", weights, str(ROWS))
        assert done.returncode == 0, done.stderr
        outputs[int(version)] = numpy.frombuffer(done.stdout, "<f4").reshape(ROWS, 10)
    images = numpy.fromfile(f"{work}/test-x", numpy.uint8)[16:].reshape(-1, 1, 28, 28)[:ROWS]
    return images, outputs


def check_bits(fronts, x, outputs):
    newest = max(outputs)
    with Client(fronts, "small", timeout=30) as client:
        for size in (1, 2, 3, 5, 8, 13, 32, ROWS):
            for at in range(0, ROWS - size + 1, size):
                answer = client.infer(x[at:at + size])
                assert answer.version == newest and len(answer.digest) == 64
                assert answer.output.tobytes() == outputs[newest][at:at + size].tobytes(), (size, at)

    # Many clients at once, so that the router makes batches of strangers.
    wrong = []

    def ask(number):
        with Client(fronts, "small", timeout=30) as client:
            for i in range(40):
                row = (number * 31 + i * 7) % ROWS
                if client.infer(x[row:row + 1]).output.tobytes() != outputs[newest][row:row + 1].tobytes():
                    wrong.append((number, row))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong, wrong
    print("answers equal the trainer's forward pass bit for bit, alone and in batches")


class Bystander(threading.Thread):
    """Keeps asking well-formed questions; counts what goes wrong."""

    def __init__(self, fronts, x, outputs):
        super().__init__(daemon=True)
        self.fronts, self.x, self.outputs = fronts, x, outputs
        self.asked = self.failed = 0
        self.ending = threading.Event()

    def run(self):
        with Client(self.fronts, "small", timeout=30) as client:
            while not self.ending.is_set():
                row = self.asked % ROWS
                self.asked += 1
                try:
                    answer = client.infer(self.x[row:row + 1])
                    good = answer.output.tobytes() == self.outputs[answer.version][row:row + 1].tobytes()
                except Exception as error:  # noqa: BLE001
                    print("bystander:", error)
                    good = False
                self.failed += not good

    def end(self):
        self.ending.set()
        self.join()
        assert self.failed == 0 and self.asked > 0, f"{self.failed} of {self.asked} bystanding requests failed"


def raises(kind, pattern, call):
    try:
        call()
    except kind as error:
        assert re.search(pattern, str(error)) and "\n" not in str(error), str(error)
        return
    raise AssertionError(f"no {kind.__name__}")


def raw_request(front, parts, expect):
    """Sends frames as they are; expect: a pattern in the error's text, or None where silence or a cut is the answer."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(front)
    socket.send_multipart(parts)
    if socket.poll(10000 if expect else 300):
        header = paramill_pb2.Header.FromString(socket.recv_multipart()[0])
        assert expect and re.search(expect, header.error.text), header
    else:
        assert not expect, f"no answer to {expect}"
    socket.close()
    context.term()


def envelope(shape=(1, 1, 28, 28), datatype="FP32", name="image", model="small", protocol=1):
    request = inference_pb2.ModelInferRequest(model_name=model, id="1")
    request.inputs.add(name=name, datatype=datatype, shape=shape)
    header = paramill_pb2.Header(protocol=protocol, request=7, deadline_ms=5000)
    header.infer.kind = paramill_pb2.InferEnvelope.INFER_REQUEST
    header.infer.payload = request.SerializeToString()
    return header.SerializeToString()


def check_refusals(fronts, x, outputs):
    bystander = Bystander(fronts, x, outputs)
    bystander.start()
    front, row = fronts[0], numpy.zeros((1, 1, 28, 28), "f4").tobytes()
    with Client(fronts, "small", timeout=10) as client:
        raises(InvalidRequest, r"rank 3", lambda: client.infer(numpy.zeros((1, 27, 28))))
        raises(InvalidRequest, r"27", lambda: client.infer(numpy.zeros((1, 1, 27, 28))))
        raises(InvalidRequest, r"pixels", lambda: client.infer(numpy.zeros((1, 1, 28, 28)), name="pixels"))
    with Client(fronts, "large", timeout=10) as client:
        raises(NotFound, r"large", lambda: client.infer(numpy.zeros((1, 1, 28, 28))))
    raw_request(front, [envelope(datatype="INT64"), row], "INT64")
    raw_request(front, [envelope(), row[:-4]], "3132|3136")
    raw_request(front, [envelope()], "frame")
    raw_request(front, [envelope(), row, row], "frame")
    raw_request(front, [envelope(shape=(-1, 1, 28, 28)), row], "shape|rows|-1")
    raw_request(front, [envelope(shape=(2**40, 1, 28, 28)), row], "shape|rows|3136")
    raw_request(front, [envelope(protocol=99), row], "99")
    raw_request(front, [b"\xff" * 40], "header|protobuf|message")
    raw_request(front, [b""], "0 bytes")
    raw_request(front, [envelope(), bytes(80 << 20)], "83886080 bytes")
    raw_request(front, [envelope(), bytes((256 << 20) + 4)], None)  # beyond any frame: the connection is cut
    with Client(fronts, "small", timeout=10) as client:
        raises(InvalidRequest, "268435456", lambda: client.infer(numpy.zeros((90000, 1, 28, 28), "f4")))
    bystander.end()
    print("bad requests are refused by name and disturb nobody")


def check_query(work, fronts, images, outputs):
    newest = max(outputs)
    numpy.save(f"{work}/row.npy", images[4].astype("f4") / 255)
    with open(f"{work}/row.json", "w") as f:
        json.dump((images[4].astype("f4") / 255).astype(float).tolist(), f)
    with open(f"{work}/row.pgm", "wb") as f:
        f.write(b"P5\n28 28\n255\n" + images[4].tobytes())
    for name in ("row.npy", "row.json", "row.pgm"):
        code, out, err = paramill("query", "--router", ",".join(fronts), "--model", "small", "--raw", f"{work}/{name}")
        assert code == 0, err
        values = numpy.array([float(v) for v in out.split("\n")[:10]], "f4")
        assert values.tobytes() == outputs[newest][4].tobytes(), (name, out)
    code, out, err = paramill("query", "--router", fronts[0], "--model", "small", f"{work}/row.npy")
    assert code == 0 and f"class {outputs[newest][4].argmax()}" in out and f"version {newest}" in out, out + err
    for args, pattern in (((fronts[0], f"{work}/job.yaml"), "job.yaml"), ((fronts[0], f"{work}/none.npy"), "none.npy"),
                          (("tcp://127.0.0.1:1", f"{work}/row.npy"), "127.0.0.1:1")):
        code, out, err = paramill("query", "--router", args[0], "--model", "small", "--timeout", "1000", args[1])
        assert code != 0 and pattern in err and err.count("\n") == 1, (code, out, err)
    print("the command line asks with .npy, JSON and images")


def check_labels(work, fronts, x, outputs):
    older, newest = sorted(outputs)
    with Client(fronts, "small", timeout=30) as client:
        for version in (older, newest):
            code, _, err = paramill("snapshot", "label", f"{work}/store", "small", "stable", str(version))
            assert code == 0, err
            end = time.time() + 30
            while (answer := client.infer(x[:4])).version != version:
                assert time.time() < end, f"still version {answer.version}"
                time.sleep(0.05)
            assert answer.output.tobytes() == outputs[version][:4].tobytes()
    print("a label that moves moves the answers")


def check_failover(fronts, first, x, outputs):
    bystander = Bystander(fronts, x, outputs)
    bystander.start()
    load = subprocess.Popen([f"{BUILD}/bench/swap_load", "--router", ",".join(fronts), "--model", "small", "--rate", "100",
                             "--seconds", "3"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    time.sleep(1)
    first.process.kill()
    first.process.wait()
    out, _ = load.communicate(timeout=60)
    assert load.returncode == 0 and " 0 failed" in out, out
    bystander.end()
    print("a router killed under load: no request failed")


def main():
    if not os.path.exists(f"{FASHION}/train-images-idx3-ubyte.gz"):
        print("skipped: the package dataset-fashion-mnist is not installed")
        return 77
    with tempfile.TemporaryDirectory() as work:
        try:
            images, outputs = prepare(work)
            x = images.astype("f4") / 255
            assert paramill("snapshot", "label", f"{work}/store", "small", "stable", str(max(outputs)))[0] == 0
            fronts, backs, routers = [], [], []
            for i in range(2):
                router = Process(work, f"router-{i}", "router", "--front", "tcp://127.0.0.1:*", "--back", "tcp://127.0.0.1:*")
                found = router.wait_for(r"event=listening front=(\S+) back=(\S+)")
                routers.append(router)
                fronts.append(found[1])
                backs.append(found[2])
            code, _, err = paramill("router", "--front", fronts[0], "--back", "tcp://127.0.0.1:*")
            assert code != 0 and fronts[0] in err, f"a port in use: {code} {err}"
            workers = [Process(work, f"infer-{i}", "infer", "--router", backs[0], "--router", backs[1], "--store",
                               f"{work}/store", "--model", "small", "--version", "stable", "--threads", str(i + 1)) for i in range(2)]
            for w in workers:
                w.wait_for("event=serves")
            check_bits(fronts, x, outputs)
            check_refusals(fronts, x, outputs)
            check_query(work, fronts, images, outputs)
            check_labels(work, fronts, x, outputs)
            check_failover(fronts, routers[0], x, outputs)
            for p in workers + routers[1:]:
                p.stop()
        finally:
            for p in processes:
                if p.process.poll() is None:
                    p.process.kill()
                    p.process.wait()
    return 0


sys.exit(main())
