"""What the gateway sends to a device, in both versions: method calls over HTTP are the source of the messages."""

import collections
import threading
import time
import unittest

import support
from support import Conversation, after_properties, covers, data, packet
from raw_mqtt import disconnect, publish, remaining, subscribe, text, unsubscribe

setUpModule, tearDownModule = support.start_gateway()

COMMANDS = "$dg/commands/#"
HOUR = 3600

Message = collections.namedtuple("Message", "dup qos retain packet_id topic properties payload")


class Call(threading.Thread):
    """A call of a method, under way until the device has replied or does not any more."""

    def __init__(self, gateway, device, name, payload, query):
        super().__init__(daemon=True)
        self.arguments = ("POST", f"/v1/tenants/{gateway.TENANT}/devices/{device}/methods/{name}{query}", payload,
                          {"Content-Type": "application/octet-stream"})
        self.gateway, self.status = gateway, None
        self.start()

    def run(self):
        self.status, self.body, _ = self.gateway.api(*self.arguments)

    def result(self):
        self.join(30)
        return self.status


class Delivery(Conversation):
    def subscribed(self, qos=1, section="", **more):
        """A connection whose device takes its commands."""
        raw = self.open()
        if section:
            first, body = raw.send(self.head(0xC2, section=data(section), more=self.login())).read()
            self.assertEqual((first, body[1]), (0x20, 0))
        else:
            self.assertEqual(self.connack(raw, **more)[1], 0)
        request = b"\0\1" + (b"\0" if self.version == 5 else b"") + text(COMMANDS) + bytes([qos])
        first, body = raw.send(support.raw_mqtt.packet(0x82, request)).read()
        self.assertEqual((first, body[-1]), (0x90, qos))
        return raw

    def call(self, name="m", payload=b"x", query="?response_timeout=20"):
        return Call(self.gateway, self.device, name, payload, query)

    def message(self, raw):
        """The next packet, a PUBLISH, taken apart."""
        first, body = raw.read()
        self.assertEqual(first >> 4, 3, (first, body))
        qos, size = first >> 1 & 3, 2 + int.from_bytes(body[:2], "big")
        topic, body = body[2:size].decode(), body[size:]
        packet_id, body = (int.from_bytes(body[:2], "big"), body[2:]) if qos else (None, body)
        found, body = after_properties(body) if self.version == 5 else ({}, body)
        return Message(bool(first & 8), qos, bool(first & 1), packet_id, topic, found, body)

    def answer(self, raw, kind, message, reason=""):
        """PUBACK 40, PUBREC 50, PUBCOMP 70."""
        raw.send(packet(f"{kind} {message.packet_id:04x} {reason}"))

    def reply(self, raw, message):
        """Ends the call. The device replies in QoS 0: nothing comes back."""
        raw.send(publish(f"$dg/replies/{message.topic.split('/')[2]}/200", "", 0, version=self.version))


