"""A gateway of one's own for a test: deploy/up with its state in a temporary directory."""

import collections
import contextlib
import json
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILDS = os.environ.get("DURAGATE_BUILDS", os.path.join(ROOT, "build-tests"))


class Gateway:
    """deploy/up ... deploy/down. settings: configuration keys as the environment names them. own_ports: none
    that the gateway of another test might take meanwhile."""

    def __init__(self, build="asan", settings=None, own_ports=True):
        self.build = os.path.join(BUILDS, build)  # an absolute build stays as it is
        self.root = ROOT  # whose deploy/up
        self.directory = tempfile.mkdtemp(prefix="duragate-e2e-")
        os.chmod(self.directory, 0o755)
        self.var = os.path.join(self.directory, "var")
        self.environment = dict(os.environ, DURAGATE_VAR=self.var, **(settings or {}))
        self.env = {}
        if own_ports:
            os.mkdir(self.var, 0o755)
            self.choose_ports()

    def choose_ports(self):
        self.ports = free_ports("mqtt", "mqtts", "kafka", "kafkas", "https", "http")
        with open(os.path.join(self.var, "ports"), "w", encoding="ascii") as file:
            file.writelines(f"port_{name}={port}\n" for name, port in self.ports.items())

    def up(self, *arguments):
        done = subprocess.run(
            [os.path.join(self.root, "deploy/up"), "--build", self.build, *arguments],
            env=self.environment, capture_output=True, text=True, timeout=180, check=False)
        if done.returncode != 0 and "Address already in use" in self.log()[-3000:] and not self.env:
            self.choose_ports()  # another test has taken one meanwhile
            return self.up(*arguments)
        if done.returncode != 0:
            raise AssertionError("deploy/up failed:\n" + done.stdout + done.stderr + self.log()[-3000:])
        self.output = done.stdout
        with open(os.path.join(self.var, "demo.env"), encoding="utf-8") as file:
            for line in file:
                name, _, value = line.rstrip("\n").partition("=")
                self.env[name] = shlex.split(value)[0] if value else ""
        return self

    def down(self):
        subprocess.run([os.path.join(ROOT, "deploy/down")], env=self.environment,
                       capture_output=True, timeout=120, check=True)

    def close(self):
        try:
            self.down()
        finally:
            shutil.rmtree(self.postgres_home(), ignore_errors=True)
            shutil.rmtree(self.directory, ignore_errors=True)

    def postgres_home(self):
        """Where the gateway's own PostgreSQL lives: not always below the directory."""
        try:
            with open(os.path.join(self.var, "duragate.yaml"), encoding="utf-8") as file:
                return next(line for line in file if "conninfo" in line).split("host=")[1].split()[0]
        except (FileNotFoundError, StopIteration):
            return self.directory

    def __getattr__(self, name):
        """gateway.MQTT_PORT is DURAGATE_MQTT_PORT of demo.env."""
        try:
            return self.__dict__["env"]["DURAGATE_" + name]
        except KeyError:
            raise AttributeError(name) from None

    def log(self):
        try:
            with open(os.path.join(self.var, "duragate.log"), encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def pid(self):
        with open(self.PID_FILE, encoding="ascii") as file:
            return int(file.read())

    def kill(self, number=signal.SIGKILL):
        pid = self.pid()
        os.kill(pid, number)
        wait_until(lambda: not os.path.exists(f"/proc/{pid}/exe") or zombie(pid), 30)

    def api(self, method, path, body=None, headers=None, key=None, url=None):
        """(status, parsed body, headers) of one call of the HTTP API."""
        request = urllib.request.Request((url or self.HTTP_URL) + path, method=method)
        request.add_header("Authorization", "Bearer " + (key or self.API_KEY))
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, data, timeout=20) as answer:
                return answer.status, parse(answer.read()), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, parse(error.read()), error.headers

    def device(self, name, tenant=None):
        """Makes a device with a generated key; returns the key."""
        path = f"/v1/tenants/{tenant or self.TENANT}/devices/{name}"
        status, body, _ = self.api("PUT", path, {})
        assert status in (200, 201), (status, body)
        status, body, _ = self.api("POST", path + "/credentials", {"name": "key", "kind": "key"})
        assert status == 201, (status, body)
        return body["key"]

    def publish(self, *arguments, device=None, key=None, check=True, port=None):
        return subprocess.run(
            ["mosquitto_pub", "-h", "localhost", "-p", str(port or self.MQTT_PORT),
             "-u", f"{device or self.DEVICE}@{self.TENANT}", "-P", key or self.DEVICE_KEY,
             *arguments], capture_output=True, text=True, timeout=60, check=check)

    def consume(self, *arguments, topic=None, format="%p %o %T %k|%h|%s\\n"):
        """Everything in a topic, as kcat prints it."""
        done = subprocess.run(
            ["kcat", "-F", os.path.join(self.var, "kcat.conf"), "-C", "-q", "-e", "-t",
             topic or self.TOPIC, "-o", "beginning", "-f", format, *arguments],
            capture_output=True, timeout=120, check=False)
        if done.returncode != 0:
            raise AssertionError("kcat: " + done.stderr.decode(errors="replace"))
        return done.stdout.decode(errors="surrogateescape")

    def psql(self):
        """(command line, environment) of psql on the gateway's database."""
        with open(os.path.join(self.var, "registry.password"), encoding="ascii") as file:
            password = file.read().strip()
        return (["psql", "-h", self.postgres_home(), "-U", "duragate", "-d", "duragate", "-AtqX"],
                dict(os.environ, PGPASSWORD=password))

    def sql(self, text):
        """What SQL behind the gateway's back prints."""
        command, environment = self.psql()
        return subprocess.run([*command, "-v", "ON_ERROR_STOP=1", "-c", text], env=environment,
                              capture_output=True, text=True, timeout=300, check=True).stdout.strip()

    @contextlib.contextmanager
    def locked(self, table):
        """Statements that read the table wait meanwhile, until their deadline."""
        command, environment = self.psql()
        with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True) as holder:
            holder.stdin.write(f"begin; lock table {table} in access exclusive mode; select 'held';\n")
            holder.stdin.flush()
            assert holder.stdout.readline().strip() == "held"
            try:
                yield
            finally:
                holder.stdin.close()
                holder.wait(30)

    def metric(self, name):
        with urllib.request.urlopen(self.HTTP_URL + "/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith((name + " ", name + "{")):
                    return float(line.rsplit(" ", 1)[1])
        raise AssertionError("no metric " + name)


class SecondGateway(Gateway):
    """One more instance on the registry of another one, with a stream and ports of its own."""

    def __init__(self, first):
        super().__init__(first.build)
        self.first = first
        self.process = None
        self.env = dict(first.env)

    def up(self):
        with open(os.path.join(self.first.var, "duragate.yaml"), encoding="utf-8") as file:
            settings = file.read()
        for name, port in self.ports.items():
            settings = settings.replace(f":{self.first.ports[name]}", f":{port}")
        for name in ("duragate.pid", "stream"):
            settings = settings.replace(os.path.join(self.first.var, name), os.path.join(self.var, name))
        for path in ("duragate.yaml", "kcat.conf"):
            with open(os.path.join(self.var, path), "w", encoding="utf-8") as file:
                file.write(settings if path == "duragate.yaml" else self.kcat())
        os.makedirs(os.path.join(self.var, "stream"), exist_ok=True)
        with open(os.path.join(self.var, "duragate.log"), "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [os.path.join(self.build, "duragate"), "serve", "--config", os.path.join(self.var, "duragate.yaml")],
                env=self.first.environment, stdout=log, stderr=log)
        self.env.update(DURAGATE_MQTT_PORT=str(self.ports["mqtt"]), DURAGATE_PID_FILE=os.path.join(self.var, "duragate.pid"),
                        DURAGATE_HTTP_URL=f"http://127.0.0.1:{self.ports['http']}")
        wait_until(self.is_ready, 60)
        return self

    def kcat(self):
        with open(os.path.join(self.first.var, "kcat.conf"), encoding="utf-8") as file:
            return file.read().replace(f":{self.first.ports['kafka']}", f":{self.ports['kafka']}")

    def is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError("the second gateway has ended:\n" + self.log()[-3000:])
        try:
            with urllib.request.urlopen(self.HTTP_URL + "/readyz", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def postgres_home(self):
        return self.first.postgres_home()

    def psql(self):
        return self.first.psql()

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)
        shutil.rmtree(self.directory, ignore_errors=True)


class AckedPublisher:
    """Devices that publish numbers through libmosquitto, across the gateway's deaths (acked_publisher.c).
    It writes to a file: nobody reads meanwhile, and a full pipe would stop the load."""

    def __init__(self, gateway, devices, seconds, qos=1):
        arguments = [text for name in devices for text in (f"{name}@{gateway.TENANT}", gateway.device(name))]
        self.gateway = gateway
        self.lines = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [os.path.join(BUILDS, "asan/tests/e2e/acked_publisher"), gateway.MQTT_PORT, str(seconds), str(qos),
             *arguments],
            stdout=self.lines, stderr=subprocess.PIPE, text=True)

    def acknowledged(self):
        """device -> numbers, when the load has come to its end."""
        _, states = self.process.communicate(timeout=120)
        if self.process.returncode != 0:
            raise AssertionError("not everything was acknowledged:\n" + states + self.gateway.log()[-6000:])
        numbers = collections.defaultdict(list)
        self.lines.seek(0)
        for line in self.lines:
            user, number = line.split()
            numbers[user.split("@")[0]].append(int(number))
        return numbers

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self.lines.close()


def free_ports(*names):
    """name -> port. Below those that the kernel gives to clients: still free when the gateway starts again."""
    ports, left = {}, list(names)
    while left:
        port = random.randint(20000, 30000)
        with socket.socket() as probe:
            if port not in ports.values() and probe.connect_ex(("127.0.0.1", port)) != 0:
                ports[left.pop()] = port
    return ports


def zombie(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def parse(body):
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


def wait_until(condition, seconds):
    """Polls until the condition holds; fails the test when it does not within the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {condition}")
