"""A device that is called by method, packet by packet, and the back end that calls it."""

import struct
import threading

from raw_mqtt import PUBACK, PUBCOMP, PUBREC, SUBACK, Raw, packet, publish, pubrel, remaining, text

PUBLISH, PUBREL = 3, 6
FILTER = "$dg/commands/#"


class Call(threading.Thread):
    """POST .../methods/{method} in the background."""

    def __init__(self, gateway, device, method="reboot", body=b'{"delay":1}', query="", key=None,
                 content_type="application/json"):
        super().__init__(daemon=True)
        self.arguments = (gateway, f"/v1/tenants/{gateway.TENANT}/devices/{device}/methods/{method}{query}",
                          body, content_type, key)
        self.start()

    def run(self):
        gateway, path, body, content_type, key = self.arguments
        self.status, self.body, _ = gateway.api("POST", path, body, {"Content-Type": content_type}, key)

    def result(self):
        self.join(60)
        return self.status, self.body


def subscribe(qos, version, identifier=None, to=FILTER):
    properties = b"" if identifier is None else b"\x0b" + remaining(identifier)
    body = struct.pack(">H", 1) + (remaining(len(properties)) + properties if version == 5 else b"")
    return packet(0x82, body + text(to) + bytes([qos]))


def acknowledge(kind, packet_id, reason=None):
    return packet(kind << 4 | (2 if kind == PUBREL else 0),
                  struct.pack(">H", packet_id) + (b"" if reason is None else bytes([reason])))


class Received:
    """A PUBLISH from the gateway, taken apart."""

    def __init__(self, first, body, version):
        assert first >> 4 == PUBLISH, (first, body)
        self.dup, self.qos = bool(first & 8), first >> 1 & 3
        size = struct.unpack(">H", body[:2])[0]
        self.topic, body = body[2:2 + size].decode(), body[2 + size:]
        self.packet_id = None
        if self.qos:
            self.packet_id, body = struct.unpack(">H", body[:2])[0], body[2:]
        self.properties = b""
        if version == 5:
            assert body[0] < 128
            self.properties, body = body[1:1 + body[0]], body[1 + body[0]:]
        self.payload = body
        self.id = self.topic.split("/")[-2:][0]  # of a command


class CalledDevice(Raw):
    """A raw connection of a device of its own."""

    early = ()  # packets that came before the answer that was read for

    def __init__(self, gateway, name, version=5, qos=1, **more):
        super().__init__(gateway.MQTT_PORT, timeout=30)
        self.gateway, self.name, self.version = gateway, name, version
        self.present = self.resumed(f"{name}@{gateway.TENANT}", more.pop("key"), client_id=name, version=version,
                                    **more)
        if qos is not None:
            first, body = self.send(subscribe(qos, version)).read()
            assert first >> 4 == SUBACK and body[-1] == qos, (first, body)

    def answer(self, kind):
        """The next packet of this kind; commands that come before it are kept for called()."""
        first, body = self.read()
        while first >> 4 == PUBLISH and kind != PUBLISH:
            self.early = [*self.early, (first, body)]
            first, body = self.read()
        assert first >> 4 == kind, (first, body)
        return body

    def called(self):
        if not self.early:
            return Received(*self.read(), self.version)
        first, *self.early = self.early
        return Received(*first, self.version)

    def acknowledged(self, received):
        """Does what the QoS asks of a receiver."""
        if received.qos == 1:
            self.send(acknowledge(PUBACK, received.packet_id))
        elif received.qos == 2:
            self.send(acknowledge(PUBREC, received.packet_id))
            first, body = self.read()
            assert first >> 4 == PUBREL and body[:2] == struct.pack(">H", received.packet_id), (first, body)
            self.send(acknowledge(PUBCOMP, received.packet_id))

    def reply(self, received, status=200, payload=b'{"ok":true}', qos=1, packet_id=7):
        """The acknowledgement's reason code."""
        self.send(publish(f"$dg/replies/{received.id}/{status}", payload, qos, packet_id, self.version))
        if qos == 0:
            return 0
        first, body = self.read()
        assert first >> 4 == (PUBACK if qos == 1 else PUBREC), (first, body)
        if qos == 2:
            self.send(pubrel(packet_id))
            assert self.read()[0] >> 4 == PUBCOMP
        return body[2] if len(body) > 2 else 0
