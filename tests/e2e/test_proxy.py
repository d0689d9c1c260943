"""Behind HAProxy with PROXY protocol version 2: the client's address is what the gateway knows."""

import contextlib
import json
import os
import re
import socket
import struct
import subprocess
import unittest

from harness import Gateway, free_ports, wait_until
from raw_mqtt import Raw, connect

PROXY, CLIENT, NAMED = "127.0.0.2", "127.0.0.5", "192.0.2.99"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
VERSION_1 = f"PROXY TCP4 {NAMED} 127.0.0.1 5123 1883\r\n".encode()
LISTENERS = ("mqtt", "mqtts", "kafka", "kafkas", "https", "http")

CONFIGURATION = """
global
    log stdout format raw local0
defaults
    mode tcp
    log global
    timeout connect 5s
    timeout client 1m
    timeout server 1m
"""
# The checks say LOCAL, since they come from nobody.
SECTION = """
listen {name}
    bind 127.0.0.1:{bind}
    source {proxy}
    server gateway 127.0.0.1:{port} send-proxy-v2 check check-send-proxy inter 100ms
"""


def header(address=NAMED, port=5123):
    ends = socket.inet_aton(address) + socket.inet_aton("127.0.0.1") + struct.pack(">HH", port, 1883)
    return SIGNATURE + b"\x21\x11" + struct.pack(">H", len(ends)) + ends


class HAProxy:
    def __init__(self, gateway, ports):
        self.path = os.path.join(gateway.directory, "haproxy.cfg")
        with open(self.path, "w", encoding="ascii") as file:
            file.write(CONFIGURATION)
            for name, bind in ports.items():
                file.write(SECTION.format(name=name, bind=bind, proxy=PROXY, port=gateway.ports[name]))
        self.log = open(self.path + ".log", "w+", encoding="ascii", errors="replace")
        self.process = subprocess.Popen(["/usr/sbin/haproxy", "-db", "-f", self.path],
                                        stdout=self.log, stderr=subprocess.STDOUT)

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def close(self):
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


class BehindAProxy(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.ports = free_ports("mqtt", "mqtts", "kafka")
        cls.gateway = Gateway(settings={
            "DURAGATE_CFG_SERVER__PROXY_SOURCES": f"10.0.0.0/8, {PROXY}",
            "DURAGATE_CFG_MQTT__CONNECT_TIMEOUT": "1s", "DURAGATE_CFG_MANAGEMENT__REQUEST_TIMEOUT": "2s",
            "DURAGATE_CFG_KAFKA__ADVERTISED": f"127.0.0.1:{cls.ports['kafka']}"}).up()
        cls.proxy = HAProxy(cls.gateway, cls.ports)
        wait_until(lambda: all(listening(port) for port in cls.ports.values()), 10)

    @classmethod
    def tearDownClass(cls):
        cls.proxy.close()
        cls.gateway.close()

    def refused(self):
        return self.gateway.metric("duragate_proxy_headers_refused_total")

    def publish(self, topic, *arguments, **more):
        return self.gateway.publish("-h", "127.0.0.1", "-A", CLIENT, "-q", "1", "-t", topic, "-m", "x",
                                    *arguments, **more)

    def presence(self):
        """Where the device's connections came from, as its events say."""
        lines = self.gateway.consume(format="%h|%s\n").splitlines()
        return [json.loads(line.split("|", 1)[1])["peer"] for line in lines
                if "ce_type=duragate.device.connected.v1" in line]

    def test_clients_keep_their_addresses(self):
        before = len(self.presence())
        self.publish("plain", port=self.ports["mqtt"])
        self.publish("tls", "--cafile", self.gateway.CA_FILE, port=self.ports["mqtts"])
        peers = self.presence()[before:]
        self.assertEqual([peer.split(":")[0] for peer in peers], [CLIENT, CLIENT])
        # consume() goes the same way: the advertised address is HAProxy's
        self.assertRegex(self.gateway.log(), r"event=kafka\.login peer=127\.0\.0\.1:\d+")
        wrong = self.publish("plain", port=self.ports["mqtt"], key="wrong", check=False)
        self.assertNotEqual(wrong.returncode, 0)
        self.assertRegex(self.gateway.log(), rf"event=mqtt\.login_refused .*peer={CLIENT}:\d+")
        self.assertNotIn(PROXY, re.sub(r"event=proxy\.refused.*", "", self.gateway.log()))

    def test_checks_of_the_proxy_are_no_refusals(self):
        before = self.refused()
        accepted = self.gateway.metric("duragate_connections_accepted_total")
        wait_until(lambda: self.gateway.metric("duragate_connections_accepted_total") > accepted + 9, 30)
        self.assertEqual(self.refused(), before)
        self.assertNotIn("DOWN", self.proxy.said())

    @contextlib.contextmanager
    def connected(self, listener, source):
        with socket.create_connection(("127.0.0.1", self.gateway.ports[listener]), timeout=20,
                                      source_address=(source, 0)) as stream:
            yield stream

    def expect_closed(self, listener, source, data):
        with self.connected(listener, source) as stream:
            stream.sendall(data)
            with contextlib.suppress(ConnectionError):
                while stream.recv(4096):  # an HTTP listener says why
                    pass

    def test_a_stranger_that_names_a_client_is_refused_by_every_protocol(self):
        login = connect(self.gateway.MQTT_USER, self.gateway.DEVICE_KEY)
        before = self.refused(), len(self.presence())
        for listener in LISTENERS:
            self.expect_closed(listener, CLIENT, header() + login)
            self.expect_closed(listener, CLIENT, VERSION_1 + login)
        self.assertEqual((self.refused(), len(self.presence())), before)
        self.assertNotIn(NAMED, self.gateway.log())

    def test_a_listed_source_without_the_header_is_refused_on_every_listener(self):
        login = connect(self.gateway.MQTT_USER, self.gateway.DEVICE_KEY)
        before = self.refused()
        for listener in LISTENERS:
            for data in (login, VERSION_1 + login, SIGNATURE + b"\x21\x11\xff\xff", b"GET / HTTP/1.1\r\n\r\n"):
                self.expect_closed(listener, PROXY, data)
        self.assertEqual(self.refused(), before + 4 * len(LISTENERS))
        self.assertIn("PROXY protocol header is of version 1; have it send version 2", self.gateway.log())

    def test_a_header_that_never_ends_is_not_waited_for(self):
        before = self.refused()
        with self.connected("mqtt", PROXY) as slow, self.connected("mqtts", PROXY) as silent:
            with contextlib.suppress(ConnectionError):
                for byte in header()[:-1] * 1000:
                    slow.sendall(bytes([byte]))
                    slow.settimeout(0.1)
                    with contextlib.suppress(socket.timeout):
                        if slow.recv(1) == b"":
                            break
            with contextlib.suppress(ConnectionError):
                self.assertEqual(silent.recv(1), b"")
        self.assertEqual(self.refused(), before + 2)

    def test_the_header_and_the_first_packet_may_come_in_one_piece(self):
        with self.connected("mqtt", PROXY) as stream:
            raw = Raw.__new__(Raw)
            raw.socket = stream
            raw.send(header(CLIENT, 777))
            self.assertEqual(raw.log_in(self.gateway.MQTT_USER, self.gateway.DEVICE_KEY), 0)
            wait_until(lambda: f"{CLIENT}:777" in self.presence(), 10)


def listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    unittest.main()
