"""MQTT 5.0, statement by statement: what a device publishes, subscribes to and leaves behind."""

import functools
import time
import unittest

import support
from support import Conversation, after_properties, data, packet
from raw_mqtt import connect, disconnect, publish, pubrel, remaining, subscribe, text, unsubscribe

covers = functools.partial(support.covers, "MQTT5")
setUpModule, tearDownModule = support.start_gateway({"DURAGATE_CFG_MQTT__RECEIVE_MAXIMUM": "4",
                                                     "DURAGATE_CFG_MQTT__MAX_PACKET_BYTES": "4096"})

PROTOCOL_ERROR, NOT_AUTHORIZED, TOO_LARGE, TOPIC_ALIAS = 0x82, 0x87, 0x95, 0x94
COMMANDS, DESIRED = "$dg/commands/#", "$dg/state/desired"


def published(topic, payload="x", qos=1, packet_id=1, section="", retain=False):
    """A PUBLISH with properties in short form."""
    request = bytearray(publish(topic, payload, qos, packet_id, properties=data(section)))
    request[0] |= retain
    return bytes(request)


class Messages(Conversation):
    def ended(self, raw, reason):
        """The gateway says why and closes, whatever it answered before."""
        first, body = raw.until_closed()[-1]
        self.assertEqual((first, body[0]), (0xE0, reason))


