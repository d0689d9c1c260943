"""MQTT 3.1.1, statement by statement: what a device sends byte by byte, and what it gets for it. It has no words
for most errors: the connection ends without any."""

import functools
import unittest

import support
from support import CLOSED, Conversation, data, packet
from raw_mqtt import connect, publish, pubrel, subscribe, text, unsubscribe

covers = functools.partial(support.covers, "MQTT3")
setUpModule, tearDownModule = support.start_gateway()

COMMANDS, DESIRED = "$dg/commands/#", "$dg/state/desired"
NOT_UTF8 = {"an overlong slash": "c0af", "a surrogate": "eda080", "beyond U+10FFFF": "f4908080", "a cut character": "e282",
            "NUL": "00"}

# (statements, what, packet without its remaining length) of a device that is connected.
BROKEN = (
    ("2.2.2-1 2.2.2-2", "PINGREQ with flags", "c1"),
    ("2.2.2-1 2.2.2-2 3.14.1-1", "DISCONNECT with flags", "e1"),
    ("2.2.2-2 3.14.1-1", "DISCONNECT with all flags", "ef"),
    ("3.6.1-1", "PUBREL with flags 0", "60 0001"),
    ("3.6.1-1", "PUBREL with flags 3", "63 0001"),
    ("3.8.1-1", "SUBSCRIBE with flags 0", "80 0001 0011'$dg/state/desired' 00"),
    ("3.8.1-1", "SUBSCRIBE with flags 10", "8a 0001 0011'$dg/state/desired' 00"),
    ("3.10.1-1", "UNSUBSCRIBE with flags 0", "a0 0001 0011'$dg/state/desired'"),
    ("3.10.1-1", "UNSUBSCRIBE with flags 6", "a6 0001 0011'$dg/state/desired'"),
    ("4.8.0-1", "reserved packet type 0", "00"),
    ("4.8.0-1", "reserved packet type 15", "f0"),
    ("4.8.0-1", "a server's packet: CONNACK", "20 0000"),
    ("4.8.0-1", "a server's packet: SUBACK", "90 0001 00"),
    ("4.8.0-1", "a server's packet: UNSUBACK", "b0 0001"),
    ("4.8.0-1", "a server's packet: PINGRESP", "d0"),
    ("4.8.0-1", "PINGREQ with a body", "c0 00"),
    ("4.8.0-1", "DISCONNECT with a body", "e0 00"),
    ("4.8.0-1", "PUBREL with a reason", "62 0001 00"),
    ("2.3.1-1", "PUBLISH with identifier 0", "32 0001't' 0000"),
    ("2.3.1-1", "PUBLISH of QoS 2 with identifier 0", "34 0001't' 0000"),
    ("2.3.1-1", "PUBLISH without identifier", "32 0001't'"),
    ("2.3.1-1", "SUBSCRIBE with identifier 0", "82 0000 0011'$dg/state/desired' 00"),
    ("2.3.1-1", "UNSUBSCRIBE with identifier 0", "a2 0000 0011'$dg/state/desired'"),
    ("2.3.1-6", "PUBREL without identifier", "62"),
    ("3.3.1-4", "QoS 3", "36 0001't' 0001"),
    ("3.3.1-2", "DUP with QoS 0", "38 0001't'"),
    ("3.3.2-1", "PUBLISH without a topic", "30"),
    ("3.3.2-1", "topic longer than the packet", "30 0009't'"),
    ("3.3.2-2 4.7.1-1", "# in the topic", "30 0003'a/#'"),
    ("3.3.2-2 4.7.1-1", "+ in the topic", "32 0003'a/+' 0001"),
    ("4.7.3-1", "empty topic", "30 0000"),
    ("3.8.3-3", "SUBSCRIBE without a filter", "82 0001"),
    ("3.8.3-4", "QoS 3", "82 0001 0011'$dg/state/desired' 03"),
    ("3.8.3-4", "an option of MQTT 5", "82 0001 0011'$dg/state/desired' 04"),
    ("3.8.3-4", "the highest reserved bit", "82 0001 0011'$dg/state/desired' 80"),
    ("4.8.0-1", "filter without QoS", "82 0001 0011'$dg/state/desired'"),
    ("4.7.3-1", "empty filter", "82 0001 0000 00"),
    ("4.7.1-2", "# before a level", "82 0001 0003'#/a' 00"),
    ("4.7.1-2", "# behind other characters", "82 0001 0002'a#' 00"),
    ("4.7.1-3", "+ behind other characters", "82 0001 0004'a+/b' 00"),
    ("4.7.1-3", "+ before other characters", "82 0001 0002'+a' 00"),
    ("3.10.3-2", "UNSUBSCRIBE without a filter", "a2 0001"),
    ("4.7.3-1", "UNSUBSCRIBE of an empty filter", "a2 0001 0000"),
)
TEXT_FIELDS = (
    ("1.5.3-1 1.5.3-2 3.3.2-1 4.7.3-2", "topic", "30 BAD"),
    ("1.5.3-1 1.5.3-2 3.8.3-1 4.7.3-2", "filter", "82 0001 BAD 00"),
    ("1.5.3-1 1.5.3-2 3.10.3-1 4.7.3-2", "filter to remove", "a2 0001 BAD"),
)
# (statements, what, flags, what follows the client id) of a CONNECT that gets no answer.
NOT_A_CONNECT = (
    ("3.1.2-3 3.1.4-1", "reserved flag", 0x03, ""),
    ("3.1.2-11 3.1.2-13", "will QoS 1 without a will", 0x0A, ""),
    ("3.1.2-11 3.1.2-13", "will QoS 2 without a will", 0x12, ""),
    ("3.1.2-14", "will QoS 3", 0x1E, "0001't' 0000"),
    ("3.1.2-11 3.1.2-15", "will retain without a will", 0x22, ""),
    ("3.1.2-9", "will flag and no will", 0x06, ""),
    ("3.1.2-9", "will without message", 0x06, "0001't'"),
    ("3.1.2-11", "will without its flag", 0x02, "0001't' 0000"),
    ("3.1.2-18", "user name without its flag", 0x02, "0001'u'"),
    ("3.1.2-19", "user name flag and no user name", 0x82, ""),
    ("3.1.2-20", "password without its flag", 0x82, "0001'u' 0001'p'"),
    ("3.1.2-21", "password flag and no password", 0xC2, "0001'u'"),
    ("3.1.2-22", "password without user name", 0x42, "0001'p'"),
    ("3.1.4-1", "bytes behind the last field", 0xC2, "0001'u' 0001'p' 00"),
    ("4.7.3-1", "empty will topic", 0x06, "0000 0000"),
    ("4.7.1-1", "wildcard in the will topic", 0x06, "0003'a/#' 0000"),
    ("3.1.3-10", "will topic that is no text", 0x06, "0001 ff 0000"),
    ("3.1.3-10", "NUL in the will topic", 0x06, "0001 00 0000"),
    ("3.1.3-11", "user name that is no text", 0x82, "0001 ff"),
)


