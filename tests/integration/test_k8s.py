#!/usr/bin/env python3
"""Starts every container of k8s/ with its exact command line and environment as a process with its own network, host
names and root folder (namespaces and an overlay: needs root and iproute2), trains, and serves over the network."""
import gzip
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

try:
    import yaml
except ImportError:
    print("skipped: python3-yaml is not installed")
    sys.exit(77)

PARAMILL, SOURCE, BUILD = os.environ["PARAMILL"], os.environ["SOURCE"], os.environ["BUILD"]
FASHION = "/usr/share/datasets/fashion-mnist"
BRIDGE, NET = f"pm{os.getpid() % 100000}", f"10.214.{os.getpid() % 250}"  # several may run at once
DEADLINE = time.time() + 240


def skip(why):
    print("skipped:", why)
    sys.exit(77)


if os.environ.get("SANITIZE") == "thread":
    skip("other tests watch threads")


def sh(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def documents():
    for name in sorted(os.listdir(f"{SOURCE}/k8s")):
        if name.endswith(".yaml") and name not in ("job.yaml", "kustomization.yaml"):
            with open(f"{SOURCE}/k8s/{name}") as f:
                yield from (d for d in yaml.safe_load_all(f) if d)


class Pod:
    def __init__(self, number, name, spec, claims, work):
        self.number, self.name, self.work = number, name, work
        self.container = spec["containers"][0]
        self.spec = spec
        self.claims = claims
        self.address = f"{NET}.{number + 10}"
        self.namespace = f"{BRIDGE}-{number}"
        self.root = f"{work}/pod{number}"
        self.process = None

    def up(self, hosts, job):
        sh("ip", "netns", "add", self.namespace)
        sh("ip", "link", "add", f"{BRIDGE}v{self.number}", "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        sh("ip", "link", "set", f"{BRIDGE}v{self.number}", "master", BRIDGE, "up")
        sh("ip", "-n", self.namespace, "addr", "add", f"{self.address}/24", "dev", "eth0")
        sh("ip", "-n", self.namespace, "link", "set", "eth0", "up")
        sh("ip", "-n", self.namespace, "link", "set", "lo", "up")
        for part in ("upper", "scratch", "merged"):
            os.makedirs(f"{self.root}/{part}")
        sh("mount", "-t", "overlay", "overlay", "-o",
           f"lowerdir=/,upperdir={self.root}/upper,workdir={self.root}/scratch", f"{self.root}/merged")
        sh("mount", "-t", "proc", "proc", f"{self.root}/merged/proc")
        with open(f"{self.root}/merged/etc/hosts", "w") as f:
            f.write("127.0.0.1 localhost\n" + hosts + f"{self.address} {self.name}\n")
        os.makedirs(f"{self.root}/merged/data")
        for name in ("train-x", "train-y", "test-x", "test-y"):
            shutil.copy(f"{self.work}/{name}", f"{self.root}/merged/data/")
        shutil.copy(PARAMILL, f"{self.root}/merged/usr/local/bin/paramill")
        for mount in self.container.get("volumeMounts", []):
            path = f"{self.root}/merged{mount['mountPath']}"
            os.makedirs(path, exist_ok=True)
            os.chown(path, 10001, 10001)
            if mount["name"] == "job":
                with open(f"{path}/job.yaml", "w") as f:
                    f.write(job)

    def start(self):
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8",
               "ASAN_OPTIONS": "detect_leaks=1:exitcode=99"}
        for entry in self.container.get("env", []):
            field = entry.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            env[entry["name"]] = self.address if field == "status.podIP" else entry["value"]
        args = [str(a) for a in self.container["args"]]
        for key, value in env.items():
            args = [a.replace(f"$({key})", value) for a in args]
        user = str(self.spec["securityContext"]["runAsUser"])
        command = ["ip", "netns", "exec", self.namespace, "/usr/sbin/chroot", "--userspec", f"{user}:{user}", "--groups=",
                   f"{self.root}/merged", "/usr/local/bin/paramill", *args]
        self.log = open(f"{self.work}/{self.number}-{self.name}.log", "w")
        self.process = subprocess.Popen(command, env=env, stdout=self.log, stderr=self.log)

    def probe(self, kind):
        get = self.container[kind]["httpGet"]
        port = next(p["containerPort"] for p in self.container["ports"] if p["name"] == get["port"])
        return subprocess.run(["ip", "netns", "exec", self.namespace, "curl", "-sf", "-o", "/dev/null", "-m", "2",
                               f"http://{self.address}:{port}{get['path']}"]).returncode == 0

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        assert code in (0, 1), f"{self.name} ended with {code} when asked to stop"  # 1: with its job unfinished

    def down(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for mount in ("merged/proc", "merged"):
            subprocess.run(["umount", f"{self.root}/{mount}"], stderr=subprocess.DEVNULL)
        subprocess.run(["ip", "netns", "del", self.namespace], stderr=subprocess.DEVNULL)


def small_job(work):
    rows = 4096
    for kind, name, n in (("train", "train", rows), ("t10k", "test", 1000)):
        for suffix, head, row, out in (("images-idx3", 16, 784, "x"), ("labels-idx1", 8, 1, "y")):
            data = gzip.open(f"{FASHION}/{kind}-{suffix}-ubyte.gz").read(head + n * row)
            with open(f"{work}/{name}-{out}", "wb") as f:
                f.write(data[:4] + struct.pack(">I", n) + data[8:])
    with open(f"{SOURCE}/k8s/job.yaml") as f:
        job = yaml.safe_load(f)
    job["data"] = {"train": {"features": "/data/train-x", "targets": "/data/train-y"},
                   "validation": {"features": "/data/test-x", "targets": "/data/test-y"}}
    job["epochs"] = 2
    return yaml.safe_dump(job)


def make_pods(docs, work):
    pods, services = [], []
    for d in docs:
        if d["kind"] in ("StatefulSet", "Deployment"):
            for replica in range(d["spec"]["replicas"]):
                pods.append(Pod(len(pods), f"{d['metadata']['name']}-{replica}", d["spec"]["template"]["spec"],
                                d["spec"].get("volumeClaimTemplates", []), work))
                pods[-1].labels = d["spec"]["template"]["metadata"]["labels"]
        elif d["kind"] == "Service":
            services.append(d)
    hosts = ""
    for s in services:
        chosen = [p for p in pods if all(p.labels.get(k) == v for k, v in s["spec"]["selector"].items())]
        assert chosen, f"service {s['metadata']['name']} selects no pod"
        for port in s["spec"]["ports"]:
            assert any(c["name"] == port["targetPort"] for c in chosen[0].container["ports"]), s["metadata"]["name"]
        hosts += f"{chosen[0].address} {s['metadata']['name']}\n"
    return pods, hosts


def wait_for(what, condition, pods):
    while not condition():
        for p in pods:
            if p.process.poll() is not None:
                raise AssertionError(f"{p.name} ended with {p.process.returncode} while waiting for {what}")
        if time.time() > DEADLINE:
            raise AssertionError(f"{what}: not within the time")
        time.sleep(0.5)
    print(what)


def query(pods, work):
    router = next(p for p in pods if p.name.startswith("router"))
    sys.path.insert(0, f"{BUILD}/client/python")
    script = (
        "import sys, numpy, paramill\n"
        f"x = numpy.fromfile('{work}/test-x', numpy.uint8)[16:].reshape(-1, 1, 28, 28)[:200].astype('f4') / 255\n"
        f"y = numpy.fromfile('{work}/test-y', numpy.uint8)[8:][:200]\n"
        f"c = paramill.Client('tcp://{router.address}:8000', model='fashion-cnn')\n"
        "a = c.infer(x)\n"
        "print((a.output.argmax(1) == y).mean(), a.version, a.digest)\n"
    )
    env = dict(os.environ, PYTHONPATH=f"{BUILD}/client/python")
    out = subprocess.run(["ip", "netns", "exec", router.namespace, "/usr/bin/python3", "-c", script], env=env,
                         capture_output=True, text=True, timeout=60)
    assert out.returncode == 0, out.stderr
    accuracy, version, digest = out.stdout.split()
    print(f"served: accuracy {accuracy} on 200 images, version {version}, digest {digest}")
    assert float(accuracy) > 0.6 and len(digest) == 64


def main():
    if os.geteuid() != 0 or not shutil.which("ip"):
        skip("namespaces need root and iproute2")
    if not os.path.exists(f"{FASHION}/train-images-idx3-ubyte.gz"):
        skip("the package dataset-fashion-mnist is not installed")
    base = tempfile.mkdtemp(prefix="pm-k8s-", dir="/var/tmp")
    os.chmod(base, 0o755)
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", base], stderr=subprocess.DEVNULL).returncode:
        os.rmdir(base)
        skip("no mounts are allowed here")
    os.chmod(base, 0o755)
    pods = []
    try:
        try:
            sh("ip", "link", "add", BRIDGE, "type", "bridge")
            sh("ip", "addr", "add", f"{NET}.1/24", "dev", BRIDGE)
            sh("ip", "link", "set", BRIDGE, "up")
        except subprocess.CalledProcessError as error:
            skip(f"no network namespaces here: {error.stderr.decode().strip()}")
        pods, hosts = make_pods(list(documents()), base)
        job = small_job(base)
        try:
            for p in pods:
                p.up(hosts, job)
        except subprocess.CalledProcessError as error:
            skip(f"no network namespaces or overlays here: {error.stderr.decode().strip()}")
        for p in pods:
            p.start()
        wait_for("every pod is alive", lambda: all(p.probe("livenessProbe") for p in pods), pods)
        wait_for("every pod is ready", lambda: all(p.probe("readinessProbe") for p in pods), pods)
        coordinator = next(p for p in pods if p.name.startswith("coordinator"))
        wait_for("the job is done", lambda: "done;" in open(coordinator.log.name).read(), pods)
        time.sleep(2)
        query(pods, base)
        for p in reversed(pods):
            p.stop()
        print(f"{len(pods)} pods trained and served")
    except AssertionError as error:
        for p in pods:
            if p.process:
                print(f"--- {p.name}\n" + open(p.log.name).read()[-1500:])
        print("FAILED:", error)
        return 1
    finally:
        for p in pods:
            p.down()
        subprocess.run(["ip", "link", "del", BRIDGE], stderr=subprocess.DEVNULL)
        subprocess.run(["umount", "-l", base])
        os.rmdir(base)
    return 0


sys.exit(main())
