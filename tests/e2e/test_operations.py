"""Running it: reload, certificates, IPv6, stopping, the offline tools, a full disk."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

from certificates import Certificates
from harness import Gateway, wait_until
from raw_mqtt import Raw

QUOTA_EXCEEDED = 0x97


def configuration(gateway):
    return os.path.join(gateway.var, "duragate.yaml")


def rewrite(path, change):
    """Replaces a file as editors and configuration tools do: by rename."""
    with open(path, encoding="utf-8") as file:
        text = change(file.read())
    with open(path + ".edited", "w", encoding="utf-8") as file:
        file.write(text)
    os.rename(path + ".edited", path)


def metric(gateway, row):
    """The value of one row, labels included."""
    with urllib.request.urlopen(gateway.HTTP_URL + "/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(row + " "):
                return float(line.rsplit(" ", 1)[1])
    raise AssertionError("no metric " + row)


def readyz(gateway):
    try:
        with urllib.request.urlopen(gateway.HTTP_URL + "/readyz", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def duragate(gateway, *arguments, environment=None):
    return subprocess.run([os.path.join(gateway.build, "duragate"), *arguments], capture_output=True, text=True,
                          timeout=60, check=False, env=environment)


class Reload(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway().up()

    @classmethod
    def tearDownClass(cls):
        cls.gateway.close()

    def setUp(self):
        path = configuration(self.gateway)
        with open(path, encoding="utf-8") as file:
            before = file.read()
        self.addCleanup(self.reload, "ok", lambda _: before)

    def reload(self, result, change, signal_number=signal.SIGHUP):
        """Edits the configuration and waits until that was taken up."""
        row = f'duragate_config_reloads_total{{result="{result}"}}'
        before = metric(self.gateway, row)
        rewrite(configuration(self.gateway), change)
        if signal_number:
            os.kill(self.gateway.pid(), signal_number)
        wait_until(lambda: metric(self.gateway, row) > before, 10)

    def set(self, key, value):
        section, name = key.split(".")
        return lambda text: re.sub(f"^{section}:$", f"{section}:\n  {name}: {value}", text, flags=re.M)

    def publish(self, topic):
        self.gateway.publish("-q", "1", "-t", topic, "-m", "x")

    def test_log_level_changes(self):
        self.publish("before")
        self.assertNotIn("event=mqtt.connected", self.gateway.log())
        self.reload("ok", self.set("server.log_level", "debug"))
        self.publish("after")
        wait_until(lambda: "event=mqtt.connected" in self.gateway.log(), 5)

    def test_a_limit_changes(self):
        user = f"{self.gateway.DEVICE}@{self.gateway.TENANT}"
        self.reload("ok", self.set("mqtt.max_packet_bytes", "2KiB"))
        with Raw(self.gateway.MQTT_PORT) as raw:
            self.assertEqual(raw.log_in(user, self.gateway.DEVICE_KEY), 0)
            self.assertEqual(raw.published("small", b"x" * 1000), 0)
            self.assertEqual(raw.published("large", b"x" * 3000), -0x95)

    def seconds_until_closed(self, port, secure_after=None):
        """How long a peer is borne that says nothing, or only does the handshake after a while."""
        peer = socket.create_connection(("localhost", int(port)), timeout=15)
        started = time.monotonic()
        if secure_after is not None:
            time.sleep(secure_after)
            context = ssl.create_default_context(cafile=self.gateway.CA_FILE)
            peer = context.wrap_socket(peer, server_hostname="localhost")
        with peer, contextlib.suppress(ConnectionError):
            while peer.recv(1000):
                pass
        return time.monotonic() - started

    def test_deadlines_of_strangers_change(self):
        self.reload("ok", self.set("tls.handshake_timeout", "1s"))
        seconds = self.seconds_until_closed(self.gateway.MQTTS_PORT)
        self.assertTrue(0.9 < seconds < 2, seconds)
        self.reload("ok", lambda text: text.replace("handshake_timeout: 1s", "handshake_timeout: 9s"))
        self.reload("ok", self.set("mqtt.connect_timeout", "3s"))
        for port, after in ((self.gateway.MQTT_PORT, None), (self.gateway.MQTTS_PORT, 0),
                            (self.gateway.MQTTS_PORT, 2)):
            seconds = self.seconds_until_closed(port, after)
            self.assertTrue(2.9 < seconds < 4, (port, after, seconds))

    def test_a_changed_file_needs_no_signal(self):
        self.reload("ok", self.set("server.log_level", "debug"), signal_number=None)

    def test_an_invalid_file_is_refused(self):
        for text, why in (("server:\n  log_level: loud\n", "server.log_level"),
                          ("server: [", ""), ("mqtt:\n  colour: blue\n", "mqtt.colour"),
                          ("server:\n  node_id: other\n", "restart")):
            with self.subTest(text=text):
                size = len(self.gateway.log())
                with open(configuration(self.gateway), encoding="utf-8") as file:
                    good = file.read()
                self.reload("refused", lambda _, text=text: text)
                line = next(line for line in self.gateway.log()[size:].splitlines() if "reload.refused" in line)
                self.assertIn(why, line)
                self.publish("still/there")
                self.assertEqual(readyz(self.gateway)[0], 200)
                rewrite(configuration(self.gateway), lambda _: good)
                time.sleep(2.5)  # past the watch, so that the next sub-test counts only its own

    def test_two_hundred_reloads(self):
        """A gateway whose certificates are short-lived reloads for as long as it runs."""
        row = 'duragate_config_reloads_total{result="ok"}'
        for number in range(200):
            before = metric(self.gateway, row)
            os.kill(self.gateway.pid(), signal.SIGHUP)
            wait_until(lambda: metric(self.gateway, row) > before, 5)
        self.publish("after/many")


class ServerCertificate(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway().up()
        cls.tls = Certificates(os.path.join(cls.gateway.var, "tls"))

    @classmethod
    def tearDownClass(cls):
        cls.gateway.close()

    def served(self, port):
        """The serial number of the certificate that a new connection gets."""
        shown = subprocess.run(["openssl", "s_client", "-connect", f"localhost:{port}", "-CAfile",
                                self.tls.path("ca.pem"), "-verify_return_error"], stdin=subprocess.DEVNULL,
                               capture_output=True, text=True, timeout=20, check=False).stdout
        if "Verification: OK" not in shown:
            return None
        return subprocess.run(["openssl", "x509", "-noout", "-serial"], input=shown, capture_output=True,
                              text=True, timeout=20, check=True).stdout.strip()

    def ports(self):
        return [self.gateway.MQTTS_PORT, self.gateway.KAFKAS_PORT, self.gateway.HTTPS_URL.rsplit(":", 1)[1]]

    def make(self, name):
        self.tls.signed(name, self.tls.path("ca"), "localhost",
                        "extendedKeyUsage=serverAuth\nsubjectAltName=DNS:localhost,IP:127.0.0.1")

    def replace(self, name):
        for ending in (".key", ".pem"):
            os.rename(self.tls.path(name + ending), self.tls.path("server" + ending))

    def test_replaced_certificate_is_served_to_new_connections(self):
        user = f"{self.gateway.DEVICE}@{self.gateway.TENANT}"
        old = [self.served(port) for port in self.ports()]
        self.assertEqual(len(set(old)), 1)
        self.make("next")
        serial = self.tls.serial("next")
        with Raw(self.gateway.MQTT_PORT) as raw:
            self.assertEqual(raw.log_in(user, self.gateway.DEVICE_KEY), 0)
            self.replace("next")
            wait_until(lambda: self.served(self.ports()[0]) == serial, 10)
            self.assertEqual([self.served(port) for port in self.ports()], [serial] * 3)
            self.assertEqual(raw.published("still/connected"), 0)
        expiry = metric(self.gateway, "duragate_certificate_expiry_timestamp_seconds")
        self.assertAlmostEqual(expiry, time.time() + 30 * 86400, delta=3600)

    def test_a_certificate_older_than_the_configuration_is_noticed(self):
        """Deployed by rename with its own, old times (cp -p, tar, a mounted secret)."""
        self.make("archived")
        serial = self.tls.serial("archived")
        for ending in (".key", ".pem"):
            os.utime(self.tls.path("archived" + ending), (1600000000, 1600000000))
        self.replace("archived")
        wait_until(lambda: self.served(self.ports()[0]) == serial, 10)

    def test_bad_certificates_are_refused(self):
        self.make("one")
        self.make("two")
        before = self.served(self.ports()[0])
        saved = {}
        for ending in (".key", ".pem"):
            with open(self.tls.path("server" + ending), "rb") as file:
                saved[ending] = file.read()
        with open(self.tls.path("two.key"), "rb") as file:
            other_key = file.read()
        for what, files in (("text", {".pem": b"no certificate\n"}), ("empty", {".pem": b""}),
                            ("key of another", {".key": other_key}), ("gone", {".pem": None})):
            with self.subTest(what=what):
                refused = metric(self.gateway, 'duragate_config_reloads_total{result="refused"}')
                for ending, content in files.items():
                    if content is None:
                        os.unlink(self.tls.path("server" + ending))
                    else:
                        with open(self.tls.path("server" + ending), "wb") as file:
                            file.write(content)
                os.kill(self.gateway.pid(), signal.SIGHUP)
                wait_until(lambda: metric(self.gateway, 'duragate_config_reloads_total{result="refused"}') > refused, 5)
                self.assertEqual(self.served(self.ports()[0]), before)
                for ending, content in saved.items():
                    with open(self.tls.path("server" + ending), "wb") as file:
                        file.write(content)


@unittest.skipUnless(os.path.exists("/proc/net/if_inet6"), "no IPv6 here")
class Ipv6(unittest.TestCase):
    def test_publish_and_read_over_ipv6(self):
        gateway = Gateway()
        self.addCleanup(gateway.close)
        gateway.up()
        ok = 'duragate_config_reloads_total{result="ok"}'
        rewrite(configuration(gateway), lambda text: text.replace("  advertised: \"localhost:", "  advertised: \"[::1]:"))
        wait_until(lambda: metric(gateway, ok) > 0, 10)
        user = f"{gateway.DEVICE}@{gateway.TENANT}"
        with Raw(gateway.MQTT_PORT, host="::1") as raw:
            self.assertEqual(raw.log_in(user, gateway.DEVICE_KEY), 0)
            self.assertEqual(raw.published("over/ipv6"), 0)
        read = subprocess.run(["kcat", "-F", os.path.join(gateway.var, "kcat.conf"), "-b",
                               f"[::1]:{gateway.KAFKA_PORT}", "-X", "broker.address.family=v6", "-C", "-q", "-e", "-t",
                               gateway.TOPIC, "-o", "beginning", "-f", "%h|%s\\n"], capture_output=True, text=True,
                              timeout=60, check=True).stdout
        self.assertIn("ce_subject=over/ipv6,", read)
        wait_until(lambda: '"peer":"[::1]:' in gateway.consume(), 5)
        port = gateway.HTTP_URL.rsplit(":", 1)[1]
        with urllib.request.urlopen(f"http://[::1]:{port}/readyz", timeout=5) as answer:
            self.assertEqual(answer.status, 200)
        secure = gateway.publish("-q", "1", "-t", "tls/ipv6", "-m", "x", "--cafile", gateway.CA_FILE, "-h", "::1",
                                 port=gateway.MQTTS_PORT, check=False)
        self.assertEqual(secure.returncode, 0, secure.stderr)


class Stopping(unittest.TestCase):
    """A gateway that is our own child, so that its exit status can be seen."""

    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway().up()
        cls.gateway.kill(signal.SIGTERM)
        cls.environment = dict(os.environ, DURAGATE_CFG_REGISTRY__PASSWORD_FILE=os.path.join(
            cls.gateway.var, "registry.password"))

    @classmethod
    def tearDownClass(cls):
        cls.gateway.close()

    def start(self):
        with open(os.path.join(self.gateway.var, "duragate.log"), "ab") as log:
            child = subprocess.Popen([os.path.join(self.gateway.build, "duragate"), "serve", "--config",
                                      configuration(self.gateway)], env=self.environment, stdout=log, stderr=log)
        self.addCleanup(lambda: child.poll() is None and child.kill())
        wait_until(lambda: self.is_ready(), 30)
        return child

    def is_ready(self):
        try:
            return readyz(self.gateway)[0] == 200
        except OSError:
            return False

    def stop(self, child):
        child.send_signal(signal.SIGTERM)
        self.assertEqual(child.wait(30), 0)

    def lines(self):
        return self.gateway.consume().splitlines()

    def test_terminate_is_clean_and_tells_the_stream(self):
        child = self.start()
        user = f"{self.gateway.DEVICE}@{self.gateway.TENANT}"
        with Raw(self.gateway.MQTT_PORT) as raw:
            self.assertEqual(raw.log_in(user, self.gateway.DEVICE_KEY), 0)
            self.assertEqual(raw.published("before/stop"), 0)
            self.stop(child)
            self.assertIn((0xE0, bytes([0x8B])), [(first, body[:1]) for first, body in raw.until_closed()])
        child = self.start()
        kinds = [re.search(r"ce_type=([a-z0-9.]+)", line).group(1) for line in self.lines()]
        self.assertEqual(kinds[-2:], ["duragate.telemetry.v1", "duragate.device.disconnected.v1"])
        self.assertIn("server shutting down", self.lines()[-1])
        self.stop(child)

    def test_restart_keeps_offsets(self):
        child = self.start()
        self.gateway.publish("-q", "1", "-t", "kept", "-m", "one")
        wait_until(lambda: "device.disconnected" in self.lines()[-1], 5)
        before = self.lines()
        self.stop(child)
        child = self.start()
        self.assertEqual(self.lines(), before)
        self.gateway.publish("-q", "1", "-t", "kept", "-m", "two")
        after = self.lines()
        self.assertEqual(after[:len(before)], before)
        offsets = [int(line.split()[1]) for line in after]
        self.assertEqual(offsets, list(range(len(offsets))))
        self.stop(child)

    def test_offline_tools(self):
        child = self.start()
        self.gateway.publish("-q", "1", "-t", "tools", "-m", "payload")
        self.gateway.publish("-q", "1", "-t", "more", "-m", "m" * 5000)  # the checkpoint repairs a last block
        store = os.path.join(self.gateway.var, "stream")
        self.stop(child)
        done = duragate(self.gateway, "storage", "verify", store)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("is whole", done.stdout)
        for command in ("verify", "repair"):
            lines = duragate(self.gateway, "storage", command, store, "--json").stdout.splitlines()
            self.assertEqual(json.loads(lines[-1]), {"whole": True}, command)
        records = [json.loads(line) for line in
                   duragate(self.gateway, "storage", "dump", store, "--json").stdout.splitlines()]
        [mine] = [r for r in records if r["headers"].get("ce_subject") == "tools"]
        self.assertEqual((mine["key"], mine["value"]), (self.gateway.DEVICE, "payload"))
        copy = os.path.join(self.gateway.directory, "copy")
        shutil.copytree(store, copy)
        damaged = 0
        for folder, _, files in os.walk(copy):
            for name in files:
                path = os.path.join(folder, name)
                with open(path, "r+b") as file:
                    data = file.read()
                    at = data.find(b"payload")
                    if at >= 0 and name.endswith(".log"):
                        file.seek(at)
                        file.write(b"damaged")
                        damaged += 1
        self.assertGreater(damaged, 0)
        done = duragate(self.gateway, "storage", "verify", copy)
        self.assertEqual(done.returncode, 74, done.stdout + done.stderr)
        self.assertIn("DAMAGE", done.stdout)
        for command in ("verify", "repair"):
            lines = duragate(self.gateway, "storage", command, copy, "--json").stdout.splitlines()
            self.assertEqual(json.loads(lines[-1]), {"whole": False}, command)

    def test_healthcheck(self):
        url = ("healthcheck", "--url", self.gateway.HTTP_URL)
        child = self.start()
        self.assertEqual(duragate(self.gateway, *url).returncode, 0)
        self.stop(child)
        self.assertNotEqual(duragate(self.gateway, *url).returncode, 0)

    def test_a_second_gateway_on_the_same_store_is_refused(self):
        child = self.start()
        pid_file = os.path.join(self.gateway.directory, "pid")
        with open(pid_file, "w", encoding="ascii") as file:
            file.write(str(child.pid))
        other = subprocess.run([os.path.join(self.gateway.build, "duragate"), "serve", "--config",
                                configuration(self.gateway)], env=dict(
                                    self.environment, DURAGATE_CFG_SERVER__PID_FILE=pid_file,
                                    DURAGATE_CFG_MANAGEMENT__BIND="127.0.0.1:0"),
                               capture_output=True, text=True, timeout=30, check=False)
        self.assertEqual(other.returncode, 69, other.stderr)
        self.assertIn("start.failed", other.stderr + other.stdout)
        self.assertTrue(os.path.exists(pid_file), "it is the first one's")
        self.assertTrue(self.is_ready())
        self.stop(child)


class CheckConfig(unittest.TestCase):
    def test_mistakes_are_named_with_file_line_and_key(self):
        gateway = Gateway()
        self.addCleanup(shutil.rmtree, gateway.directory)
        path = os.path.join(gateway.directory, "bad.yaml")
        for text, line, key in (("server:\n  log_level: loud\n", 2, "server.log_level"),
                                ("mqtt:\n\n  receive_maximum: banana\n", 3, "mqtt.receive_maximum"),
                                ("mqtt:\n  receive_maximum: 0\n", 2, "mqtt.receive_maximum"),
                                ("mqtt:\n  bind: a\n  bind: b\n", 3, "mqtt.bind"),
                                ("storage:\n  journal_size: 1KiB\n", 2, "storage.journal_size"),
                                ("colour:\n  x: 1\n", 1, "colour"), ("server:\n  colour: x\n", 2, "server.colour"),
                                ("server:\n\tlog_level: info\n", 2, ""), ("server: {log_level: [a]}\n", 1, "")):
            with self.subTest(text=text):
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
                done = duragate(gateway, "check-config", "--config", path)
                self.assertEqual(done.returncode, 78, done.stderr)
                self.assertIn(f"{path}:{line}: {key}", done.stderr)
        with open(path, "w", encoding="utf-8") as file:
            file.write("server:\n  log_level: debug\n")
        self.assertEqual(duragate(gateway, "check-config", "--config", path).returncode, 0)
        done = duragate(gateway, "check-config", environment={"DURAGATE_CFG_MQTT__COLOUR": "1"})
        self.assertEqual(done.returncode, 78)
        self.assertIn("DURAGATE_CFG_MQTT__COLOUR", done.stderr)

    def test_secrets_are_not_printed(self):
        gateway = Gateway()
        self.addCleanup(shutil.rmtree, gateway.directory)
        done = duragate(gateway, "check-config", "--print",
                        environment={"DURAGATE_CFG_REGISTRY__PASSWORD": "do-not-show-me"})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("do-not-show-me", done.stdout + done.stderr)


@unittest.skipUnless(os.geteuid() == 0, "a loop mount needs root")
class FullDisk(unittest.TestCase):
    MIB = 1 << 20

    def setUp(self):
        directory = tempfile.mkdtemp(prefix="duragate-disk-")
        self.mount = os.path.join(directory, "mount")
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        image = os.path.join(directory, "image")
        with open(image, "wb") as file:
            file.truncate(96 * self.MIB)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
        os.mkdir(self.mount)
        done = subprocess.run(["mount", "-o", "loop", image, self.mount], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            self.skipTest("cannot mount: " + done.stderr.strip())
        self.addCleanup(subprocess.run, ["umount", self.mount], check=False)

    def free(self):
        status = os.statvfs(self.mount)
        return status.f_bavail * status.f_frsize

    def ballast(self, leave):
        with open(os.path.join(self.mount, "ballast"), "wb") as file:
            os.posix_fallocate(file.fileno(), 0, self.free() - leave)

    def test_refuses_says_so_and_resumes(self):
        gateway = Gateway(settings={"DURAGATE_CFG_STORAGE__DIRECTORY": os.path.join(self.mount, "stream"),
                                    "DURAGATE_CFG_STORAGE__JOURNAL_SIZE": "16MiB",
                                    "DURAGATE_CFG_STORAGE__SEGMENT_SIZE": "1MiB",
                                    "DURAGATE_CFG_STORAGE__RESERVE": "8MiB"})
        self.addCleanup(gateway.close)
        os.mkdir(os.path.join(self.mount, "stream"))
        gateway.up()
        self.ballast(leave=14 * self.MIB)
        user = f"{gateway.DEVICE}@{gateway.TENANT}"
        acknowledged = []
        with Raw(gateway.MQTT_PORT, timeout=20) as raw:
            self.assertEqual(raw.log_in(user, gateway.DEVICE_KEY), 0)
            code = 0
            for number in range(4000):
                code = raw.published("fill", b"%08d" % number + b"x" * 16000)
                if code != 0:
                    break
                acknowledged.append(number)
            self.assertEqual(code, QUOTA_EXCEEDED)
            self.assertEqual(metric(gateway, "duragate_storage_full"), 1)
            self.assertGreater(metric(gateway, "duragate_events_refused_total"), 0)
            status, why = readyz(gateway)
            self.assertEqual(status, 503)
            self.assertIn("no room", why)
            self.assertEqual(duragate(gateway, "healthcheck", "--url", gateway.HTTP_URL).returncode, 1)
            self.assertGreaterEqual(self.free(), 4 * self.MIB, "the reserve is not for events")
            for _ in range(20):
                self.assertEqual(raw.published("fill", b"y" * 16000), QUOTA_EXCEEDED)
            self.assertTrue(len(gateway.consume(format="%o\\n").splitlines()) >= len(acknowledged))
            os.unlink(os.path.join(self.mount, "ballast"))
            wait_until(lambda: readyz(gateway)[0] == 200, 20)
            self.assertEqual(metric(gateway, "duragate_storage_full"), 0)
            wait_until(lambda: raw.published("resumed") == 0, 5)
        stored = [int(value[:8]) for value in gateway.consume(format="%s\\n").splitlines()
                  if value[:8].isdigit() and value.endswith("xxx")]
        self.assertEqual(stored, acknowledged)
        gateway.down()
        self.assertEqual(duragate(gateway, "storage", "verify", os.path.join(self.mount, "stream")).returncode, 0)


if __name__ == "__main__":
    unittest.main()
