"""What the parts of tests/perf/run share: servers, the load generator, tables."""

import glob
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests/e2e"))
from harness import Gateway, wait_until  # noqa: E402, F401  pylint: disable=unused-import

CONNECTIONS = ["--connections", "100"]
FLOOD = CONNECTIONS + ["--window", "32", "--size", "256", "--qos", "1"]
RETENTION = "256MiB"  # a partition: a flood would fill the disk
DEVICES = 10000
RATE = FLOOD + ["--rate", "2000"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """Something to load: how to reach it, and which process to measure."""

    def __init__(self, name, bench, pid, process=None):
        self.name, self.bench, self.pid, self.process = name, bench, pid, process

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)

    def restart(self, **settings):
        if self.process:
            self.stop()
            self.process = start(self.process.args, int(self.bench[self.bench.index("--port") + 1]))
            self.pid = self.process.pid
        else:
            self.gateway.down()
            self.gateway.environment = {**self.environment, **settings}
            self.gateway.up()
            self.pid = self.gateway.pid()


def start(command, port):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        if process.poll() is not None:
            raise SystemExit(f"{command[0]} stopped at once")
        time.sleep(0.1)
    raise SystemExit(f"{command[0]} does not listen")


def start_duragate(gateway):
    env = ["--env", os.path.join(gateway.var, "demo.env")]
    server = Server("Duragate (durable)", env + ["--host", "127.0.0.1"], gateway.pid())
    server.tls = env + ["--host", "localhost", "--tls"]
    server.gateway, server.environment = gateway, gateway.environment
    server.env, server.var = gateway.env, gateway.var
    return server


def run_json(command):
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


class Measurement:
    def __init__(self, build, gateway):
        self.build, self.duragate = build, os.path.join(build, "duragate")
        self.gateway = gateway
        self.devices = os.path.join(gateway.directory, "devices")

    def make_devices(self, server, count):
        """Devices for everything that follows, so that no measurement has to provision."""
        print(f"  provisioning {count} devices", flush=True)
        self.bench(server, "--idle", "--connections", str(count))

    def command(self, server, *arguments, tls=False):
        options = server.tls if tls else server.bench
        if "--anonymous" not in options and "--devices-file" not in arguments:
            options = options + ["--devices-file", self.devices]
        return [self.duragate, "bench", "--json", "--server-pid", str(server.pid), "--ca-file", self.gateway.CA_FILE,
                *options, *arguments]

    def bench(self, server, *arguments, **options):
        done = subprocess.run(self.command(server, *arguments, **options), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{server.name}: {done.stderr}")
        return json.loads(done.stdout)

    def fetch_command(self, server, *arguments, seconds=5):
        """fetch_bench on the whole topic; arguments: of readers, behind the process to measure."""
        env = server.env
        return [os.path.join(self.build, "tests/perf/fetch_bench"), "127.0.0.1:" + env["DURAGATE_KAFKA_PORT"],
                env["DURAGATE_KAFKA_USER"], env["DURAGATE_KAFKA_PASSWORD"], env["DURAGATE_TOPIC"], "16", str(seconds),
                str(server.pid), *arguments]

    def fetch(self, server, *arguments, seconds=5):
        return run_json(self.fetch_command(server, *arguments, seconds=seconds))

    def compare(self, servers, rounds, *arguments, tls=False):
        """name -> figure -> median over the rounds, the servers taking turns."""
        results = {server.name: [] for server in servers}
        for number in range(rounds):
            for server in servers:
                print(f"  round {number + 1}: {server.name}", flush=True)
                results[server.name].append(self.bench(server, *arguments, tls=tls))
        return {name: {figure: statistics.median(run[figure] for run in runs) for figure in runs[0]}
                for name, runs in results.items()}


def read_all(directory):
    """Into the page cache, where the store, which writes around it, does not put anything."""
    for path in glob.glob(os.path.join(directory, "*/*/*.log")):
        with open(path, "rb") as file:
            while file.read(1 << 20):
                pass


def drop_page_cache(directory):
    """Of everything where that is allowed, else of the segments; nothing of them is dirty."""
    try:
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write("1")
    except OSError:
        for path in glob.glob(os.path.join(directory, "*/*/*.log")):
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def ratio(value, first):
    return f"{value / first:.2f}" if first else "-"


def table(title, columns, rows):
    lines = [f"**{title}**", "", "| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    lines += ["| " + name + " | " + " | ".join(cells) + " |" for name, cells in rows]
    return "\n".join(lines) + "\n"
