"""The clients under test. Each has a driver: a small program with the same commands whatever the client.

A driver is told where to go by its environment: DG_BOOTSTRAP, DG_CA_FILE (empty: plain text), DG_USER,
DG_PASSWORD, DG_MECHANISM, DG_TOPIC, and for members DG_SESSION_MS and DG_STRATEGY. It prints facts, one a
line, and judges nothing; `error TEXT` and exit code 1 when the client reports an error.

    topics                  topic NAME PARTITIONS
    read                    record ..., from the beginning to the end of each partition
    seek PARTITION OFFSET COUNT         record ..., so many from there
    times TIMESTAMP         time PARTITION OFFSET, of the first record at or after it (-1: none)
    member GROUP [INSTANCE] assigned P,P,... at each change and record ..., until standard input ends;
                            then it commits what it printed and leaves
    produce                 refused CODE, or produced
    groups                  group NAME STATE
    describe GROUP          group NAME STATE, then member ID INSTANCE P,P,...
    reset GROUP OFFSET      sets the offset of every partition
    delete GROUP

    record PARTITION OFFSET TIMESTAMP KEY CE_ID CE_TYPE VALUE-IN-HEX ("-" for nothing)
"""

import glob
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))

from harness import BUILDS, ROOT, wait_until  # noqa: E402

WORK = os.path.join(BUILDS, "interop")
CACHE = os.environ.get("DURAGATE_INTEROP_CACHE", os.path.join(WORK, "cache"))


def chosen(name):
    """DURAGATE_INTEROP_CLIENTS picks some; without it, all are tested."""
    return name in os.environ.get("DURAGATE_INTEROP_CLIENTS", name).split()


class Client:
    """What is called what, and what the client itself has no call for."""

    def __init__(self, name, command, lacks=(), produce=("refused 29",), cooperative=None, build=None):
        self.name, self.lacks, self.produce, self.cooperative = name, lacks, produce, cooperative
        self.command, self.build = command, build

    def __str__(self):
        return self.name


def run(command, directory, **environment):
    done = subprocess.run(command, cwd=directory, env=dict(os.environ, **environment), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=1200, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)} in {directory}:\n{done.stdout[-4000:]}")


def prepare(source, build):
    """A copy of the folder below build-tests, built anew when what is built has changed."""
    target = os.path.join(WORK, os.path.basename(source))
    built = ["package.json", "package-lock.json"] if os.path.exists(source + "/package.json") else ["pom.xml", "src"]
    digest = hashlib.sha256()
    for path in sorted(path for name in built for path in glob.glob(f"{source}/{name}/**", recursive=True)
                       + glob.glob(f"{source}/{name}") if os.path.isfile(path)):
        with open(path, "rb") as file:
            digest.update(path.encode() + b"\0" + file.read())
    stamp = os.path.join(target, ".built")
    if os.path.exists(stamp):
        with open(stamp, encoding="ascii") as file:
            if file.read() == digest.hexdigest():
                return target
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("target", "node_modules"))
    build(target)
    with open(stamp, "w", encoding="ascii") as file:
        file.write(digest.hexdigest())
    return target


def build_node(directory):
    """Scripts of packages run for none but the package that has something to compile."""
    run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", CACHE + "/npm"], directory)


def build_confluent(directory):
    """Its ready-made binary is not in the npm registry: the librdkafka in the package is compiled, against
    the libraries of this machine, and the node headers of Debian are used."""
    build_node(directory)
    run(["npm", "rebuild", "--cache", CACHE + "/npm", "@confluentinc/kafka-javascript"], directory,
        CKJS_LINKING="dynamic", npm_config_nodedir="/usr", npm_config_build_from_source="true")


def build_maven(directory):
    run(["mvn", "-q", "-B", "-ntp", "-Dmaven.repo.local=" + CACHE + "/maven", "package"], directory)


CLIENTS = [
    Client("kcat", ["/usr/bin/python3", os.path.join(HERE, "kcat/driver.py")],
           lacks=("groups", "describe", "reset", "delete")),
    Client("librdkafka", [os.path.join(BUILDS, "asan/tests/interop/librdkafka/librdkafka_driver")],
           cooperative="cooperative-sticky"),
    Client("kafkajs", ["node", os.path.join(HERE, "kafkajs/driver.js")], lacks=("static",), build=build_node),
    Client("confluent-javascript", ["node", os.path.join(HERE, "confluent-javascript/driver.js")],
           build=build_confluent),
    Client("java", ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
                    "-cp", "target/classes:target/lib/*", "duragate.Driver"],
           cooperative="org.apache.kafka.clients.consumer.CooperativeStickyAssignor", build=build_maven,
           produce=("refused 35 .*does not support INIT_PRODUCER_ID", "refused 29")),
]