class Version3(Conversation):
    version = 4

    def ended(self, raw):
        self.assertEqual(raw.until_closed(), list(CLOSED))

    def hello(self, raw, request):
        """Sends a CONNECT; flags and code of the CONNACK."""
        first, body = raw.send(request).read()
        self.assertEqual((first, len(body)), (0x20, 2))
        return tuple(body)


class Broken(Version3):
    @covers(BROKEN)
    def test_packets(self):
        for _, what, short in BROKEN:
            with self.subTest(what):
                self.ended(self.connected().send(packet(short)))

    @covers(TEXT_FIELDS)
    def test_text(self):
        for _, what, short in TEXT_FIELDS:
            for kind, bad in NOT_UTF8.items():
                with self.subTest(f"{kind} in the {what}"):
                    field = f"{len(bytes.fromhex(bad)):04x} {bad}"
                    self.ended(self.connected().send(packet(short.replace("BAD", field))))

    @covers("4.8.0-1")
    def test_remaining_length(self):
        """Of at most four bytes; more than needed are no error in 3.1.1."""
        self.ended(self.connected().send(data("30 ffffffff01")))
        raw = self.connected()
        self.asks(raw, data("c08000 c0808000"), "d0", "d0")

    @covers("3.1.0-2", "4.8.0-1")
    def test_second_connect(self):
        self.ended(self.connected().send(connect(self.user, self.key, version=4)))
        raw = self.open()
        raw.send(connect(self.user, self.key, version=4) * 2)
        self.assertEqual(raw.until_closed(), [(0x20, b"\0\0")])

    @covers("4.8.0-1", "4.8.0-2")
    def test_packets_over_the_size(self):
        for request in (data("30 ffffff7f"), publish("t", b"x" * 256 * 1024, version=4)):
            self.ended(self.connected().send(request))
        self.assertEqual(self.values(), [])