class Publish(Messages):
    @covers("3.3.4-1", "4.3.2-4", "4.3.3-8", "2.2.1-2", "2.2.1-5", "3.4.2-1", "3.5.2-1")
    def test_each_quality(self):
        raw = self.connected()
        raw.send(published("a", "0", 0))
        self.asks(raw, published("a", "1", 1, 0x1234), "40 1234")
        self.asks(raw, published("a", "2", 2, 0xFFFF), "50 ffff")
        self.asks(raw, pubrel(0xFFFF), "70 ffff")
        self.pings(raw)
        found = [(event.value, dict(event.headers)["ce_qos"]) for event in self.events()]
        self.assertEqual(found, [("0", "0"), ("1", "1"), ("2", "2")])

    @covers("1.5.4-3", "3.3.2-1", "4.7.3-4")
    def test_topics_as_they_are(self):
        """Nothing is normalised, stripped or replaced, and no character of Unicode is refused but NUL."""
        topics = ("/", "a//b/", " a ", "Ab/aB", "\ufeffbom", "bo\ufeffm", "A\u030a", "\u00c5", "non\uffffcharacter",
                  "\ufdd0", "\U0010ffff", "control\u0001", "\u00e4\u20ac\U0001f600", "..", "a/../b", "%2f")
        raw = self.connected()
        for number, topic in enumerate(topics, 1):
            self.asks(raw, published(topic, packet_id=number), f"40 {number:04x}")
        self.assertEqual([dict(event.headers)["ce_subject"] for event in self.events()], list(topics))

    @covers("4.7.3-3", "4.7.3-1")
    def test_length_of_topics(self):
        raw = self.connected()
        self.asks(raw, published("t" * 1024), "40 0001")
        for topic in ("t" * 1025, "/" * 16):
            first, body = raw.send(published(topic)).read()
            self.assertEqual((first, body[2]), (0x40, 0x90))
        self.pings(raw)

    @covers("3.4.2-1", "3.5.2-1", "3.3.4-1", "4.3.3-9", "4.7.2-1")
    def test_refused_topics(self):
        """Said in the acknowledgement, and the connection stays; with QoS 0 it ends."""
        raw = self.connected()
        for topic in ("$SYS/x", "$share/g/t", "$dg/other", "$"):
            for qos, answer in ((1, 0x40), (2, 0x50)):
                with self.subTest(f"{topic} {qos}"):
                    first, body = raw.send(published(topic, qos=qos, packet_id=7)).read()
                    self.assertEqual((first, body[:3]), (answer, b"\0\7" + bytes([NOT_AUTHORIZED])))
        self.asks(raw, published("allowed", "new", 2, 7), "50 0007")
        raw.send(published("$SYS/x", qos=0))
        self.ended(raw, NOT_AUTHORIZED)
        self.assertEqual(self.values(), ["new"])

    @covers("3.4.2-1", "3.5.2-1")
    def test_what_is_no_event(self):
        """A device's own CloudEvent that breaks their rules is not stored; the connection stays."""
        section = "26 000b'specversion' 0003'2.0' 26 0002'id' 0001'1' 26 0006'source' 0001'x' 26 0004'type' 0001't'"
        raw = self.connected()
        for qos, answer in ((1, 0x40), (2, 0x50)):
            first, body = raw.send(published("t", qos=qos, section=section)).read()
            self.assertEqual((first, body[:3]), (answer, b"\0\1\x83"))
        self.pings(raw)
        raw.send(published("t", qos=0, section=section))
        self.ended(raw, PROTOCOL_ERROR)
        self.assertEqual(self.values(), [])

    @covers("3.3.1-5", "3.3.1-6", "3.3.1-7", "3.3.1-8")
    def test_retain_is_marked(self):
        raw = self.connected()
        self.asks(raw, published("r", "kept", retain=True), "40 0001")
        self.asks(raw, published("r", "", retain=True), "40 0001")
        self.asks(raw, published("r", "plain"), "40 0001")
        found = [(event.value, dict(event.headers).get("ce_retain")) for event in self.events()]
        self.assertEqual(found, [("kept", "true"), ("", "true"), ("plain", None)])

    @covers("3.3.2-4", "3.3.2-15", "3.3.2-16", "3.3.2-17", "3.3.2-18", "3.3.2-20")
    def test_properties_are_kept(self):
        raw = self.connected()
        section = ("01 01 02 00000e10 03 000a'text/plain' 08 0008'answer/1' 09 0003 00ff10 "
                   "26 0001'b' 0001'1' 26 0001'a' 0001'2' 26 0001'b' 0001'3' 26 0001'b' 0000")
        self.asks(raw, published("p", section=section), "40 0001")
        [event] = self.events()
        self.assertEqual([pair for pair in event.headers if pair[0] in ("a", "b")],
                         [("b", "1"), ("a", "2"), ("b", "3"), ("b", "")])
        headers = dict(event.headers)
        self.assertEqual(headers["content-type"], "text/plain")
        self.assertEqual(headers["ce_responsetopic"], "answer/1")
        self.assertEqual(headers["ce_correlationdata"], "AP8Q")
        self.assertIn("ce_expirytime", headers)

    @covers("4.6.0-5", "4.6.0-6")
    def test_order(self):
        """Of all qualities together: in the stream and in the acknowledgements as they were sent."""
        raw = self.connected()
        for start in range(0, 40, 4):
            raw.send(b"".join(published("o", str(number), number % 3, number + 1) for number in range(start, start + 4)))
            for number in range(start, start + 4):
                if number % 3:
                    first, body = raw.read()
                    self.assertEqual((first, int.from_bytes(body, "big")), ((0x40, 0x50)[number % 3 - 1], number + 1))
                if number % 3 == 2:
                    raw.send(pubrel(number + 1))
            for number in range(start, start + 4):
                if number % 3 == 2:
                    self.assertEqual(raw.read(), (0x70, (number + 1).to_bytes(2, "big")))
        self.pings(raw)
        self.assertEqual(self.values(), [str(number) for number in range(40)])

    @covers("3.1.2-29", "3.4.2-2", "3.5.2-2")
    def test_reason_strings(self):
        """Only for who wants them and has room for them."""
        for section, wanted in (("", True), ("17 01", True), ("17 00", False)):
            raw = self.open()
            first, body = raw.send(self.head(0xC2, section=data(section), more=self.login())).read()
            self.assertEqual((first, body[1]), (0x20, 0))
            for qos in (1, 2):
                _, body = raw.send(published("$SYS", qos=qos)).read()
                self.assertEqual(len(body) > 3, wanted)
                if wanted:
                    self.assertIn(b"authorized", after_properties(body[3:])[0][0x1F])
            for request in (subscribe("no"), unsubscribe("no")):
                _, body = raw.send(request).read()
                self.assertTrue(wanted or body[2] == 0, "no properties at all")
            raw.send(packet("c1"))  # DISCONNECT says it in any case
            self.assertIn(0x1F, after_properties(raw.until_closed()[0][1][1:])[0])