class Record:
    def __init__(self, words):
        self.partition, self.offset, self.timestamp = (int(word) for word in words[:3])
        self.key, self.identity, self.kind = words[3:6]
        self.value = b"" if words[6] == "-" else bytes.fromhex(words[6])

    @property
    def place(self):
        return self.partition, self.offset

    def __eq__(self, other):
        return vars(self) == vars(other)

    def __repr__(self):
        return f"{self.partition}:{self.offset} {self.key} {self.value[:40]!r}"


class Session:
    """Whom the drivers log in as, and where."""

    def __init__(self, client, gateway, tls=False, mechanism="PLAIN", password=None):
        self.client, self.gateway = client, gateway
        self.directory = prepare(os.path.join(HERE, client.name), client.build) if client.build else HERE
        port = gateway.KAFKAS_PORT if tls else gateway.KAFKA_PORT
        self.environment = dict(
            os.environ, NODE_PATH=os.path.join(self.directory, "node_modules"), DG_BOOTSTRAP=f"localhost:{port}", DG_CA_FILE=gateway.CA_FILE if tls else "",
            DG_USER=gateway.KAFKA_USER, DG_PASSWORD=password or gateway.KAFKA_PASSWORD,
            DG_MECHANISM=mechanism, DG_TOPIC=gateway.TOPIC, DG_SESSION_MS="6000", DG_STRATEGY="")

    def start(self, *arguments, **environment):
        return subprocess.Popen([*self.client.command, *map(str, arguments)], cwd=self.directory,
                                env=dict(self.environment, **environment), stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)

    def ask(self, *arguments):
        """The lines that a command prints, as lists of words; an error fails the test."""
        lines, error = self.try_to(*arguments)
        if error:
            raise AssertionError(f"{self.client} {' '.join(map(str, arguments))}: {error}")
        return lines

    def try_to(self, *arguments):
        """(lines, what the client said was wrong: the driver's line and the client's own log)."""
        with self.start(*arguments) as process:
            try:
                output, errors = process.communicate(timeout=90)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise AssertionError(f"{self.client} {arguments} does not come to an end") from None
        lines = output.decode().splitlines()
        error = next((line for line in lines if line.startswith("error ")), "")
        if process.returncode != 0 and not error:
            raise AssertionError(f"{self.client} {arguments}: {process.returncode}\n{errors.decode()[-3000:]}")
        said = error and error + "\n" + errors.decode(errors="replace")
        return [line.split(" ") for line in lines if not line.startswith("error ")], said

    def records(self, *arguments):
        return [Record(words[1:]) for words in self.ask(*arguments) if words[0] == "record"]


class Member:
    """A driver in a group; what it says is collected while it runs."""

    def __init__(self, session, group, instance=None, **environment):
        self.lines, self.said = [], ""
        self.process = session.start("member", group, *([instance] if instance else []), **environment)
        self.readers = [threading.Thread(target=self.collect, daemon=True),
                        threading.Thread(target=self.collect_errors, daemon=True)]
        for reader in self.readers:
            reader.start()

    def collect(self):
        for line in self.process.stdout:
            self.lines.append(line.decode().rstrip("\n").split(" "))

    def collect_errors(self):
        for line in self.process.stderr:
            self.said += line.decode(errors="replace")

    def records(self):
        return [Record(words[1:]) for words in list(self.lines) if words[0] == "record"]

    def values(self):
        return [record.value for record in self.records() if record.kind == "duragate.telemetry.v1"]

    def assignments(self):
        """What it was given at each change, the last one last."""
        return [[int(word) for word in words[1].split(",") if word] for words in list(self.lines)
                if words[0] == "assigned"]

    def partitions(self):
        return (self.assignments() or [[]])[-1]

    def errors(self):
        return [" ".join(words) for words in list(self.lines) if words[0] == "error"]

    def has(self, values):
        assert not self.errors(), self.errors()
        return set(self.values()) >= set(values)

    def leave(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            self.finish()

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.finish()

    def finish(self):
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError("the member does not end") from None
        finally:
            for reader in self.readers:
                reader.join(30)
            for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
                stream.close()


def wait_for(member, values, seconds=60):
    try:
        wait_until(lambda: member.has(values), seconds)
    except AssertionError as error:
        missing = sorted(set(values) - set(member.values()))
        raise AssertionError(f"{error}; missing {missing[:10]} of {len(values)}, owns {member.partitions()}\n"
                             + member.said[-3000:]) from None
