"""What consumers cost devices, and how soon they have an event: the parts latency, consumers and cold."""

import multiprocessing
import os
import socket
import statistics
import struct
import subprocess
import threading
import time

from measure import FLOOD, RATE, drop_page_cache, ratio, resident_bytes, run_json, table

FETCH_BYTES = 16 << 20
PARTITIONS = 16
MEMORY_EVERY_S = 0.1


# ---- Kafka, as far as a rude client speaks it --------------------------------------------------------

def text(value):
    return struct.pack(">h", len(value)) + value.encode()


def request(api, version, body):
    packet = struct.pack(">hhih", api, version, 1, -1) + body
    return struct.pack(">i", len(packet)) + packet


def fetch_all(topic):
    """Fetch of 16 MiB from the beginning of every partition."""
    partitions = b"".join(struct.pack(">iqqi", number, 0, -1, FETCH_BYTES) for number in range(PARTITIONS))
    return request(1, 5, struct.pack(">iiiibi", -1, 100, 1, FETCH_BYTES, 0, 1) + text(topic) +
                   struct.pack(">i", PARTITIONS) + partitions)


def read_answer(connection):
    size, = struct.unpack(">i", connection.recv(4, socket.MSG_WAITALL))
    while size > 0:
        size -= len(connection.recv(min(size, 1 << 20)))


def login(env):
    connection = socket.create_connection(("127.0.0.1", int(env["DURAGATE_KAFKA_PORT"])))
    secret = f"\0{env['DURAGATE_KAFKA_USER']}\0{env['DURAGATE_KAFKA_PASSWORD']}".encode()
    for packet in (request(17, 1, text("PLAIN")), request(36, 0, struct.pack(">i", len(secret)) + secret)):
        connection.sendall(packet)
        read_answer(connection)
    return connection


def stall(env, count):
    """Connections that ask for everything and never read."""
    connections = []
    for _ in range(count):
        connections.append(login(env))
        connections[-1].sendall(fetch_all(env["DURAGATE_TOPIC"]))
    time.sleep(3600)


def be_hostile(env, count):
    """Connections that ask for everything again and again, several requests ahead; some come and go."""
    os.nice(19)  # what it costs the gateway is of interest, not what it takes from the devices' programs itself

    def one(number):
        while True:
            try:
                connection = login(env)
                for _ in range(8 if number % 4 else 1):
                    connection.sendall(fetch_all(env["DURAGATE_TOPIC"]) * 2)
                    read_answer(connection)
                connection.close()
            except (OSError, struct.error):
                time.sleep(0.05)  # refused: come again

    for number in range(count):
        threading.Thread(target=one, args=(number,), daemon=True).start()
    time.sleep(3600)


def drop_again_and_again(directory):
    while True:
        drop_page_cache(directory)
        time.sleep(0.5)


# ---- parts -------------------------------------------------------------------------------------------

class Beside:
    """Runs functions with arguments, and commands, in processes of their own for as long as it is entered."""

    def __init__(self, *calls):
        self.calls, self.processes = calls, []

    def __enter__(self):
        for call in self.calls:
            if callable(call[0]):
                process = multiprocessing.Process(target=call[0], args=call[1:], daemon=True)
                process.start()
            else:
                process = subprocess.Popen(call, stdout=subprocess.DEVNULL)
            self.processes.append(process)
        if self.processes:
            time.sleep(2)  # until they are at it

    def __exit__(self, *unused):
        for process in self.processes:
            process.kill()
            (process.join if hasattr(process, "join") else process.wait)()


class Memory:
    """The most that a process has had resident while it is entered."""

    def __init__(self, pid):
        self.pid, self.most, self.done = pid, 0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def watch(self):
        while not self.done.wait(MEMORY_EVERY_S):
            self.most = max(self.most, resident_bytes(self.pid))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *unused):
        self.done.set()
        self.thread.join()


def fill(m, server):
    m.bench(server, *FLOOD, "--duration", "4s")


def part_latency(m, servers, options):
    server = servers[0]
    env, runs = server.env, []
    for number in range(options.rounds):
        print(f"  round {number + 1}", flush=True)
        runs.append(run_json([
            os.path.join(m.build, "tests/perf/latency_bench"), env["DURAGATE_MQTT_PORT"],
            "127.0.0.1:" + env["DURAGATE_KAFKA_PORT"], env["DURAGATE_KAFKA_USER"], env["DURAGATE_KAFKA_PASSWORD"],
            env["DURAGATE_TOPIC"], str(PARTITIONS), m.devices, "20", "2000"]))
    median = {figure: statistics.median(run[figure] for run in runs) for figure in runs[0]}
    return table("From acknowledgement to a waiting consumer, 2,000 messages/s", ["p50", "p99"],
                 [("publish to acknowledgement", [f"{median['ack_p50_us']:.0f} µs", f"{median['ack_p99_us']:.0f} µs"]),
                  ("acknowledgement to consumer", [f"{median['read_after_ack_p50_us']:.0f} µs",
                                                   f"{median['read_after_ack_p99_us']:.0f} µs"])])


def compare_beside(m, server, options, title, rows):
    """rows: name, calls for Beside. Devices publish steadily meanwhile."""
    results = {name: [] for name, _ in rows}
    for number in range(options.rounds):
        for name, calls in rows:
            print(f"  round {number + 1}: {name}", flush=True)
            before = resident_bytes(server.pid)
            with Beside(*calls), Memory(server.pid) as memory:
                run = m.bench(server, *RATE, "--duration", "15s")
            results[name].append((run["p50_us"], run["p99_us"], max(memory.most - before, 0)))
    medians = {name: [statistics.median(values) for values in zip(*runs)] for name, runs in results.items()}
    first = medians[rows[0][0]]
    return table(title, ["p50", "p99", "of the first: p50", "p99", "gateway's memory grew by"],
                 [(name, [f"{p50:.0f} µs", f"{p99:.0f} µs", ratio(p50, first[0]), ratio(p99, first[1]),
                          f"{grown / 1048576:.1f} MiB"]) for name, (p50, p99, grown) in medians.items()])


def part_consumers(m, servers, options):
    server = servers[0]
    fill(m, server)
    directory = os.path.join(server.var, "stream")
    return compare_beside(m, server, options, "Devices' acknowledgements at 2,000 messages/s beside consumers", [
        ("no consumer", []),
        ("10 that ask for 16 MiB and never read", [(stall, server.env, 10)]),
        ("50 that ask for 16 MiB from cold offsets, again and again",
         [(be_hostile, server.env, 50), (drop_again_and_again, directory)])])


def part_cold(m, servers, options):
    server = servers[0]
    fill(m, server)
    directory = os.path.join(server.var, "stream")
    reader = m.fetch_command(server, seconds=3600)
    return compare_beside(m, server, options, "Devices' acknowledgements at 2,000 messages/s beside a reader", [
        ("no reader", []),
        ("page cache dropped, no reader", [(drop_again_and_again, directory)]),
        ("one from the beginning, page cache dropped", [reader, (drop_again_and_again, directory)])])