class Flow1(Messages):
    @covers("4.3.2-5")
    def test_an_identifier_is_free_when_it_was_acknowledged(self):
        raw = self.connected()
        for dup in (False, True):
            self.asks(raw, publish("t", "x", 1, 1, dup=dup), "40 0001")
        self.assertEqual(self.values(), ["x", "x"])


class Flow2(Messages):
    @covers("4.3.3-10")
    def test_nothing_is_stored_twice_until_it_is_released(self):
        raw = self.connected()
        for dup in (False, True, False):
            self.asks(raw, publish("t", "x", 2, 1, dup=dup), "50 0001")
        self.asks(raw, pubrel(1), "70 0001")
        self.assertEqual(self.values(), ["x"])

    @covers("4.3.3-11", "3.7.2-1")
    def test_release(self):
        raw = self.connected()
        self.asks(raw, published("t", "x", 2, 1), "50 0001")
        self.asks(raw, packet("62 0001 92"), "70 0001")  # what the device says of it changes nothing
        for request in (pubrel(1), pubrel(2), packet("62 0003 00"), packet("62 0004 00 00")):
            first, body = raw.send(request).read()
            self.assertEqual((first, body[2]), (0x70, 0x92), "nothing to release")

    @covers("4.3.3-12")
    def test_an_identifier_is_free_when_it_is_complete(self):
        raw = self.connected()
        for value in ("1", "2"):
            self.asks(raw, publish("t", value, 2, 1, dup=value == "2"), "50 0001")
            self.asks(raw, pubrel(1), "70 0001")
        self.assertEqual(self.values(), ["1", "2"])

    @covers("4.3.3-13")
    def test_message_expiry_ends_no_exchange(self):
        raw = self.connected()
        self.asks(raw, published("t", "x", 2, 1, "02 00000000"), "50 0001")
        self.asks(raw, published("t", "x", 2, 1, "02 00000000"), "50 0001")
        self.asks(raw, pubrel(1), "70 0001")
        self.assertEqual(self.values(), ["x"])

    @covers("4.3.3-9")
    def test_a_refusal_ends_the_exchange(self):
        raw = self.connected()
        for topic in ("$no", "yes"):
            first, body = raw.send(published(topic, topic, 2, 1)).read()
            self.assertEqual((first, body[2:3]), (0x50, bytes([NOT_AUTHORIZED]) if topic == "$no" else b""))
        self.asks(raw, pubrel(1), "70 0001")
        self.assertEqual(self.values(), ["yes"])

    @covers("2.2.1-5")
    def test_wrong_orders(self):
        """One identifier for two qualities, one that is still waiting for two messages, PUBREL before PUBREC."""
        raw = self.connected()
        self.asks(raw, published("t", "1", 2, 1), "50 0001")
        raw.send(published("t", "no", 1, 1))
        self.ended(raw, PROTOCOL_ERROR)
        for second in (published("t", "no", 1, 2), published("t", "no", 2, 2)):
            raw = self.connected()
            raw.send(published("t", "2", 1, 2) + second)
            self.ended(raw, PROTOCOL_ERROR)
        raw = self.connected()
        raw.send(published("t", "3", 2, 3) + pubrel(3))
        self.ended(raw, PROTOCOL_ERROR)
        self.connected()  # whose turn comes when all of it is in the stream
        self.assertEqual(self.values(), ["1", "2", "2", "3"])