class Connect(Version3):
    @covers(NOT_A_CONNECT, "3.2.2-6")
    def test_not_a_connect(self):
        for _, what, flags, more in NOT_A_CONNECT:
            with self.subTest(what):
                self.ended(self.open().send(self.head(flags, more=data(more))))

    @covers("3.1.3-4", "1.5.3-1", "1.5.3-2")
    def test_client_id_is_text(self):
        for kind, bad in NOT_UTF8.items():
            with self.subTest(kind):
                self.ended(self.open().send(self.head(0x02, client_id=bytes.fromhex(bad))))

    @covers("3.1.0-1")
    def test_first_packet_is_connect(self):
        for short in ("30 0001't'", "c0", "82 0001 0001't' 00", "e0", "20 0000", "00", "f0"):
            with self.subTest(short):
                self.ended(self.open().send(packet(short)))

    @covers("3.1.2-1", "3.1.2-2", "3.2.2-5")
    def test_protocol(self):
        for what, short in (("3.1", "10 0006'MQIsdp' 03 02 003c 0003'raw'"), ("level 3", "10 0004'MQTT' 03 02 003c 0003'raw'"),
                            ("name of 3.1, level 4", "10 0006'MQIsdp' 04 02 003c 0003'raw'"),
                            ("lower case", "10 0004'mqtt' 04 02 003c 0003'raw'")):
            with self.subTest(what):
                raw = self.open()
                self.assertEqual(self.hello(raw, packet(short)), (0, 1))
                self.ended(raw)

    @covers("3.1.3-1", "3.1.3-3", "3.1.2-19", "3.1.2-21", "3.1.4-4")
    def test_order_of_the_payload(self):
        self.assertEqual(self.hello(self.open(), self.head(0xC6, more=text("w/t") + text("gone") + self.login())), (0, 0))

    @covers("3.1.3-5")
    def test_client_ids(self):
        for client_id in ("a", "0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ", "x" * 256):
            with self.subTest(client_id):
                self.assertEqual(self.connack(self.open(), client_id=client_id), b"\0\0")

    @covers("3.1.3-6", "3.1.3-8", "3.2.2-4", "3.2.2-5")
    def test_no_client_id(self):
        """With a clean session the gateway makes one; it cannot tell the device, but whoever reads the events."""
        raw = self.open()
        self.assertEqual(self.connack(raw, client_id="", clean=True), b"\0\0")
        support.wait_until(lambda: self.events("device.connected"), 10)
        [event] = self.events("device.connected")
        self.assertRegex(event.value, r'"client_id": ?"[^"]+"')
        raw = self.open()
        self.assertEqual(self.connack(raw, client_id="", clean=False), b"\0\2")
        self.ended(raw)

    @covers("3.1.3-9", "3.2.2-4", "3.2.2-5")
    def test_client_id_that_is_too_long(self):
        raw = self.open()
        self.assertEqual(self.connack(raw, client_id="x" * 257), b"\0\2")
        self.ended(raw)

    @covers("3.1.4-5", "3.2.0-1", "3.2.2-4", "3.2.2-5")
    def test_refused_logins(self):
        for user, password, will, code in ((self.user, "wrong", None, 4), (None, None, None, 5),
                                           ("nobody@" + self.gateway.TENANT, "x", None, 4),
                                           (self.user, self.key, ("$SYS/x", "w"), 5)):
            raw = self.open()
            request = connect(user, password, version=4, will=will) + publish("behind", "x", version=4)
            self.assertEqual(self.hello(raw, request), (0, code))
            self.ended(raw)
        self.assertEqual(self.values(), [])

    @covers("3.2.0-1", "3.1.4-4")
    def test_packets_need_not_wait_for_connack(self):
        raw = self.open()
        raw.send(connect(self.user, self.key, version=4) + publish("early", "y", packet_id=9, version=4) + b"\xc0\0")
        self.assertEqual(raw.read(), (0x20, b"\0\0"))
        self.assertEqual(sorted((raw.read(), raw.read())), [(0x40, b"\0\x09"), (0xD0, b"")])

    @covers("3.1.4-2")
    def test_taken_over(self):
        for client_id in ("raw", "another"):
            raw = self.connected(clean=False)
            self.assertEqual(self.connack(self.open(), client_id=client_id, clean=False), b"\1\0")
            self.ended(raw)

    @covers("3.1.3-2")
    def test_a_client_id_names_nothing_of_another_device(self):
        raw = self.connected(client_id="same", clean=False)
        other = f"{self.device}-other"
        self.assertEqual(self.hello(self.open(), connect(f"{other}@{self.gateway.TENANT}", self.gateway.device(other),
                                                         client_id="same", clean=False, version=4)), (0, 0))
        self.pings(raw)


