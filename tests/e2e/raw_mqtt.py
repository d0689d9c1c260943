"""MQTT byte by byte: for what well-behaved clients do not send, or do not tell."""

import socket
import struct

CONNACK, PUBACK, PUBREC, PUBCOMP, SUBACK, UNSUBACK, PINGRESP, DISCONNECT = 2, 4, 5, 7, 9, 11, 13, 14


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack(">H", len(data)) + data


def remaining(length):
    out = bytearray()
    while True:
        length, byte = divmod(length, 128)
        out.append(byte | (0x80 if length else 0))
        if not length:
            return bytes(out)


def packet(first, body):
    return bytes([first]) + remaining(len(body)) + body


def u32_property(identifier, value):
    return b"" if value is None else bytes([identifier]) + struct.pack(">I", value)


def user_property(name, value):
    return b"\x26" + text(name) + text(value)


def connect(user=None, password=None, client_id="raw", version=5, keep_alive=60, will=None, clean=True,
            expiry=None, will_delay=None, will_flags=8, will_properties=b"", properties=b""):
    """will_flags: QoS and retain, QoS 1 if nothing is said."""
    flags = (2 if clean else 0) | (0x80 if user is not None else 0) | (0x40 if password is not None else 0)
    payload = text(client_id)
    if will:
        flags |= 4 | will_flags
        will_properties = u32_property(0x18, will_delay) + will_properties
        payload += remaining(len(will_properties)) + will_properties if version == 5 else b""
        payload += text(will[0]) + text(will[1])
    for value in (user, password):
        payload += text(value) if value is not None else b""
    head = text("MQTT") + bytes([version, flags]) + struct.pack(">H", keep_alive)
    properties = u32_property(0x11, expiry) + properties
    return packet(0x10, head + (remaining(len(properties)) + properties if version == 5 else b"") + payload)


def publish(topic, payload=b"", qos=1, packet_id=1, version=5, properties=b"", dup=False):
    body = text(topic) + (struct.pack(">H", packet_id) if qos else b"")
    if version == 5:
        body += remaining(len(properties)) + properties
    return packet(0x30 | (8 if dup else 0) | qos << 1, body + (payload if isinstance(payload, bytes) else payload.encode()))


def pubrel(packet_id):
    return packet(0x62, struct.pack(">H", packet_id))


def disconnect(expiry=None, reason=0):
    if expiry is None:
        return packet(0xE0, bytes([reason]) if reason else b"")
    return packet(0xE0, bytes([reason]) + b"\5\x11" + struct.pack(">I", expiry))


def unsubscribe(*filters, packet_id=1, version=5):
    body = struct.pack(">H", packet_id) + (b"\0" if version == 5 else b"")
    return packet(0xA2, body + b"".join(text(f) for f in filters))


def subscribe(*filters, packet_id=1, version=5):
    body = struct.pack(">H", packet_id) + (b"\0" if version == 5 else b"")
    return packet(0x82, body + b"".join(text(f) + b"\1" for f in filters))


class Raw:
    """A socket that reads whole packets: (first byte, body)."""

    def __init__(self, port, host="127.0.0.1", timeout=10):
        self.socket = socket.create_connection((host, int(port)), timeout=timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        """What the peer no longer takes is not an error here: it has closed."""
        try:
            self.socket.sendall(data)
        except OSError:
            pass
        return self

    def exactly(self, size):
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def read(self):
        first, length, shift = self.exactly(1)[0], 0, 0
        while True:
            byte = self.exactly(1)[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return first, self.exactly(length)

    def until_closed(self):
        """All packets until the peer closes; TimeoutError when it does not."""
        packets = []
        while True:
            try:
                packets.append(self.read())
            except (EOFError, ConnectionError):
                return packets

    def log_in(self, user, password, **more):
        """The reason code of the CONNACK."""
        first, body = self.send(connect(user, password, **more)).read()
        assert first >> 4 == CONNACK, (first, body)
        return body[1]

    def resumed(self, user, password, **more):
        """Connects; whether the session was there already."""
        first, body = self.send(connect(user, password, **more)).read()
        assert first >> 4 == CONNACK and body[1] == 0, (first, body)
        return body[0] == 1

    def published(self, topic, payload=b"x", **more):
        """The reason code of the acknowledgement (MQTT 5); a DISCONNECT's is negative."""
        first, body = self.send(publish(topic, payload, **more)).read()
        if first >> 4 == DISCONNECT:
            return -body[0] if body else 0
        assert first >> 4 == PUBACK, (first, body)
        return body[2] if len(body) > 2 else 0