class FlowControl(Messages):
    @covers("3.3.4-7")
    def test_receive_maximum(self):
        """QoS 2 counts until PUBCOMP; the fifth of four allowed is one too many."""
        raw = self.connected()
        for number in range(1, 5):
            self.asks(raw, published("t", str(number), 2, number), f"50 {number:04x}")
        raw.send(published("t", "5", 2, 5))
        self.ended(raw, 0x93)
        raw = self.connected()
        raw.send(b"".join(published("t", "y", 2, number) for number in range(1, 6)))
        self.ended(raw, 0x93)
        self.assertNotIn("5", self.values())

    @covers("3.3.4-7", "4.9.0-3")
    def test_what_does_not_count(self):
        raw = self.connected()
        for number in range(1, 5):
            self.asks(raw, published("t", str(number), 2, number), f"50 {number:04x}")
        self.pings(raw)
        raw.send(published("t", "0", 0))
        self.asks(raw, publish("t", "4", 2, 4, dup=True), "50 0004")
        self.asks(raw, subscribe(COMMANDS, packet_id=9), "90 0009 00 01")
        self.asks(raw, unsubscribe(COMMANDS, packet_id=9), "b0 0009 00 00")
        self.asks(raw, pubrel(1), "70 0001")
        self.asks(raw, published("t", "5", 1, 5), "40 0005")
        first, body = raw.send(published("$no", "6", 2, 6)).read()
        self.assertEqual((first, body[2]), (0x50, NOT_AUTHORIZED), "which is through with it")
        self.asks(raw, published("t", "7", 2, 7), "50 0007")
        self.assertEqual(self.values(), ["1", "2", "3", "4", "0", "5", "7"])

    @covers("3.3.4-7")
    def test_a_new_connection_has_the_whole_quota(self):
        """The receive maximum is of one connection: what an earlier one left to release takes nothing of it."""
        raw = self.connected(expiry=100)
        for number in range(1, 5):
            self.asks(raw, published("t", str(number), 2, number), f"50 {number:04x}")
        raw.socket.close()
        raw = self.connected(expiry=100, clean=False)
        raw.send(b"".join(published("t", str(number), 2, number) for number in range(5, 9)))
        for number in range(5, 9):
            self.assertEqual(raw.read(), (0x50, number.to_bytes(2, "big")))
        for number in range(1, 9):
            self.asks(raw, pubrel(number), f"70 {number:04x}")
        self.assertEqual(self.values(), [str(number) for number in range(1, 9)])


class PacketSize(Messages):
    @covers("4.13.1-1")
    def test_packets_over_the_announced_size(self):
        """Known before the packet is there."""
        overhead = len(published("t", b"", 1)) + 1  # the remaining length takes two bytes
        raw = self.connected()
        self.asks(raw, published("t", b"x" * (4096 - overhead)), "40 0001")
        for request in (published("t", b"x" * (4097 - overhead)), data("30 ffffff7f"), data("c0 ffffff7f")):
            raw = self.connected()
            raw.send(request)
            self.ended(raw, TOO_LARGE)
        self.assertEqual([len(value) for value in self.values()], [4096 - overhead])

    @covers("3.1.2-24", "3.4.2-2", "3.5.2-2", "3.14.2-3", "3.9.2-1", "3.11.2-1", "3.7.2-2")
    def test_a_device_with_little_room(self):
        """Reasons are left out where they would be too long; everything else still comes."""
        raw = self.open()
        body = self.limited(raw, 40)
        self.assertEqual(body[1], 0)
        for request, answer in ((published("$no"), "40 0001 87"), (published("$no", qos=2), "50 0001 87"),
                                (subscribe("no"), "90 0001 00 87"), (unsubscribe("no"), "b0 0001 00 11"),
                                (pubrel(9), "70 0009 92"), (b"\xc0\0", "d0")):
            with self.subTest(answer):
                first, body = raw.send(request).read()
                self.assertLessEqual(2 + len(body), 40)
                self.assertEqual(bytes([first]) + body[:len(data(answer)) - 1], data(answer))
        raw.send(packet("c1"))
        [(first, body)] = raw.until_closed()
        self.assertEqual((first, body[0]), (0xE0, 0x81))
        self.assertLessEqual(2 + len(body), 40)

    def limited(self, raw, size):
        section = b"\x27" + size.to_bytes(4, "big")
        first, body = raw.send(self.head(0xC2, section=section, more=self.login())).read()
        self.assertEqual(first, 0x20)
        self.assertLessEqual(2 + len(body), size)
        return body

    @covers("3.1.2-24", "3.2.2-19", "3.2.2-20")
    def test_no_room_for_connack(self):
        """Its properties may not be left out, so it is a refusal, without the reason in words."""
        self.assertEqual(self.limited(self.open(), 200)[1], 0)
        for size in (12, 5):
            raw = self.open()
            self.assertEqual(self.limited(raw, size), bytes([0, TOO_LARGE, 0]))
            self.assertEqual(raw.until_closed(), [])
        raw = self.open()
        raw.send(self.head(0xC2, section=data("27 00000004"), more=self.login()))
        self.assertEqual(raw.until_closed(), [], "not even a refusal fits")