class KeepAlive(Version3):
    @covers("3.12.4-1")
    def test_pings(self):
        self.asks(self.connected(), b"\xc0\0\xc0\0", "d0", "d0")

    @covers("3.1.2-24")
    def test_silence(self):
        self.ended(self.connected(keep_alive=1, will=("lost", "silent")))
        self.wait_for_values(["silent"])


class Session(Version3):
    def leave(self, raw):
        self.ended(raw.send(b"\xe0\0"))

    @covers("3.1.2-4", "3.1.2-6", "3.1.4-3", "3.2.2-1", "3.2.2-2", "3.2.2-3", "4.1.0-1", "4.1.0-2")
    def test_clean_session(self):
        def begin(clean, present):
            raw = self.open()
            self.assertEqual(self.connack(raw, clean=clean), bytes([present, 0]))
            return raw
        raw = begin(False, False)
        self.asks(raw, subscribe(COMMANDS, packet_id=3, version=4), "90 0003 01")
        self.asks(raw, publish("once", "1", 2, 5, version=4), "50 0005")
        self.leave(raw)
        raw = begin(False, True)
        self.asks(raw, publish("once", "1", 2, 5, version=4, dup=True), "50 0005")
        raw.socket.close()
        self.leave(begin(True, False))
        self.leave(begin(False, False))
        raw = begin(False, True)
        self.asks(raw, publish("once", "2", 2, 5, version=4), "50 0005")
        self.leave(begin(True, False))
        self.leave(begin(True, False))
        self.assertEqual(self.values(), ["1", "2"])


