"""Peers that are slow, large, greedy or gone: each ends, with the right code, and costs no more than it may."""

import os
import socket
import ssl
import struct
import unittest

from harness import Gateway
from raw_mqtt import CONNACK, DISCONNECT, Raw, connect, packet, publish, remaining, subscribe, text

TIMEOUT_S = 2
TOO_LARGE, QUOTA = 0x95, 0x97


def user_properties(count):
    return count * (b"\x26" + text("k") + text("v"))


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Attacks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway(settings={"DURAGATE_CFG_MQTT__CONNECT_TIMEOUT": f"{TIMEOUT_S}s",
                                        "DURAGATE_CFG_TLS__HANDSHAKE_TIMEOUT": f"{TIMEOUT_S}s",
                                        "DURAGATE_CFG_MANAGEMENT__REQUEST_TIMEOUT": f"{TIMEOUT_S}s",
                                        "DURAGATE_CFG_MQTT__MAX_PACKET_BYTES": "32KiB"}).up()
        cls.user = f"{cls.gateway.DEVICE}@{cls.gateway.TENANT}"

    @classmethod
    def tearDownClass(cls):
        cls.gateway.close()

    def setUp(self):
        self.addCleanup(self.still_serves)

    def still_serves(self):
        self.gateway.publish("-q", "1", "-t", "t", "-m", "x")

    def raw(self):
        raw = Raw(self.gateway.MQTT_PORT)
        self.addCleanup(raw.socket.close)
        return raw

    def logged_in(self, version=5):
        raw = self.raw()
        self.assertEqual(raw.log_in(self.user, self.gateway.DEVICE_KEY, version=version), 0)
        return raw

    def drip(self, peer, data):
        """A byte now and then until the gateway has had enough; what it said."""
        peer.settimeout(0.2)
        said = b""
        for byte in data:
            try:
                peer.sendall(bytes([byte]))
                more = peer.recv(4096)
                if not more:
                    return said
                said += more
            except TimeoutError:
                pass
            except OSError:
                return said
        self.fail("the gateway waits for ever")

    # ---- slow ----

    def test_a_connect_byte_by_byte(self):
        self.assertEqual(self.drip(self.raw().socket, connect(self.user, "x" * 200)), b"")

    def test_a_handshake_byte_by_byte(self):
        with socket.create_connection(("127.0.0.1", int(self.gateway.MQTTS_PORT))) as peer:
            self.drip(peer, b"\x16\x03\x01\x02\x00" + bytes(200))

    def test_an_upgrade_byte_by_byte(self):
        context = ssl.create_default_context(cafile=self.gateway.CA_FILE)
        with socket.create_connection(("localhost", int(self.gateway.ports["https"]))) as plain, \
                context.wrap_socket(plain, server_hostname="localhost") as peer:
            self.drip(peer, b"GET /mqtt HTTP/1.1\r\nHost: " + b"x" * 200)

    def test_silence(self):
        for port in (self.gateway.MQTT_PORT, self.gateway.MQTTS_PORT, self.gateway.ports["https"]):
            with socket.create_connection(("127.0.0.1", int(port)), timeout=20) as peer:
                self.assertEqual(peer.recv(1), b"")

    # ---- large ----

    def test_a_connect_too_large(self):
        for version in (4, 5):
            for data in (connect(self.user, "x", client_id="c" * 20000, version=version),
                         connect(self.user, "x", will=("t", b"w" * 20000), version=version),
                         b"\x10" + remaining(0xFFFFFFF)):
                with Raw(self.gateway.MQTT_PORT) as raw:
                    raw.send(data)
                    self.assertEqual(raw.until_closed(), [])

    def test_a_large_will_that_fits(self):
        raw = self.raw()
        self.assertEqual(raw.log_in(self.user, self.gateway.DEVICE_KEY, will=("t", b"w" * 15000)), 0)

    def test_a_packet_too_large(self):
        raw = self.logged_in()
        first, body = raw.send(publish("t", b"x" * 33000)).read()
        self.assertEqual((first >> 4, body[0]), (DISCONNECT, TOO_LARGE))
        raw = self.logged_in(version=4)
        self.assertEqual(raw.send(publish("t", b"x" * 33000, version=4)).until_closed(), [])

    def test_properties_without_end(self):
        with self.logged_in() as raw:
            self.assertEqual(raw.published("t", properties=user_properties(32)), 0)
            first, body = raw.send(publish("t", properties=user_properties(33), packet_id=2)).read()
            self.assertEqual((first >> 4, body[0]), (DISCONNECT, QUOTA))
        with self.logged_in() as raw:
            one = b"\x26" + text("k") + text(b"v" * 17000)
            first, body = raw.send(publish("t", properties=one)).read()
            self.assertEqual((first >> 4, body[0]), (DISCONNECT, QUOTA))
        head = text("MQTT") + bytes([5, 2]) + struct.pack(">H", 60)
        bomb = user_properties(33)
        with Raw(self.gateway.MQTT_PORT) as raw:
            first, body = raw.send(packet(0x10, head + remaining(len(bomb)) + bomb + text("c"))).read()
            self.assertEqual((first >> 4, body[1]), (CONNACK, QUOTA))

    # ---- greedy ----

    def test_many_subscriptions(self):
        """No more than a session may have, whether at once or one by one."""
        filters = [f"$dg/via/child{number}/commands/#" for number in range(40)]
        with self.logged_in() as raw:
            for number in range(0, 40, 10):
                raw.send(subscribe(*filters[number:number + 10], packet_id=1 + number))
            codes = [code for _ in range(4) for code in raw.read()[1][-10:]]
            self.assertLessEqual(sum(code < 0x80 for code in codes), 16, codes)
            self.assertGreaterEqual(codes[-1], 0x80)
        with self.logged_in() as raw:
            first, body = raw.send(subscribe(*filters)).read()
            self.assertEqual((first >> 4, body[0]), (DISCONNECT, QUOTA))

    def test_more_than_the_receive_maximum_in_flight(self):
        """QoS 2 that is never released, in 5: the device broke its word."""
        with self.logged_in() as raw:
            raw.send(b"".join(publish("t", qos=2, packet_id=1 + number) for number in range(1100)))
            last = raw.until_closed()[-1]
            self.assertEqual((last[0] >> 4, last[1][0]), (DISCONNECT, 0x93))

    # ---- gone ----

    def test_one_that_never_reads(self):
        """Its acknowledgements pile up to the limit, then it is closed."""
        raw = self.logged_in(version=4)
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.socket.settimeout(60)
        pings = packet(0xC0, b"") * 32768
        with self.assertRaises(OSError):
            for _ in range(200):
                raw.socket.sendall(pings)

    def test_half_open(self):
        """A connection that has vanished ends after 1.5 times its keep-alive."""
        raw = self.raw()
        self.assertEqual(raw.log_in(self.user, self.gateway.DEVICE_KEY, keep_alive=1), 0)
        first, body = raw.read()
        self.assertEqual((first >> 4, body[0]), (DISCONNECT, 0x8D))

    # ---- many ----

    def test_strangers_cost_little(self):
        """300 that stop in the middle of the largest CONNECT."""
        before = resident_bytes(self.gateway.pid())
        head = b"\x10" + remaining(16000) + text("MQTT") + bytes([5, 2]) + struct.pack(">H", 60) + b"\0" + text("c" * 15900)
        peers = []
        try:
            for _ in range(300):
                peers.append(socket.create_connection(("127.0.0.1", int(self.gateway.MQTT_PORT))))
                peers[-1].sendall(head[:15000])
            self.assertLess(resident_bytes(self.gateway.pid()) - before, 300 * 64 * 1024)
            for peer in peers:
                peer.settimeout(20)
                self.assertEqual(peer.recv(1), b"")
        finally:
            for peer in peers:
                peer.close()

    def test_connects_beyond_the_rate_wait(self):
        """All get in, though not at once; nobody is refused."""
        gateway = Gateway(settings={"DURAGATE_CFG_MQTT__CONNECT_RATE": "50"}).up()
        self.addCleanup(gateway.close)
        key = gateway.device("storm")
        peers = [Raw(gateway.MQTT_PORT, timeout=60) for _ in range(150)]
        try:
            for peer in peers:
                peer.send(connect("storm@" + gateway.TENANT, key))
            for peer in peers:  # one device: each takes over from the one before, so all are answered
                first, body = peer.read()
                self.assertEqual(first >> 4, CONNACK)
                self.assertIn(body[1], (0, 0x89))
            self.assertGreater(gateway.metric("duragate_connections_paced_total"), 0)
        finally:
            for peer in peers:
                peer.socket.close()


if __name__ == "__main__":
    unittest.main()