class TopicAlias(Messages):
    def alias(self, number, topic="", payload="x"):
        return published(topic, payload, 1, number + 1, f"23 {number:04x}")

    @covers("3.3.2-12")
    def test_all_that_were_announced(self):
        raw = self.connected()
        for number in range(1, 17):
            self.asks(raw, self.alias(number, f"a/{number}"), f"40 {number + 1:04x}")
        for number in range(16, 0, -1):
            self.asks(raw, self.alias(number), f"40 {number + 1:04x}")
        self.asks(raw, self.alias(3, "a/new"), "40 0004")
        self.asks(raw, self.alias(3), "40 0004")
        order = [*range(1, 17), *range(16, 0, -1), "new", "new"]
        self.assertEqual([dict(event.headers)["ce_subject"] for event in self.events()], [f"a/{n}" for n in order])

    @covers("3.3.2-8")
    def test_numbers_that_are_none(self):
        for number in (0, 17, 65535):
            raw = self.connected()
            raw.send(self.alias(number, "t") if number < 65535 else published("t", section="23 ffff"))
            self.ended(raw, TOPIC_ALIAS)
        self.assertEqual(self.values(), [])

    @covers("3.3.2-7")
    def test_of_one_connection_only(self):
        raw = self.connected(expiry=100)
        self.asks(raw, self.alias(1, "t"), "40 0002")
        raw.socket.close()
        raw = self.connected(expiry=100, clean=False)
        raw.send(self.alias(1))
        self.ended(raw, PROTOCOL_ERROR)
        self.assertEqual(self.values(), ["x"])


class Subscribe(Messages):
    def suback(self, raw, filters, packet_id=1):
        """The reason codes; filters: (text, options)."""
        pairs = b"".join(text(name) + bytes([options]) for name, options in filters)
        first, body = raw.send(packet(f"82 {packet_id:04x} 00") [:1] + remaining(3 + len(pairs))
                               + packet_id.to_bytes(2, "big") + b"\0" + pairs).read()
        self.assertEqual((first, body[:2]), (0x90, packet_id.to_bytes(2, "big")))
        return list(after_properties(body[2:])[1])

    @covers("3.8.4-1", "3.8.4-2", "2.2.1-6", "3.8.4-5", "3.8.4-6", "3.8.4-7", "3.9.3-1", "3.9.3-2", "4.7.3-4")
    def test_each_filter_has_its_code(self):
        raw = self.connected()
        codes = self.suback(raw, [(COMMANDS, 0), ("other/topic", 1), (DESIRED, 1), ("#", 1), ("+/x", 0),
                                  ("$share/g/t", 1), ("$dg/COMMANDS/#", 1), (" " + COMMANDS, 0), ("t" * 1025, 0)], 0xFFFF)
        self.assertEqual(codes, [0, NOT_AUTHORIZED, 1, 0xA2, 0xA2, 0x9E, 0xA2, 0xA2, 0x8F])
        self.pings(raw)

    @covers("4.7.1-1", "4.7.1-2", "4.7.2-1", "4.7.0-1")
    def test_wildcards(self):
        """Right ones are refused by a code of their own: they were announced as not available."""
        raw = self.connected()
        for name in ("#", "/#", "a/#", "+", "+/+", "/+", "a/+/b", "+/#", "$dg/#", "$dg/commands/+", "$SYS/#"):
            with self.subTest(name):
                self.assertEqual(self.suback(raw, [(name, 0)]), [0xA2])

    @covers("4.8.2-1", "4.8.2-2")
    def test_shared_subscriptions(self):
        raw = self.connected()
        for name in ("$share/g/t", "$share/g/#", "$share/g//", f"$share/g/{COMMANDS}"):
            with self.subTest(name):
                self.assertEqual(self.suback(raw, [(name, 0)]), [0x9E])
        for name in ("$share", "$shared/g/t"):  # not the syntax of a shared subscription
            self.assertEqual(self.suback(raw, [(name, 0)]), [NOT_AUTHORIZED])

    @covers("3.8.3-3")
    def test_options(self):
        """All that the specification allows are taken; nothing follows from those that speak of others' messages."""
        raw = self.connected()
        for options in (0x00, 0x04, 0x08, 0x10, 0x20, 0x2C):
            with self.subTest(f"{options:02x}"):
                self.assertEqual(self.suback(raw, [(COMMANDS, options | 1)]), [1])

    @covers("3.8.4-3")
    def test_the_same_filter_again(self):
        for expiry in (None, 100):
            raw = self.connected(expiry=expiry)
            for options in (1, 0, 0, 1):
                self.assertEqual(self.suback(raw, [(COMMANDS, options)]), [options])
            self.assertEqual(self.unsuback(raw, [COMMANDS, COMMANDS]), [0, 0x11], "there was one")

    @covers("3.8.4-5", "3.8.4-3")
    def test_one_filter_twice_in_a_packet(self):
        """As if they had come one after the other; a session that is kept is written once, not again and again."""
        for expiry in (None, 100):
            raw = self.connected(expiry=expiry)
            self.assertEqual(self.suback(raw, [(COMMANDS, 0), (COMMANDS, 1)]), [0, 1])
            self.pings(raw)
            self.assertEqual(self.unsuback(raw, [COMMANDS, COMMANDS]), [0, 0x11])

    def unsuback(self, raw, filters, packet_id=1):
        first, body = raw.send(unsubscribe(*filters, packet_id=packet_id)).read()
        self.assertEqual((first, body[:2]), (0xB0, packet_id.to_bytes(2, "big")))
        return list(after_properties(body[2:])[1])

    @covers("3.10.4-1", "3.10.4-4", "3.10.4-5", "3.10.4-6", "3.11.3-1", "3.11.3-2", "2.2.1-6")
    def test_unsubscribe(self):
        for expiry in (None, 100):
            raw = self.connected(expiry=expiry)
            self.assertEqual(self.unsuback(raw, [COMMANDS], 0xABCD), [0x11])
            self.assertEqual(self.suback(raw, [(COMMANDS, 1)]), [1])
            self.assertEqual(self.unsuback(raw, [DESIRED, "$dg/commands/+", "$dg/Commands/#", COMMANDS, COMMANDS, "#"]),
                             [0x11, 0x11, 0x11, 0, 0x11, 0x11])

    @covers("3.8.4-4", "3.3.1-9", "3.3.1-10", "3.3.1-11")
    def test_nothing_is_delivered_as_retained(self):
        raw = self.connected()
        self.asks(raw, published("own/topic", retain=True), "40 0001")
        for retain_handling in (0x00, 0x10, 0x20):
            self.assertEqual(self.suback(raw, [(COMMANDS, retain_handling), ("own/topic", retain_handling)]),
                             [0, NOT_AUTHORIZED])
            self.pings(raw)