class Both:
    """In both versions."""

    @covers("MQTT5", "4.3.1-1", "3.3.1-2", "3.3.2-3", "3.3.1-12", "3.3.1-13")
    @covers("MQTT3", "4.3.1-1", "3.3.1-2", "3.3.2-3", "3.3.1-9")
    def test_qos_0(self):
        raw = self.subscribed(0)
        call = self.call("stop", b"now")
        message = self.message(raw)
        self.assertEqual((message.dup, message.qos, message.retain, message.payload), (False, 0, False, b"now"))
        self.assertRegex(message.topic, r"^\$dg/commands/[^/]+/stop$")
        self.reply(raw, message)
        self.assertEqual(call.result(), 200)

    @covers("MQTT5", "2.2.1-4", "4.3.2-1", "4.3.2-2", "4.3.2-3", "3.8.4-8", "4.5.0-1")
    @covers("MQTT3", "2.3.1-4", "4.3.2-1", "3.8.4-6", "4.5.0-1")
    def test_qos_1(self):
        raw = self.subscribed(1)
        calls, messages = [], []
        for number in range(3):
            calls.append(self.call(payload=b"%d" % number))
            messages.append(self.message(raw))
        self.assertEqual([(m.dup, m.qos, m.payload) for m in messages], [(False, 1, b"%d" % n) for n in range(3)])
        self.assertEqual(len({m.packet_id for m in messages} - {0}), 3, "all in use, none of them 0")
        for message in messages:
            self.answer(raw, "40", message)
            self.reply(raw, message)
        self.assertEqual([call.result() for call in calls], [200] * 3)
        self.pings(raw)

    @covers("MQTT5", "4.3.3-1", "4.3.3-2", "4.3.3-3", "4.3.3-4", "4.3.3-5", "2.2.1-5", "3.8.4-8")
    @covers("MQTT3", "4.3.3-1", "2.3.1-4", "2.3.1-6")
    def test_qos_2(self):
        raw = self.subscribed(2)
        call = self.call()
        message = self.message(raw)
        self.assertEqual((message.dup, message.qos), (False, 2))
        self.assertTrue(message.packet_id)
        self.answer(raw, "50", message)
        self.assertEqual(raw.read(), (0x62, message.packet_id.to_bytes(2, "big")))
        self.answer(raw, "70", message)
        self.reply(raw, message)
        self.assertEqual(call.result(), 200)
        self.pings(raw)

    @covers("MQTT5", "4.4.0-1", "3.3.1-1", "3.3.1-3", "4.3.3-5", "4.3.3-6", "4.6.0-5", "4.6.0-6", "3.1.2-5")
    @covers("MQTT3", "4.4.0-1", "3.3.1-1", "3.3.1-3", "2.3.1-3", "4.6.0-1", "4.6.0-5", "4.6.0-6", "3.1.2-5")
    def test_redelivery(self):
        """With the same identifiers, in the same order, PUBREL instead of what was received; only after a new
        connection."""
        raw = self.subscribed(2, clean=False, expiry=HOUR)
        calls, before = [], []
        for number in range(4):
            calls.append(self.call(payload=b"%d" % number))
            before.append(self.message(raw))
        self.answer(raw, "50", before[0])
        self.assertEqual(raw.read()[0], 0x62)
        self.pings(raw)
        raw.socket.close()
        raw = self.open()
        self.assertEqual(self.connack(raw, clean=False, expiry=HOUR)[:2], b"\1\0")
        self.assertEqual(raw.read(), (0x62, before[0].packet_id.to_bytes(2, "big")))
        for message in before[1:]:
            again = self.message(raw)
            self.assertEqual(again._replace(dup=False, properties=None), message._replace(properties=None))
            self.assertTrue(again.dup)
        self.answer(raw, "70", before[0])
        for message in before[1:]:
            self.answer(raw, "50", message)
            self.assertEqual(raw.read(), (0x62, message.packet_id.to_bytes(2, "big")))
            self.answer(raw, "70", message)
        for message in before:
            self.reply(raw, message)
        self.assertEqual([call.result() for call in calls], [200] * 4)
        self.pings(raw)

    @covers("MQTT5", "3.10.4-1", "4.3.3-4")
    @covers("MQTT3", "3.10.4-1", "3.10.4-2", "3.10.4-3")
    def test_unsubscribed(self):
        """What was begun is completed, nothing new comes."""
        raw = self.subscribed(2)
        call = self.call()
        message = self.message(raw)
        first, body = raw.send(unsubscribe(COMMANDS, packet_id=9, version=self.version)).read()
        self.assertEqual((first, body[:2]), (0xB0, b"\0\x09"))
        self.answer(raw, "50", message)
        self.assertEqual(raw.read()[0], 0x62)
        self.answer(raw, "70", message)
        self.reply(raw, message)
        self.assertEqual(call.result(), 200)
        self.assertEqual(self.call().result(), 404)
        self.pings(raw)

    @covers("MQTT5", "3.8.4-3", "3.8.4-5")
    @covers("MQTT3", "3.8.4-3", "3.8.4-4")
    def test_the_newest_subscription_holds(self):
        raw = self.subscribed(2)
        first, body = raw.send(subscribe(COMMANDS, version=self.version)).read()  # QoS 1
        self.assertEqual((first, body[-1]), (0x90, 1))
        call = self.call()
        message = self.message(raw)
        self.assertEqual(message.qos, 1)
        self.answer(raw, "40", message)
        self.reply(raw, message)
        self.assertEqual(call.result(), 200)


class Version3(Both, Delivery):
    version = 4


