"""What the conformance tests share: a gateway for each file, bytes in short form, who covers which statement."""

import collections
import contextlib
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))

from harness import Gateway, wait_until  # noqa: E402
import raw_mqtt  # noqa: E402

CLOSED = ()  # the gateway ends the connection and says nothing


def covers(version, *numbers):
    """Marks a test: it covers these statements of the version; test_statements.py holds it to that. Cases of
    tables may be given too: their first field is a number or several, separated by blanks."""
    found = set()
    for entry in numbers:
        found.update(f"{version} {number}" for row in ([entry] if isinstance(entry, str) else entry)
                     for number in (row if isinstance(row, str) else row[0]).split())

    def mark(test):
        test.covers = getattr(test, "covers", frozenset()) | found
        return test
    return mark


def data(short):
    """Bytes in hexadecimal, text in quotes: "0003 'a/b'"."""
    out = bytearray()
    for number, part in enumerate(short.split("'")):
        out += part.encode() if number % 2 else bytes.fromhex(part)
    return bytes(out)


def packet(short):
    """A packet in short form without its remaining length, which is put in."""
    whole = data(short)
    return raw_mqtt.packet(whole[0], whole[1:])


def properties(section):
    """identifier -> value (several: the last) of a property section behind its length."""
    sizes = {0x01: 1, 0x17: 1, 0x19: 1, 0x24: 1, 0x25: 1, 0x28: 1, 0x29: 1, 0x2A: 1, 0x13: 2, 0x21: 2, 0x22: 2,
             0x23: 2, 0x02: 4, 0x11: 4, 0x18: 4, 0x27: 4}
    found = {}
    while section:
        identifier, section = section[0], section[1:]
        if identifier in sizes:
            size = sizes[identifier]
            found[identifier] = int.from_bytes(section[:size], "big")
        elif identifier == 0x26:
            key = int.from_bytes(section[:2], "big")
            size = 4 + key + int.from_bytes(section[2 + key:4 + key], "big")
            found[identifier] = section[2:2 + key], section[4 + key:size]
        else:
            size = 2 + int.from_bytes(section[:2], "big")
            found[identifier] = section[2:size]
        section = section[size:]
    return found


def after_properties(body):
    """(properties, what follows) of a body that begins with their length."""
    length, shift, at = 0, 0, 0
    while True:
        length |= (body[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if body[at - 1] < 0x80:
            return properties(body[at:at + length]), body[at + length:]


Event = collections.namedtuple("Event", "type headers value")


class Conversation(unittest.TestCase):
    """Tests that talk to the gateway of their file, each as a device of its own."""

    version = 5  # 4: 3.1.1; None: a test of both
    gateway = None  # of the file: set by start_gateway()
    made = 0

    def setUp(self):
        Conversation.made += 1
        self.device = f"c{Conversation.made}"
        self.user, self.key = f"{self.device}@{self.gateway.TENANT}", self.gateway.device(self.device)

    def open(self):
        """A connection that has said nothing yet."""
        raw = raw_mqtt.Raw(self.gateway.MQTT_PORT)
        self.addCleanup(raw.socket.close)
        return raw

    def connack(self, raw, **more):
        """Connects; the body of the CONNACK."""
        more.setdefault("version", self.version)
        first, body = raw.send(raw_mqtt.connect(self.user, self.key, **more)).read()
        self.assertEqual(first, 0x20)
        return body

    def connected(self, **more):
        raw = self.open()
        self.assertEqual(self.connack(raw, **more)[1], 0)
        return raw

    def head(self, flags, keep_alive=60, client_id="raw", more=b"", section=b""):
        """A CONNECT of this device whose flags are given in full; more: what follows the client id."""
        level = bytes([self.version, flags]) + keep_alive.to_bytes(2, "big")
        start = raw_mqtt.text("MQTT") + level + (raw_mqtt.remaining(len(section)) + section
                                                 if self.version == 5 else b"")
        return raw_mqtt.packet(0x10, start + raw_mqtt.text(client_id) + more)

    def login(self):
        """User name and password, the end of a CONNECT."""
        return raw_mqtt.text(self.user) + raw_mqtt.text(self.key)

    def asks(self, raw, request, *answers):
        """Sends and reads; answers in short form without remaining length: "40 0001"."""
        raw.send(request)
        for answer in answers:
            first, body = raw.read()
            self.assertEqual(bytes([first]) + body, data(answer), f"expected {answer}")

    def pings(self, raw):
        """It is there, and has answered all that was sent before."""
        self.asks(raw, b"\xc0\0", "d0")

    def events(self, *types, device=None):
        """What is in the stream of this device, oldest first; types: without the prefix, else telemetry."""
        found = []
        separator = "\x1f"
        text = self.gateway.consume("-X", "fetch.wait.max.ms=1", format=f"%k{separator}%h{separator}%s\x1e")
        for line in text.split("\x1e")[:-1]:
            key, headers, value = line.split(separator, 2)
            named = [pair.partition("=")[::2] for pair in headers.split(",")]
            kind = dict(named)["ce_type"].removeprefix("duragate.").removesuffix(".v1")
            if key == (device or self.device) and kind in (types or ("telemetry",)):
                found.append(Event(kind, named, value))
        return found

    def values(self, *types, **more):
        return [event.value for event in self.events(*types, **more)]

    def wait_for_values(self, expected, *types):
        """Events of QoS 0, wills, and others that nobody acknowledges."""
        with contextlib.suppress(AssertionError):
            wait_until(lambda: len(self.values(*types)) >= len(expected), 10)
        self.assertEqual(self.values(*types), expected)


def start_gateway(settings=None):
    """setUpModule and tearDownModule of a file."""
    def start():
        Conversation.gateway = Gateway(settings=settings).up()

    def stop():
        Conversation.gateway.close()
    return start, stop