class Will(Messages):
    def connected_with_will(self, flags=0xCE, topic="w/t", payload="gone", section="", **more):
        raw = self.open()
        will = data(section)
        will = remaining(len(will)) + will + text(topic) + text(payload)
        first, body = raw.send(self.head(flags, more=will + self.login(), **more)).read()
        self.assertEqual((first, body[1]), (0x20, 0))
        return raw

    @covers("3.1.2-7", "3.1.2-8", "3.1.2-14", "3.1.2-15", "3.1.2-12", "3.2.2-12", "3.2.2-13")
    def test_qualities_and_retain(self):
        for flags in (0xC6, 0xCE, 0xD6, 0xE6, 0xF6):
            self.connected_with_will(flags, f"w/{flags:x}").socket.close()
        self.wait_for_values(["gone"] * 5)
        found = [(dict(e.headers)["ce_subject"], dict(e.headers)["ce_qos"], dict(e.headers).get("ce_retain"))
                 for e in self.events()]
        self.assertEqual(found, [("w/c6", "0", None), ("w/ce", "1", None), ("w/d6", "2", None),
                                 ("w/e6", "0", "true"), ("w/f6", "2", "true")])

    @covers("3.14.4-3", "3.1.2-8", "3.1.2-10")
    def test_what_a_disconnect_does(self):
        for reason, stored in ((None, 0), (0x00, 0), (0x04, 1), (0x80, 2), (0x97, 3)):
            raw = self.connected_with_will()
            raw.send(disconnect() if reason is None else packet(f"e0 {reason:02x}"))
            self.assertEqual(raw.until_closed(), [])
            self.connected().send(disconnect()).until_closed()  # all of it is in the stream before
            self.assertEqual(len(self.values()), stored, reason)

    @covers("3.1.2-8", "4.13.1-1")
    def test_after_an_error(self):
        raw = self.connected_with_will()
        raw.send(packet("c1"))
        self.ended(raw, 0x81)
        self.wait_for_values(["gone"])

    @covers("3.1.2-8", "3.1.2-10")
    def test_once(self):
        raw = self.connected_with_will()
        raw.socket.close()
        self.wait_for_values(["gone"])
        for _ in range(2):
            self.connected().send(disconnect()).until_closed()
        self.assertEqual(self.values(), ["gone"])

    @covers("3.1.3-10")
    def test_properties(self):
        section = ("03 000a'text/plain' 08 0001'r' 09 0001 00 26 0001'b' 0001'1' 26 0001'a' 0001'2' 26 0001'b' 0001'3'")
        self.connected_with_will(section=section).socket.close()
        self.wait_for_values(["gone"])
        [event] = self.events()
        self.assertEqual([pair for pair in event.headers if pair[0] in ("a", "b")], [("b", "1"), ("a", "2"), ("b", "3")])
        self.assertEqual(dict(event.headers)["content-type"], "text/plain")

    def leave_with_delay(self, delay, expiry=100):
        """Loses a connection whose will waits."""
        raw = self.open()
        will = b"\5\x18" + delay.to_bytes(4, "big") + text("w/t") + text("gone")
        first, body = raw.send(self.head(0xC6, section=b"\x11" + expiry.to_bytes(4, "big"),
                                         more=will + self.login())).read()
        self.assertEqual((first, body[1]), (0x20, 0))
        raw.socket.close()

    @covers("3.1.3-9", "3.1.2-8", "3.1.2-10")
    def test_no_will_when_the_session_goes_on(self):
        self.leave_with_delay(1)
        raw = self.connected(clean=False, expiry=100)
        time.sleep(1.5)
        raw.send(disconnect(expiry=0)).until_closed()
        self.connected().send(disconnect()).until_closed()
        self.assertEqual(self.values(), [])

    @covers("3.1.2-8")
    def test_will_at_the_end_of_the_session(self):
        """At once when a clean start ends it, and when its expiry is over, however long the delay."""
        self.leave_with_delay(3600)
        self.connected().send(disconnect()).until_closed()
        self.wait_for_values(["gone"])
        self.leave_with_delay(3600, 1)
        self.wait_for_values(["gone"] * 2)

    @covers("3.1.2-8")
    def test_will_after_its_delay(self):
        self.leave_with_delay(1)
        time.sleep(0.2)
        self.assertEqual(self.values(), [])
        self.wait_for_values(["gone"])
        raw = self.connected(clean=False, expiry=100)
        raw.send(disconnect(expiry=0)).until_closed()
        self.assertEqual(self.values(), ["gone"])

    @covers("3.14.4-3")
    def test_disconnect_discards_a_will_with_delay(self):
        raw = self.open()
        will = data("05 18 00000001") + text("w/t") + text("gone")
        first, body = raw.send(self.head(0xC6, section=data("11 00000064"), more=will + self.login())).read()
        self.assertEqual((first, body[1]), (0x20, 0))
        raw.send(disconnect()).until_closed()
        time.sleep(1.5)
        self.connected().send(disconnect()).until_closed()
        self.assertEqual(self.values(), [])


class Ends(Messages):
    @covers("3.14.2-1", "3.14.4-3")
    def test_reasons_of_a_device(self):
        for short in ("e0", "e0 00", "e0 04", "e0 80", "e0 81", "e0 82", "e0 83", "e0 90", "e0 93", "e0 94", "e0 95",
                      "e0 96", "e0 97", "e0 98", "e0 99", "e0 00 00", "e0 04 06 1f 0003'bye'", "e0 00 07 26 0001'k' 0001'v'"):
            with self.subTest(short):
                self.assertEqual(self.connected().send(packet(short)).until_closed(), [])

    @covers("4.12.0-7", "4.12.1-2")
    def test_reauthentication(self):
        for reason in ("18", "19"):
            raw = self.connected()
            raw.send(packet(f"f0 {reason} 04 15 0001'm'"))
            self.ended(raw, PROTOCOL_ERROR)


if __name__ == "__main__":
    unittest.main()