class Version5(Both, Delivery):
    @covers("MQTT5", "3.3.4-9", "3.3.4-10", "4.9.0-1", "4.9.0-2", "4.9.0-3")
    def test_receive_maximum(self):
        """Of the device: 2. QoS 2 counts until PUBCOMP; everything but PUBLISH goes on."""
        raw = self.subscribed(2, "21 0002")
        calls = [self.call(payload=b"%d" % number) for number in range(3)]
        waiting = [self.message(raw) for _ in range(2)]
        self.pings(raw)
        self.asks(raw, publish("t", "x"), "40 0001")
        self.answer(raw, "50", waiting[0])
        self.assertEqual(raw.read(), (0x62, waiting[0].packet_id.to_bytes(2, "big")))
        self.pings(raw)
        self.answer(raw, "70", waiting[0])
        waiting.append(self.message(raw))
        for message in waiting[1:]:
            self.answer(raw, "50", message)
            self.assertEqual(raw.read()[0], 0x62)
            self.answer(raw, "70", message)
        for message in waiting:
            self.reply(raw, message)
        self.assertEqual([call.result() for call in calls], [200] * 3)

    @covers("MQTT5", "4.4.0-2", "3.3.4-9")
    def test_refused_by_the_device(self):
        """A reason of 0x80 or more ends the exchange: no PUBREL, nothing again, and the quota is free."""
        for qos, kind in ((1, "40"), (2, "50")):
            raw = self.subscribed(qos, "21 0001 11 00000e10")
            call = self.call()
            self.answer(raw, kind, self.message(raw), "83")
            self.assertNotEqual(call.result(), 200)
            self.pings(raw)
            raw.socket.close()
            raw = self.open()
            self.assertEqual(self.connack(raw, clean=False, expiry=HOUR)[:2], b"\1\0")
            self.pings(raw)
            call = self.call()
            message = self.message(raw)
            self.assertFalse(message.dup)
            self.answer(raw, kind, message, "80")
            call.result()
            raw.send(disconnect(expiry=0)).until_closed()

    @covers("MQTT5", "3.1.2-24", "3.1.2-25")
    def test_maximum_packet_size(self):
        """What is too large is not sent, and holds up nothing."""
        raw = self.subscribed(1, "27 00000100")
        self.assertNotEqual(self.call(payload=b"x" * 256).result(), 200)
        call = self.call(payload=b"y")
        message = self.message(raw)
        self.assertEqual(message.payload, b"y")
        self.answer(raw, "40", message)
        self.reply(raw, message)
        self.assertEqual(call.result(), 200)

    @covers("MQTT5", "3.1.2-26", "3.1.2-27", "3.3.2-11")
    def test_topic_aliases(self):
        """None without a maximum, none above it."""
        for section, maximum in (("27 00010000", 0), ("22 0000", 0), ("22 0001", 1)):
            raw = self.subscribed(0, section)
            for _ in range(3):
                self.call("same")
                message = self.message(raw)
                self.assertLessEqual(message.properties.get(0x23, 0), maximum)
                self.assertTrue(message.topic or message.properties.get(0x23))

    @covers("MQTT5", "3.3.2-5", "3.3.2-6", "4.3.3-7")
    def test_message_expiry(self):
        """Says what is left; what waits too long is not sent; what was sent is completed nevertheless."""
        raw = self.subscribed(2, "21 0001")
        first, second = (self.call(payload=value, query="?response_timeout=1") for value in (b"1", b"2"))
        message = self.message(raw)
        self.assertLessEqual(message.properties.get(0x02, 0), 1)
        self.assertNotIn(200, (first.result(), second.result()))
        time.sleep(0.2)  # the message's own time ends with the caller's, or right after
        self.answer(raw, "50", message)
        self.assertEqual(raw.read(), (0x62, message.packet_id.to_bytes(2, "big")))
        self.answer(raw, "70", message)
        self.pings(raw)

    @covers("MQTT5", "3.3.4-3", "3.3.4-4", "3.3.4-2")
    def test_subscription_identifier(self):
        raw = self.connected()
        section = b"\x0b" + remaining(268435455)
        request = b"\0\1" + remaining(len(section)) + section + text(COMMANDS) + b"\0"
        self.asks(raw, support.raw_mqtt.packet(0x82, request), "90 0001 00 00")
        self.call()
        first, body = raw.read()
        self.assertEqual(first, 0x30)
        self.assertIn(section, body)
        self.asks(raw, b"\x82" + remaining(6 + len(COMMANDS)) + b"\0\2\0" + text(COMMANDS) + b"\0",
                  "90 0002 00 00")
        self.call()
        self.assertNotIn(0x0B, self.message(raw).properties, "the subscription was replaced")

    @covers("MQTT5", "3.3.2-15", "3.3.2-16", "3.3.2-20")
    def test_properties(self):
        raw = self.subscribed(0)
        self.call()
        message = self.message(raw)
        self.assertEqual(message.properties[0x03], b"application/octet-stream")
        self.assertTrue(message.properties[0x08].startswith(b"$dg/replies/"))
        self.assertTrue(message.properties[0x09])

    @covers("MQTT5", "3.4.2-1", "3.5.2-1", "3.7.2-1")
    def test_reasons_of_a_device(self):
        for what, short, reason in (("PUBACK with an unknown reason", "40 0001 01", 0x82),
                                    ("PUBREC with a reason of another packet", "50 0001 92", 0x82),
                                    ("PUBCOMP with a reason of another packet", "70 0001 10", 0x82),
                                    ("PUBACK with flags", "42 0001", 0x81), ("PUBREC with flags", "51 0001", 0x81),
                                    ("PUBCOMP with flags", "78 0001", 0x81),
                                    ("PUBACK with identifier 0", "40 0000", 0x82)):
            with self.subTest(what):
                [(first, body)] = self.connected().send(packet(short)).until_closed()
                self.assertEqual((first, body[0]), (0xE0, reason))

    @covers("MQTT5", "2.2.1-5", "3.6.2-1")
    def test_answers_to_nothing(self):
        """PUBREC is told that there is no such message; the others have no answer."""
        raw = self.connected()
        raw.send(packet("40 0007"))
        self.pings(raw)
        first, body = raw.send(packet("50 0007")).read()
        self.assertEqual((first, body), (0x62, b"\0\7\x92"))
        raw.send(packet("70 0007"))
        self.pings(raw)


if __name__ == "__main__":
    unittest.main()
