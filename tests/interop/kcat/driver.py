"""kcat as a driver (see ../clients.py)."""

import os
import re
import select
import subprocess
import sys

FORMAT = "%p %o %T %K %S %h\\n%k%s\\n"  # lengths first: keys and values may hold anything


def arguments():
    settings = {
        "bootstrap.servers": os.environ["DG_BOOTSTRAP"],
        "security.protocol": "SASL_SSL" if os.environ["DG_CA_FILE"] else "SASL_PLAINTEXT",
        "sasl.mechanisms": os.environ["DG_MECHANISM"], "sasl.username": os.environ["DG_USER"],
        "sasl.password": os.environ["DG_PASSWORD"], "auto.offset.reset": "earliest"}
    if os.environ["DG_CA_FILE"]:
        settings["ssl.ca.location"] = os.environ["DG_CA_FILE"]
    return ["kcat", *(part for name, value in settings.items() for part in ("-X", f"{name}={value}"))]


def header(headers, name):
    return re.search(r"(?:^|,)" + name + r"=([^,]*)", headers)[1]


def show(head, key, value):
    partition, offset, timestamp, _, _, headers = head.split(" ", 5)
    print("record", partition, offset, timestamp, key.decode(), header(headers, "ce_id"),
          header(headers, "ce_type"), value.hex() or "-", flush=True)


def show_records(stream):
    while head := stream.readline().decode():
        key_size, value_size = (max(0, int(size)) for size in head.split(" ")[3:5])
        body = stream.read(key_size + value_size + 1)
        if len(body) == key_size + value_size + 1:
            show(head.rstrip("\n"), body[:key_size], body[key_size:-1])


def fail(text):
    print("error", " ".join(text.split()), flush=True)
    sys.exit(1)


def run(*more, **options):
    done = subprocess.run([*arguments(), *more], capture_output=True, timeout=60, check=False, **options)
    if done.returncode != 0:
        fail(done.stderr.decode())
    return done


def consume(*more):
    with subprocess.Popen([*arguments(), "-C", "-q", "-u", "-t", os.environ["DG_TOPIC"], "-f", FORMAT, *more],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        show_records(process.stdout)
        errors = process.stderr.read().decode()
    if process.returncode != 0:
        fail(errors)


def topics():
    listing = run("-L", "-m", "5").stdout.decode()
    for name, count in re.findall(r'topic "([^"]*)" with (\d+) partitions', listing):
        print("topic", name, count)


def times(timestamp):
    partitions = range(int(re.search(r"with (\d+) partitions", run(
        "-L", "-m", "5", "-t", os.environ["DG_TOPIC"]).stdout.decode())[1]))
    queries = [part for p in partitions for part in ("-t", f"{os.environ['DG_TOPIC']}:{p}:{timestamp}")]
    for partition, offset in re.findall(r"\[(\d+)\] offset (-?\d+)", run("-Q", *queries).stdout.decode()):
        print("time", partition, offset)


def produce():
    done = subprocess.run([*arguments(), "-P", "-t", os.environ["DG_TOPIC"], "-p", "0", "-X",
                           "message.timeout.ms=20000"], input=b"x", capture_output=True, timeout=60, check=False)
    # It prints texts, no numbers.
    text = done.stderr.decode()
    print("produced" if done.returncode == 0 else
          "refused 29" if "Broker: Topic authorization failed" in text else "refused " + text.strip())


def show_assignments(line, partitions):
    change = re.search(r"rebalanced.*: (assigned|revoked): (.*)", line)
    if change:
        named = {int(number) for number in re.findall(r"\[(\d+)\]", change[2])}
        partitions = partitions | named if change[1] == "assigned" else partitions - named
        print("assigned", ",".join(map(str, sorted(partitions))), flush=True)
    return partitions


class Pump:
    """Two streams of kcat and our own standard input, read as they come."""

    def __init__(self, process):
        self.process, self.partitions = process, set()
        self.buffers = {process.stdout: b"", process.stderr: b""}

    def take(self, stream):
        data = os.read(stream.fileno(), 1 << 16)
        self.buffers[stream] += data
        (self.take_records if stream is self.process.stdout else self.take_lines)()
        return bool(data)

    def take_records(self):
        buffer = self.buffers[self.process.stdout]
        while b"\n" in buffer:
            head, _, rest = buffer.partition(b"\n")
            sizes = [max(0, int(size)) for size in head.split(b" ")[3:5]]
            if len(rest) < sum(sizes) + 1:
                break
            show(head.decode(), rest[:sizes[0]], rest[sizes[0]:sum(sizes)])
            buffer = rest[sum(sizes) + 1:]
        self.buffers[self.process.stdout] = buffer

    def take_lines(self):
        *lines, self.buffers[self.process.stderr] = self.buffers[self.process.stderr].split(b"\n")
        for line in lines:
            self.partitions = show_assignments(line.decode(), self.partitions)


def member(group, instance=None):
    settings = ["-X", f"session.timeout.ms={os.environ['DG_SESSION_MS']}", "-X", "heartbeat.interval.ms=300",
                *(["-X", f"group.instance.id={instance}"] if instance else [])]
    # -E: without it kcat ends when the gateway is away.
    with subprocess.Popen([*arguments(), "-E", "-G", group, "-u", "-f", FORMAT, *settings, os.environ["DG_TOPIC"]],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        pump, waited = Pump(process), [process.stdout, process.stderr, sys.stdin]
        while process.stdout in waited or process.stderr in waited:
            for stream in select.select(waited, [], [])[0]:
                if stream is sys.stdin:
                    process.terminate()
                    waited.remove(stream)
                elif not pump.take(stream):
                    waited.remove(stream)


COMMANDS = {
    "topics": topics, "times": times, "produce": produce, "member": member,
    "read": lambda: consume("-o", "beginning", "-e"),
    "seek": lambda partition, offset, count: consume("-p", partition, "-o", offset, "-c", count),
}

COMMANDS[sys.argv[1]](*sys.argv[2:])