class Publish(Version3):
    @covers("3.3.4-1", "4.3.2-2", "4.3.3-2", "2.3.1-5", "2.3.1-6")
    def test_each_quality(self):
        raw = self.connected()
        raw.send(publish("a", "0", 0, version=4))
        self.asks(raw, publish("a", "1", 1, 0x1234, version=4), "40 1234")
        self.asks(raw, publish("a", "2", 2, 0xFFFF, version=4), "50 ffff")
        self.asks(raw, pubrel(0xFFFF), "70 ffff")
        self.pings(raw)
        found = [(event.value, dict(event.headers)["ce_qos"]) for event in self.events()]
        self.assertEqual(found, [("0", "0"), ("1", "1"), ("2", "2")])

    @covers("4.3.2-2")
    def test_an_identifier_is_free_when_it_was_acknowledged(self):
        raw = self.connected()
        for dup in (False, True):
            self.asks(raw, publish("t", "x", 1, 1, version=4, dup=dup), "40 0001")
        self.assertEqual(self.values(), ["x", "x"])

    @covers("4.3.3-2", "2.3.1-6")
    def test_exactly_once(self):
        raw = self.connected()
        for dup in (False, True, False):
            self.asks(raw, publish("t", "1", 2, 1, version=4, dup=dup), "50 0001")
        for _ in range(2):
            self.asks(raw, pubrel(1), "70 0001")
        self.asks(raw, publish("t", "2", 2, 1, version=4, dup=True), "50 0001")
        self.asks(raw, pubrel(1), "70 0001")
        self.assertEqual(self.values(), ["1", "2"])

    @covers("4.8.0-1")
    def test_wrong_orders(self):
        for first, second in ((publish("t", "1", 2, 3, version=4), pubrel(3)),
                              (publish("t", "2", 1, 4, version=4), publish("t", "no", 2, 4, version=4)),
                              (publish("t", "3", 2, 5, version=4), publish("t", "no", 1, 5, version=4))):
            self.ended(self.connected().send(first + second))
        self.connected()  # whose turn comes when all of it is in the stream
        self.assertEqual(self.values(), ["1", "2", "3"])

    @covers("1.5.3-3", "4.7.3-4", "3.3.2-1")
    def test_topics_as_they_are(self):
        topics = ("/", "a//b/", " a ", "Ab/aB", "\ufeffbom", "bo\ufeffm", "A\u030a", "non\uffffcharacter", "control\u0001",
                  "\u00e4\u20ac\U0001f600")
        raw = self.connected()
        for number, topic in enumerate(topics, 1):
            self.asks(raw, publish(topic, packet_id=number, version=4), f"40 {number:04x}")
        self.assertEqual([dict(event.headers)["ce_subject"] for event in self.events()], list(topics))

    @covers("3.3.5-2", "4.7.3-3", "4.7.2-1")
    def test_refused_topics(self):
        """There is no word for it: the connection ends, and nothing behind it is stored."""
        for topic in ("$SYS/x", "$dg/other", "t" * 1025):
            for qos in (0, 1, 2):
                raw = self.connected()
                raw.send(publish(topic, "x", qos, version=4) + publish("behind", "x", 1, 2, version=4))
                self.ended(raw)
        self.assertEqual(self.values(), [])

    @covers("3.3.1-5", "3.3.1-7", "3.3.1-10", "3.3.1-11", "3.3.1-12")
    def test_retain_is_marked(self):
        raw = self.connected()
        for number, (flags, value) in enumerate(((0x33, "kept"), (0x31, "kept too"), (0x33, ""), (0x32, "plain")), 1):
            request = bytearray(publish("r", value, flags >> 1 & 1, number, version=4))
            request[0] = flags
            raw.send(bytes(request))
        for number in (1, 3, 4):
            self.assertEqual(raw.read(), (0x40, number.to_bytes(2, "big")))
        found = [(event.value, dict(event.headers).get("ce_retain")) for event in self.events()]
        self.assertEqual(found, [("kept", "true"), ("kept too", "true"), ("", "true"), ("plain", None)])

    @covers("4.6.0-5", "4.6.0-6")
    def test_order(self):
        raw = self.connected()
        raw.send(b"".join(publish("o", str(number), number % 2, number + 1, version=4) for number in range(200)))
        for number in range(1, 200, 2):
            self.assertEqual(raw.read(), (0x40, (number + 1).to_bytes(2, "big")))
        self.assertEqual(self.values(), [str(number) for number in range(200)])


