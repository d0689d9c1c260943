"""MQTT over WebSocket, frame by frame (chapter 6 of both versions)."""

import base64
import os
import ssl
import unittest

import support
from support import Conversation, covers, data
from raw_mqtt import connect, publish

setUpModule, tearDownModule = support.start_gateway()

BINARY, TEXT, CONTINUATION, CLOSE = 2, 1, 0, 8


def frame(opcode, payload, last=True):
    """A client's frame: masked."""
    mask = os.urandom(4)
    size = len(payload)
    head = bytes([(0x80 if last else 0) | opcode])
    head += bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + size.to_bytes(2, "big")
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


class WebSocket(Conversation):
    version = None  # the chapter is the same in both

    def open(self):
        """A TLS connection to the listener for devices."""
        self.port = int(self.gateway.HTTPS_URL.rsplit(":", 1)[1])
        raw = support.raw_mqtt.Raw(self.port)
        context = ssl.create_default_context(cafile=self.gateway.CA_FILE)
        raw.socket = context.wrap_socket(raw.socket, server_hostname="localhost")
        self.addCleanup(raw.socket.close)
        return raw

    def upgraded(self, raw, offers="mqtt"):
        """The status line and the header of the answer."""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = ["GET /mqtt HTTP/1.1", f"Host: localhost:{self.port}", "Upgrade: websocket", "Connection: Upgrade",
                 f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
        lines += [f"Sec-WebSocket-Protocol: {offers}"] if offers else []
        raw.send(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += raw.exactly(1)
        status, *fields = head.decode().rstrip().split("\r\n")
        return status, {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}

    def ready(self):
        raw = self.open()
        self.assertIn("101", self.upgraded(raw)[0])
        return raw

    def frame(self, raw):
        """(opcode, payload) of the next frame of the gateway."""
        first, size = raw.exactly(2)
        self.assertEqual(size & 0x80, 0, "a server masks nothing")
        size = int.from_bytes(raw.exactly(2), "big") if size == 126 else size
        return first & 0x0F, raw.exactly(size)

    def answers(self, raw, count):
        """So many bytes of MQTT; every frame is binary."""
        found = b""
        while len(found) < count:
            opcode, payload = self.frame(raw)
            self.assertEqual(opcode, BINARY)
            found += payload
        return found

    def hello(self):
        return connect(self.user, self.key, version=4)

    @covers("MQTT3", "6.0.0-4", "4.2.0-1")
    @covers("MQTT5", "6.0.0-4", "4.2-1")
    def test_subprotocol(self):
        for offers in ("mqtt", "mqttv3.1, mqtt", "mqtt, other"):
            status, fields = self.upgraded(self.open(), offers)
            self.assertIn("101", status)
            self.assertEqual(fields["sec-websocket-protocol"], "mqtt")
        for offers in (None, "mqttv3.1", "chat"):
            self.assertNotIn("101", self.upgraded(self.open(), offers)[0])

    @covers("MQTT3", "6.0.0-1")
    @covers("MQTT5", "6.0.0-1")
    def test_frames_that_are_not_binary(self):
        for connected in (False, True):
            raw = self.ready()
            if connected:
                raw.send(frame(BINARY, self.hello()))
                self.assertEqual(self.answers(raw, 4), data("20020000"))
            raw.send(frame(TEXT, publish("t", "x", version=4)))
            opcode, payload = self.frame(raw)
            self.assertEqual(opcode, CLOSE)
            self.assertEqual(int.from_bytes(payload[:2], "big"), 1003)
            with self.assertRaises((EOFError, ConnectionError, ssl.SSLError)):
                self.frame(raw)
        self.assertEqual(self.values(), [])

    @covers("MQTT3", "6.0.0-2")
    @covers("MQTT5", "6.0.0-2")
    def test_packets_are_not_frames(self):
        """One packet in many frames, many packets in one, and one message in fragments."""
        request = self.hello() + publish("t", "x" * 200, packet_id=1, version=4) + b"\xc0\0"
        whole = [frame(BINARY, request)]
        pieces = [frame(BINARY, request[i:i + 7]) for i in range(0, len(request), 7)]
        parts = [request[i:i + 50] for i in range(0, len(request), 50)]
        fragments = [frame(CONTINUATION if i else BINARY, part, i == len(parts) - 1) for i, part in enumerate(parts)]
        for frames in (whole, pieces, fragments):
            raw = self.ready()
            raw.send(b"".join(frames))
            found = self.answers(raw, 10)
            self.assertEqual(found[:4], data("20020000"))
            self.assertIn(found[4:], (data("40020001 d000"), data("d000 40020001")))
        self.assertEqual(self.values(), ["x" * 200] * 3)


if __name__ == "__main__":
    unittest.main()
