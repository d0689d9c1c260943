"""The MQTT clients under test. Each has a driver: a small program with the same commands whatever the client.

A driver is told where to go by its environment: DG_HOST, DG_PORT, DG_TRANSPORT (tcp, tls, wss), DG_CA_FILE,
DG_VERSION (4: 3.1.1, 5), DG_USER, DG_PASSWORD, DG_CLIENT_ID, DG_CLEAN (1 or 0; 0: the session is kept for some
minutes), DG_WINDOW (publishes in flight at most; 0: as the client likes), DG_WILL (topic of a will "gone"; empty: none), DG_RECONNECT (1: the client connects again by itself). It
reads commands from standard input and prints facts, one a line, and judges nothing.

    connect                         connected SESSION-PRESENT | refused CODE
    publish TOPIC QOS COUNT SIZE    published COUNT, when all are acknowledged; payloads 0xx..., 1xx...
    describe TOPIC                  published 1, with a content type and a user property (MQTT 5)
    alias TOPIC COUNT               published COUNT, all but the first by topic alias alone (MQTT 5)
    subscribe FILTER                granted CODE
    disconnect

    lost CODE                       the connection ended; what the server said, or "-"
"""

import os
import signal
import socket
import subprocess
import threading

from clients import BUILDS, HERE, build_node, prepare

VERSIONS = {4: "3.1.1", 5: "5"}
TRANSPORTS = {"tcp": ("MQTT_PORT", "TCP"), "tls": ("MQTTS_PORT", "TLS"), "wss": (None, "WebSocket, TLS")}


class MqttClient:
    def __init__(self, name, title, command, transports=("tcp", "tls", "wss"), build=None, windows=None):
        self.name, self.title, self.command = name, title, command
        self.transports, self.build, self.windows = transports, build, windows or {}

    def directory(self):
        return prepare(os.path.join(HERE, self.name), self.build) if self.build else HERE


MQTT_CLIENTS = [
    MqttClient("libmosquitto", "libmosquitto", [os.path.join(BUILDS, "asan/tests/interop/libmosquitto/libmosquitto_driver")],
               transports=("tcp", "tls")),
    MqttClient("paho-c", "Eclipse Paho C", [os.path.join(BUILDS, "asan/tests/interop/paho-c/paho_c_driver")],
               windows={"wss": 1}),
    MqttClient("paho-python", "Eclipse Paho Python", ["/usr/bin/python3", os.path.join(HERE, "paho-python/driver.py")]),
    MqttClient("mqttjs", "MQTT.js", ["node", os.path.join(HERE, "mqttjs/driver.js")], build=build_node),
]


class Row:
    """One client in one version over one transport."""

    def __init__(self, client, version, transport):
        self.client, self.version, self.transport = client, version, transport

    @property
    def name(self):
        return f"{self.client.name}-{self.version}-{self.transport}".replace("-", "_")

    def __str__(self):
        return f"| {self.client.title} | {VERSIONS[self.version]} | {TRANSPORTS[self.transport][1]} | {self.window or 'any'} |"

    @property
    def window(self):
        return self.client.windows.get(self.transport, 0)


ROWS = [Row(client, version, transport) for client in MQTT_CLIENTS for version in VERSIONS
        for transport in client.transports]


def port_of(gateway, transport):
    name = TRANSPORTS[transport][0]
    return int(getattr(gateway, name) if name else gateway.HTTPS_URL.rsplit(":", 1)[1])


class Driver:
    """A driver that runs. Every wait ends, with the driver's death at the latest."""

    def __init__(self, row, gateway, user, password, port=None, client_id="interop", clean=True, will="",
                 reconnect=False):
        environment = dict(
            os.environ, DG_HOST="localhost", DG_PORT=str(port or port_of(gateway, row.transport)),
            DG_TRANSPORT=row.transport, DG_CA_FILE=gateway.CA_FILE, DG_VERSION=str(row.version), DG_USER=user,
            DG_PASSWORD=password, DG_CLIENT_ID=client_id, DG_CLEAN=str(int(clean)), DG_WILL=will,
            DG_RECONNECT=str(int(reconnect)), DG_WINDOW=str(row.window), NODE_PATH=os.path.join(row.client.directory(), "node_modules"))
        self.said = []
        self.process = subprocess.Popen(row.client.command, env=environment, cwd=row.client.directory(), text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.limit = threading.Timer(30, self.process.kill)
        self.limit.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def tell(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def hear(self, *kinds):
        """The next line that begins with one of these words, as words; what else is said meanwhile is kept."""
        for line in self.process.stdout:
            self.said.append(line.rstrip("\n"))
            words = line.split()
            if words and words[0] in kinds:
                return words
        raise AssertionError(f"the driver ended and did not say {kinds}:\n" + "\n".join(self.said[-30:]))

    def ask(self, *words, answer):
        self.tell(*words)
        return self.hear(answer, "error", "refused")

    def kill(self):
        self.limit.cancel()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)
        for stream in (self.process.stdin, self.process.stdout):
            try:
                stream.close()
            except BrokenPipeError:
                pass


class Relay:
    """Passes bytes on to the gateway. The first connection is cut once `most` bytes came from the client."""

    def __init__(self, port, most):
        self.port_behind, self.left, self.cut = port, most, False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            gateway = socket.create_connection(("127.0.0.1", self.port_behind))
            for ends in ((client, gateway), (gateway, client)):
                threading.Thread(target=self.copy, args=(*ends, client, gateway), daemon=True).start()

    def copy(self, source, target, client, gateway):
        try:
            while data := source.recv(4096):
                if source is client and not self.cut:
                    self.left -= len(data)
                    if self.left <= 0:
                        self.cut = True
                        break
                target.sendall(data)
        except OSError:
            pass
        for stream in (client, gateway):
            try:
                stream.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()