class Subscribe(Version3):
    def codes(self, raw, filters, packet_id=1):
        pairs = b"".join(text(name) + bytes([qos]) for name, qos in filters)
        first, body = raw.send(packet("82")[:1] + bytes([2 + len(pairs)]) + packet_id.to_bytes(2, "big") + pairs).read()
        self.assertEqual((first, body[:2]), (0x90, packet_id.to_bytes(2, "big")))
        return list(body[2:])

    @covers("3.8.4-1", "3.8.4-2", "2.3.1-7", "3.8.4-4", "3.8.4-5", "3.9.3-1", "3.9.3-2", "3.8.3-2", "4.7.3-4")
    def test_each_filter_has_its_code(self):
        raw = self.connected()
        found = self.codes(raw, [(COMMANDS, 0), ("other", 1), (DESIRED, 1), ("#", 1), ("+/x", 0), ("$share/g/t", 1),
                                 ("$share/", 0), ("$SYS/#", 2), ("$dg/Commands/#", 0)], 0xFFFF)
        self.assertEqual(found, [0, 0x80, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80])
        self.pings(raw)

    @covers("3.8.4-3", "3.8.4-4")
    def test_the_same_filter_again(self):
        for clean in (True, False):
            raw = self.connected(clean=clean)
            for qos in (1, 0, 1):
                self.assertEqual(self.codes(raw, [(COMMANDS, qos)]), [qos])
            self.assertEqual(self.codes(raw, [(COMMANDS, 1), (COMMANDS, 0)]), [1, 0])
            self.pings(raw)

    @covers("3.10.4-1", "3.10.4-4", "3.10.4-5", "3.10.4-6", "2.3.1-7")
    def test_unsubscribe(self):
        for clean in (True, False):
            raw = self.connected(clean=clean)
            self.asks(raw, unsubscribe(COMMANDS, packet_id=0xABCD, version=4), "b0 abcd")
            self.assertEqual(self.codes(raw, [(COMMANDS, 1)]), [1])
            self.asks(raw, unsubscribe(DESIRED, "#", COMMANDS, COMMANDS, packet_id=2, version=4), "b0 0002")

    @covers("3.3.1-6", "3.3.1-8")
    def test_nothing_is_delivered_as_retained(self):
        raw = self.connected()
        request = bytearray(publish("own/topic", version=4))
        request[0] |= 1
        self.asks(raw, bytes(request), "40 0001")
        self.assertEqual(self.codes(raw, [(COMMANDS, 0), ("own/topic", 1)]), [0, 0x80])
        self.pings(raw)


class Will(Version3):
    def connected_with_will(self, flags=0xCE, topic="w/t"):
        raw = self.open()
        self.assertEqual(self.hello(raw, self.head(flags, more=text(topic) + text("gone") + self.login())), (0, 0))
        return raw

    @covers("3.1.2-8", "3.1.2-9", "3.1.2-14", "3.1.2-16", "3.1.2-17")
    def test_qualities_and_retain(self):
        for flags in (0xC6, 0xCE, 0xD6, 0xE6, 0xF6):
            self.connected_with_will(flags, f"w/{flags:x}").socket.close()
        self.wait_for_values(["gone"] * 5)
        found = [(dict(e.headers)["ce_subject"], dict(e.headers)["ce_qos"], dict(e.headers).get("ce_retain"))
                 for e in self.events()]
        self.assertEqual(found, [("w/c6", "0", None), ("w/ce", "1", None), ("w/d6", "2", None),
                                 ("w/e6", "0", "true"), ("w/f6", "2", "true")])

    @covers("3.14.4-3", "3.1.2-10", "3.1.2-12")
    def test_disconnect_discards_it(self):
        self.ended(self.connected_with_will().send(b"\xe0\0"))
        raw = self.connected()
        raw.socket.close()
        self.ended(self.connected().send(b"\xe0\0"))
        self.assertEqual(self.values(), [])

    @covers("3.1.2-8", "3.1.2-10")
    def test_once_after_an_error(self):
        self.ended(self.connected_with_will().send(packet("c1")))
        self.wait_for_values(["gone"])
        for _ in range(2):
            self.ended(self.connected().send(b"\xe0\0"))
        self.assertEqual(self.values(), ["gone"])


if __name__ == "__main__":
    unittest.main()
