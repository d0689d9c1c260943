"""MQTT 5.0, statement by statement: what a device sends byte by byte, and what it gets for it."""

import contextlib
import functools
import time
import unittest

import support
from support import CLOSED, Conversation, after_properties, data, packet
from raw_mqtt import connect, disconnect, publish, pubrel, subscribe, text, unsubscribe

covers = functools.partial(support.covers, "MQTT5")
setUpModule, tearDownModule = support.start_gateway({"DURAGATE_CFG_MQTT__MAX_SESSION_EXPIRY": "30d"})

SUCCESS, MALFORMED, PROTOCOL_ERROR, NOT_AUTHORIZED = 0x00, 0x81, 0x82, 0x87
COMMANDS, DESIRED = "$dg/commands/#", "$dg/state/desired"

# What is no UTF-8 text, in every field of that type (1.5.4): the bytes.
NOT_UTF8 = {"a lone continuation": "80", "an overlong slash": "c0af", "an overlong NUL": "c080", "a surrogate": "eda080",
            "the last surrogate": "edbfbf", "beyond U+10FFFF": "f4908080", "a cut character": "e282", "no lead": "ff",
            "NUL": "00"}

# (statements, what, packet without its remaining length, reason of the DISCONNECT) of a device that is connected.
BROKEN = (
    ("2.1.3-1", "PINGREQ with flags", "c1", MALFORMED),
    ("2.1.3-1 3.14.1-1", "DISCONNECT with flags", "e1", MALFORMED),
    ("2.1.3-1 3.14.1-1", "DISCONNECT with flags and reason", "e8 00", MALFORMED),
    ("3.6.1-1", "PUBREL with flags 0", "60 0001", MALFORMED),
    ("3.6.1-1", "PUBREL with flags 3", "63 0001", MALFORMED),
    ("3.6.1-1", "PUBREL with flags 10", "6a 0001", MALFORMED),
    ("3.8.1-1", "SUBSCRIBE with flags 0", "80 0001 00 0011'$dg/state/desired' 00", MALFORMED),
    ("3.8.1-1", "SUBSCRIBE with flags 15", "8f 0001 00 0011'$dg/state/desired' 00", MALFORMED),
    ("3.10.1-1", "UNSUBSCRIBE with flags 0", "a0 0001 00 0011'$dg/state/desired'", MALFORMED),
    ("3.10.1-1", "UNSUBSCRIBE with flags 6", "a6 0001 00 0011'$dg/state/desired'", MALFORMED),
    ("3.15.1-1", "AUTH with flags", "f1 18 04 15 0001'm'", MALFORMED),
    ("2.1.3-1 4.13.1-1", "reserved packet type", "00", MALFORMED),
    ("4.13.1-1", "a server's packet: CONNACK", "20 00 00 00", PROTOCOL_ERROR),
    ("4.13.1-1", "a server's packet: SUBACK", "90 0001 00 00", PROTOCOL_ERROR),
    ("4.13.1-1", "a server's packet: UNSUBACK", "b0 0001 00 00", PROTOCOL_ERROR),
    ("4.13.1-1", "a server's packet: PINGRESP", "d0", PROTOCOL_ERROR),
    ("4.13.1-1", "PINGREQ with a body", "c0 00", MALFORMED),
    # packet identifiers
    ("2.2.1-5", "PUBREL without identifier", "62", MALFORMED),
    ("2.2.1-5", "PUBREL with half an identifier", "62 00", MALFORMED),
    ("4.13.1-1", "PUBLISH with identifier 0", "32 0001't' 0000 00", PROTOCOL_ERROR),
    ("4.13.1-1", "PUBLISH of QoS 2 with identifier 0", "34 0001't' 0000 00", PROTOCOL_ERROR),
    ("4.13.1-1", "SUBSCRIBE with identifier 0", "82 0000 00 0011'$dg/state/desired' 00", PROTOCOL_ERROR),
    ("4.13.1-1", "UNSUBSCRIBE with identifier 0", "a2 0000 00 0011'$dg/state/desired'", PROTOCOL_ERROR),
    ("4.13.1-1", "PUBREL with identifier 0", "62 0000", PROTOCOL_ERROR),
    # variable byte integers and the length of properties
    ("1.5.5-1", "property length in two bytes", "30 0001't' 8000", MALFORMED),
    ("1.5.5-1", "property length in five bytes", "30 0001't' 8080808000", MALFORMED),
    ("1.5.5-1", "subscription identifier in two bytes", "82 0001 03 0b 8100 0011'$dg/state/desired' 00", MALFORMED),
    ("1.5.5-1", "subscription identifier in five bytes", "82 0001 06 0b 8080808001 0001't' 00", MALFORMED),
    ("2.2.2-1", "PUBLISH without a property length", "30 0001't'", MALFORMED),
    ("2.2.2-1", "SUBSCRIBE without a property length", "82 0001", MALFORMED),
    ("2.2.2-1", "properties longer than the packet", "30 0001't' 05 01 00", MALFORMED),
    ("2.2.2-1", "properties that end inside one", "30 0001't' 01 01", MALFORMED),
    # properties
    ("4.13.1-1", "unknown property", "30 0001't' 02 04 00", MALFORMED),
    ("4.13.1-1", "property 0", "30 0001't' 02 00 00", MALFORMED),
    ("4.13.1-1", "property identifier of two bytes", "30 0001't' 03 81 01 00", MALFORMED),
    ("4.13.1-1", "property of another packet", "30 0001't' 05 11 00000001", MALFORMED),
    ("4.13.1-1", "a server's property", "e0 00 03 12 0000", MALFORMED),
    ("4.13.1-1", "will delay in a PUBLISH", "30 0001't' 05 18 00000001", MALFORMED),
    ("4.13.1-1", "topic alias in a SUBSCRIBE", "82 0001 03 23 0001 0011'$dg/state/desired' 00", MALFORMED),
    ("4.13.1-1", "subscription identifier in an UNSUBSCRIBE", "a2 0001 02 0b 01 0011'$dg/state/desired'", MALFORMED),
    ("4.13.1-1", "payload format twice", "30 0001't' 04 01 00 01 00", PROTOCOL_ERROR),
    ("4.13.1-1", "payload format 2", "30 0001't' 02 01 02", PROTOCOL_ERROR),
    ("4.13.1-1", "message expiry twice", "30 0001't' 0a 02 00000001 02 00000001", PROTOCOL_ERROR),
    ("4.13.1-1", "content type twice", "30 0001't' 08 03 0001'a' 03 0001'a'", PROTOCOL_ERROR),
    ("4.13.1-1", "response topic twice", "30 0001't' 08 08 0001'a' 08 0001'a'", PROTOCOL_ERROR),
    ("4.13.1-1", "correlation data twice", "30 0001't' 06 09 0000 09 0000", PROTOCOL_ERROR),
    ("4.13.1-1", "topic alias twice", "30 0001't' 06 23 0001 23 0001", PROTOCOL_ERROR),
    ("4.13.1-1", "subscription identifier 0", "82 0001 02 0b 00 0011'$dg/state/desired' 00", PROTOCOL_ERROR),
    ("4.13.1-1", "reason string twice", "62 0001 00 06 1f 0000 1f 0000", PROTOCOL_ERROR),
    ("3.3.2-14", "wildcard in the response topic", "30 0001't' 04 08 0001'#'", PROTOCOL_ERROR),
    ("3.3.2-14", "wildcard level in the response topic", "30 0001't' 06 08 0003'a/+'", PROTOCOL_ERROR),
    ("3.3.4-6", "subscription identifier in a PUBLISH", "30 0001't' 02 0b 01", PROTOCOL_ERROR),
    # PUBLISH
    ("3.3.1-4", "QoS 3", "36 0001't' 0001 00", MALFORMED),
    ("3.3.1-2", "DUP with QoS 0", "38 0001't' 00", MALFORMED),
    ("3.3.2-1", "PUBLISH without a topic", "30", MALFORMED),
    ("3.3.2-1", "topic longer than the packet", "30 0009't' 00", MALFORMED),
    ("3.3.2-2 4.7.0-1", "# in the topic", "30 0003'a/#' 00", PROTOCOL_ERROR),
    ("3.3.2-2 4.7.0-1", "+ in the topic", "32 0003'a+b' 0001 00", PROTOCOL_ERROR),
    ("4.7.3-1", "no topic and no alias", "30 0000 00", PROTOCOL_ERROR),
    # SUBSCRIBE, UNSUBSCRIBE
    ("3.8.3-2", "SUBSCRIBE without a filter", "82 0001 00", PROTOCOL_ERROR),
    ("3.8.3-5", "reserved bit 6", "82 0001 00 0011'$dg/state/desired' 40", MALFORMED),
    ("3.8.3-5", "reserved bit 7", "82 0001 00 0011'$dg/state/desired' 81", MALFORMED),
    ("4.13.1-1", "subscription with QoS 3", "82 0001 00 0011'$dg/state/desired' 03", PROTOCOL_ERROR),
    ("4.13.1-1", "retain handling 3", "82 0001 00 0011'$dg/state/desired' 30", PROTOCOL_ERROR),
    ("4.13.1-1", "filter without options", "82 0001 00 0011'$dg/state/desired'", MALFORMED),
    ("4.7.3-1", "empty filter", "82 0001 00 0000 00", PROTOCOL_ERROR),
    ("4.7.1-1", "# before a level", "82 0001 00 0003'#/a' 00", PROTOCOL_ERROR),
    ("4.7.1-1", "# behind other characters", "82 0001 00 0004'a/b#' 00", PROTOCOL_ERROR),
    ("4.7.1-2", "+ behind other characters", "82 0001 00 0002'a+' 00", PROTOCOL_ERROR),
    ("4.7.1-2", "+ before other characters", "82 0001 00 0005'+a/b/' 00", PROTOCOL_ERROR),
    ("3.10.3-2", "UNSUBSCRIBE without a filter", "a2 0001 00", PROTOCOL_ERROR),
    ("4.7.3-1", "UNSUBSCRIBE of an empty filter", "a2 0001 00 0000", PROTOCOL_ERROR),
    ("4.7.1-1", "UNSUBSCRIBE with # inside", "a2 0001 00 0003'#/a'", PROTOCOL_ERROR),
    ("4.8.2-1", "no share name", "82 0001 00 0009'$share//t' 00", PROTOCOL_ERROR),
    ("4.8.2-1", "nothing behind $share/", "82 0001 00 0007'$share/' 00", PROTOCOL_ERROR),
    ("4.8.2-2", "no filter behind the share name", "82 0001 00 0008'$share/g' 00", PROTOCOL_ERROR),
    ("4.8.2-2", "empty filter behind the share name", "82 0001 00 0009'$share/g/' 00", PROTOCOL_ERROR),
    ("4.8.2-2", "wildcard in the share name", "82 0001 00 000a'$share/+/t' 00", PROTOCOL_ERROR),
    ("4.8.2-2", "# in the share name", "82 0001 00 000b'$share/g#/t' 00", PROTOCOL_ERROR),
    ("3.8.3-4", "No Local on a shared subscription", "82 0001 00 000a'$share/g/t' 04", PROTOCOL_ERROR),
    # reason codes
    ("3.6.2-1", "PUBREL with a reason of another packet", "62 0001 10", PROTOCOL_ERROR),
    ("3.6.2-1", "PUBREL with an unknown reason", "62 0001 ff", PROTOCOL_ERROR),
    ("3.14.2-1", "DISCONNECT with a server's reason", "e0 8d", PROTOCOL_ERROR),
    ("3.14.2-1", "DISCONNECT with an unknown reason", "e0 03", PROTOCOL_ERROR),
    ("4.13.1-1", "bytes behind the properties", "e0 00 00 00", MALFORMED),
    ("4.13.1-1", "session expiry twice", "e0 00 0a 11 00000000 11 00000000", PROTOCOL_ERROR),
    ("4.12.0-7", "AUTH without a method in CONNECT", "f0 19 04 15 0001'm'", PROTOCOL_ERROR),
    ("4.13.1-1", "AUTH without a method", "f0 18 00", PROTOCOL_ERROR),
    ("4.13.1-1", "AUTH of one byte", "f0 18", MALFORMED),
    ("4.13.1-1", "AUTH with data twice", "f0 18 0a 15 0001'm' 16 0000 16 0000", PROTOCOL_ERROR),
)
# Where text may be: a packet with BAD in the place of two bytes of length and the text.
TEXT_FIELDS = (
    ("1.5.4-1 1.5.4-2 3.3.2-1 4.7.3-2", "topic", "30 BAD 00"),
    ("1.5.4-1 1.5.4-2 3.8.3-1 4.7.3-2", "filter", "82 0001 00 BAD 00"),
    ("1.5.4-1 1.5.4-2 3.10.3-1 4.7.3-2", "filter to remove", "a2 0001 00 BAD"),
    ("1.5.4-1 1.5.4-2 3.3.2-19", "content type", "30 0001't' SIZE 03 BAD"),
    ("1.5.4-1 1.5.4-2 3.3.2-13", "response topic", "30 0001't' SIZE 08 BAD"),
    ("1.5.7-1", "name of a user property", "30 0001't' SIZE 26 BAD 0001'v'"),
    ("1.5.7-1", "value of a user property", "30 0001't' SIZE 26 0001'k' BAD"),
    ("1.5.4-1 1.5.4-2", "reason string", "e0 00 SIZE 1f BAD"),
)
# The same in CONNECT: (statements, what, flags, properties, what follows the client id, client id).
CONNECT_TEXT_FIELDS = (
    ("3.1.3-4", "client id", 0x02, "", "", True),
    ("3.1.3-12", "user name", 0x82, "", "BAD", False),
    ("3.1.3-11", "will topic", 0x06, "", "00 BAD 0000", False),
    ("1.5.7-1", "value of a user property", 0x02, "26 0001'k' BAD", "", False),
    ("1.5.4-1", "content type of the will", 0x06, "", "SIZE 03 BAD 0001't' 0000", False),
)


def with_text(short, bad):
    """BAD is text in hexadecimal, SIZE the length of the properties behind it."""
    field = f"{len(bytes.fromhex(bad)):04x}{bad}"
    before, size, behind = short.replace("BAD", field).partition("SIZE")
    if size:
        fields = behind if not behind.endswith("0001't' 0000") else behind[:-len("0001't' 0000")]
        return f"{before}{len(data(fields)):02x}{behind}"
    return before


class Broken(Conversation):
    """Malformed packets and protocol errors: DISCONNECT says which, then the connection ends (4.13)."""

    def refused(self, request, reason):
        raw = self.connected()
        raw.send(request)
        packets = raw.until_closed()
        self.assertEqual([first for first, _ in packets], [0xE0], packets)
        self.assertEqual(packets[0][1][0], reason, packets)

    @covers(BROKEN, "4.13.2-1", "3.14.4-1", "3.14.4-2")
    def test_packets(self):
        for _, what, short, reason in BROKEN:
            with self.subTest(what):
                self.refused(packet(short), reason)

    @covers(TEXT_FIELDS)
    def test_text(self):
        for _, what, short in TEXT_FIELDS:
            for kind, bad in NOT_UTF8.items():
                with self.subTest(f"{kind} in the {what}"):
                    self.refused(packet(with_text(short, bad)), MALFORMED)

    @covers("1.5.5-1")
    def test_remaining_length(self):
        for what, request in (("two bytes for 0", "c0 80 00"), ("four bytes for 2", "62 82 80 80 00 0001"),
                              ("five bytes", "30 ff ff ff ff 01"), ("never ending", "30 80 80 80 80")):
            with self.subTest(what):
                self.refused(data(request), MALFORMED)

    @covers("3.1.0-2")
    def test_second_connect(self):
        for keep in (0, 1):  # behind the first, and with it in one segment
            raw = self.open()
            hello = connect(self.user, self.key)
            raw.send(hello * 2 if keep else hello)
            if not keep:
                raw.read()
                raw.send(hello)
            packets = raw.until_closed()
            self.assertEqual(packets[-1][0], 0xE0)
            self.assertEqual(packets[-1][1][0], PROTOCOL_ERROR)
            self.assertEqual([first for first, _ in packets].count(0x20), keep)

    @covers("4.13.2-1", "3.14.0-1")
    def test_nothing_is_read_behind_an_error(self):
        raw = self.connected()
        raw.send(packet("c1") + publish("late", "x", packet_id=1))
        self.assertEqual([first for first, _ in raw.until_closed()], [0xE0])
        self.assertEqual(self.values(), [])


# (statements, what, flags, keep alive ..., see Connect.test_refused): CONNECT that is refused, with the CONNACK.
def row(statements, what, reason, flags=0x02, section="", more=""):
    return statements, what, reason, flags, section, more


REFUSED = (
    row("3.1.2-3 3.1.4-1", "reserved flag", MALFORMED, 0x03),
    row("3.1.2-11 3.1.4-1", "will QoS 1 without a will", MALFORMED, 0x0A),
    row("3.1.2-11", "will QoS 2 without a will", MALFORMED, 0x12),
    row("3.1.2-12", "will QoS 3", MALFORMED, 0x1E, more="00 0001't' 0000"),
    row("3.1.2-13", "will retain without a will", MALFORMED, 0x22),
    row("3.1.2-9", "will flag and no will", MALFORMED, 0x06),
    row("3.1.2-9", "will without payload", MALFORMED, 0x06, more="00 0001't'"),
    row("3.1.2-9", "will without properties", MALFORMED, 0x06, more="0001't' 0000"),
    row("3.1.2-16", "user name without its flag", MALFORMED, 0x02, more="0001'u'"),
    row("3.1.2-17", "user name flag and no user name", MALFORMED, 0x82),
    row("3.1.2-18", "password without its flag", MALFORMED, 0x82, more="0001'u' 0001'p'"),
    row("3.1.2-19", "password flag and no password", MALFORMED, 0xC2, more="0001'u'"),
    row("3.1.4-1", "bytes behind the last field", MALFORMED, 0xC2, more="0001'u' 0001'p' 00"),
    row("4.7.3-1", "empty will topic", PROTOCOL_ERROR, 0x06, more="00 0000 0000"),
    row("4.7.0-1", "wildcard in the will topic", PROTOCOL_ERROR, 0x06, more="00 0003'a/#' 0000"),
    row("3.3.2-14", "wildcard in the will's response topic", PROTOCOL_ERROR, 0x06, more="04 08 0001'#' 0001't' 0000"),
    row("3.1.4-1", "will delay twice", PROTOCOL_ERROR, 0x06, more="0a 18 00000001 18 00000001 0001't' 0000"),
    row("3.1.4-1", "will delay outside of the will", MALFORMED, section="18 00000001"),
    row("3.1.4-1", "topic alias in the will", MALFORMED, 0x06, more="03 23 0001 0001't' 0000"),
    row("3.1.4-1", "session expiry twice", PROTOCOL_ERROR, section="11 00000001 11 00000001"),
    row("3.1.4-1", "receive maximum 0", PROTOCOL_ERROR, section="21 0000"),
    row("3.1.4-1", "receive maximum twice", PROTOCOL_ERROR, section="21 0001 21 0001"),
    row("3.1.4-1", "maximum packet size 0", PROTOCOL_ERROR, section="27 00000000"),
    row("3.1.4-1", "maximum packet size twice", PROTOCOL_ERROR, section="27 00000100 27 00000100"),
    row("3.1.4-1", "topic alias maximum twice", PROTOCOL_ERROR, section="22 0001 22 0001"),
    row("3.1.4-1", "request response information 2", PROTOCOL_ERROR, section="19 02"),
    row("3.1.4-1", "request problem information 2", PROTOCOL_ERROR, section="17 02"),
    row("3.1.4-1", "authentication data without a method", PROTOCOL_ERROR, section="16 0001 00"),
    row("3.1.4-1", "authentication method twice", PROTOCOL_ERROR, section="15 0001'm' 15 0001'm'"),
    row("3.1.4-1", "a server's property", MALFORMED, section="24 01"),
    row("3.1.4-1", "unknown property", MALFORMED, section="7f 01"),
    row("1.5.5-1", "property length in two bytes", MALFORMED, section="LONG"),
    row("4.12.0-1 4.12.0-4", "authentication method", 0x8C, section="15 0005'SCRAM' 16 0001 00"),
    row("3.1.4-2", "no credentials", NOT_AUTHORIZED),
    row("3.1.4-2", "password alone", 0x86, 0x42, more="0001'p'"),
    row("3.1.4-2", "unknown device", 0x86, 0xC2, more="000b'nobody@demo' 0001'p'"),
    row("3.1.3-8", "client id of 257 bytes", 0x85, 0x02, more="CLIENT ID"),
)


class Connect(Conversation):
    def answered(self, raw, request):
        """All that the gateway answers to a CONNECT until it closes."""
        raw.send(request)
        return raw.until_closed()

    def refused(self, request, reason):
        packets = self.answered(self.open(), request)
        self.assertEqual([first for first, _ in packets], [0x20], packets)
        self.assertEqual(packets[0][1][:2], bytes([0, reason]))

    @covers(REFUSED, "3.2.2-6", "3.2.2-7", "3.2.2-8", "3.14.0-1", "4.13.1-1", "4.13.2-1")
    def test_refused(self):
        for _, what, reason, flags, section, more in REFUSED:
            with self.subTest(what):
                client_id = "x" * 257 if more == "CLIENT ID" else "raw"
                request = self.head(flags, client_id=client_id, section=data("" if section == "LONG" else section),
                                    more=data("" if more == "CLIENT ID" else more))
                if section == "LONG":
                    request = packet("10 0004'MQTT' 05 02 003c 8000 0003'raw'")
                self.refused(request, reason)

    @covers(CONNECT_TEXT_FIELDS, "1.5.4-1", "1.5.4-2")
    def test_text(self):
        for _, what, flags, section, more, in_client_id in CONNECT_TEXT_FIELDS:
            for kind, bad in NOT_UTF8.items():
                with self.subTest(f"{kind} in the {what}"):
                    self.refused(self.head(flags, client_id=bytes.fromhex(bad) if in_client_id else "raw",
                                           section=data(with_text(section, bad)), more=data(with_text(more, bad))),
                                 MALFORMED)

    @covers("3.1.0-1", "3.14.0-1")
    def test_first_packet_is_connect(self):
        for short in ("30 0001't' 00", "c0", "82 0001 00 0001't' 00", "f0 18 04 15 0001'm'", "e0", "20 00 00 00", "00"):
            with self.subTest(short):
                self.assertEqual(self.answered(self.open(), packet(short)), list(CLOSED))

    @covers("3.1.2-1", "3.1.2-2")
    def test_protocol(self):
        for what, short in (("name in lower case", "10 0004'mqtt' 05 02 003c 00 0003'raw'"),
                            ("name of 3.1 with level 5", "10 0006'MQIsdp' 05 02 003c 00 0003'raw'"),
                            ("longer name", "10 0005'MQTTT' 05 02 003c 00 0003'raw'"),
                            ("level 6", "10 0004'MQTT' 06 02 003c 00 0003'raw'"),
                            ("level of a bridge", "10 0004'MQTT' 85 02 003c 00 0003'raw'")):
            with self.subTest(what):
                self.refused(packet(short), 0x84)
        # of a level below, in the words of 3.1.1, which are all that such a client knows
        for short in ("10 0006'MQIsdp' 03 02 003c 0003'raw'", "10 0004'MQTT' 03 02 003c 0003'raw'",
                      "10 0004'MQTT' 00 02 003c 0003'raw'"):
            self.assertEqual(self.answered(self.open(), packet(short)), [(0x20, b"\0\1")])

    @covers("3.1.3-3", "3.1.2-17", "3.1.2-19")
    def test_order_of_the_payload(self):
        raw = self.open()
        section = data("11 00000000 21 0010 22 0000 27 00010000 17 01 19 00 26 0001'k' 0001'v'")
        will = b"\0" + text("w/t") + text("gone")
        first, body = raw.send(self.head(0xC6, section=section, more=will + self.login())).read()
        self.assertEqual((first, body[:2]), (0x20, b"\0\0"))

    @covers("3.1.3-5")
    def test_client_ids(self):
        for client_id in ("a", "0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ", "x" * 256,
                          "with / and # and \N{GREEK SMALL LETTER ALPHA}"):
            with self.subTest(client_id):
                self.assertEqual(self.connack(self.open(), client_id=client_id)[1], SUCCESS)

    @covers("3.1.3-6", "3.2.2-16")
    def test_assigned_client_id(self):
        assigned = set()
        for clean in (True, False, True):
            body = self.connack(self.open(), client_id="", clean=clean)
            self.assertEqual(body[1], SUCCESS)
            assigned.add(after_properties(body[2:])[0][0x12])
        self.assertEqual(len(assigned), 3)
        self.assertTrue(all(assigned))
        self.assertNotIn(0x12, after_properties(self.connack(self.open())[2:])[0])

    @covers("3.2.0-1", "3.2.0-2", "3.1.4-5")
    def test_packets_need_not_wait_for_connack(self):
        raw = self.open()
        raw.send(connect(self.user, self.key) + publish("early", "y" * 200_000, packet_id=9) + b"\xc0\0"
                 + publish("early", "z", packet_id=10))
        packets = [raw.read() for _ in range(4)]
        self.assertEqual(packets[0][0], 0x20)
        self.assertEqual(packets[0][1][1], SUCCESS)
        self.assertEqual(sorted(packets[1:]), [(0x40, b"\0\x09"), (0x40, b"\0\x0a"), (0xD0, b"")])
        self.assertEqual(self.values(), ["y" * 200_000, "z"])

    @covers("3.1.4-6", "3.2.2-7")
    def test_nothing_is_processed_behind_a_refusal(self):
        for password, reason in (("wrong", 0x86), (self.key, NOT_AUTHORIZED)):
            raw = self.open()
            hello = connect(self.user, password, will=None if password == "wrong" else ("$SYS/x", "w"))
            packets = self.answered(raw, hello + publish("behind", "x"))
            self.assertEqual([(first, body[1]) for first, body in packets], [(0x20, reason)])
        self.assertEqual(self.values(), [])

    @covers("3.2.2-1", "3.2.2-8", "3.1.2-28", "4.12.0-6")
    def test_connack_says_what_is_served(self):
        body = self.connack(self.open())
        self.assertEqual(body[:2], b"\0\0")
        found = after_properties(body[2:])[0]
        self.assertEqual(found[0x21], 1024)
        self.assertEqual(found[0x27], 256 * 1024)
        self.assertEqual(found[0x22], 16)
        self.assertEqual((found[0x28], found[0x2A]), (0, 0), "wildcards, shared subscriptions")
        for absent in (0x24, 0x25):  # QoS 2 and retain are served, which is said by silence
            self.assertNotIn(absent, found)
        for absent in (0x1A, 0x15, 0x16):  # response information, authentication: nobody asked
            self.assertNotIn(absent, found)

    @covers("3.1.2-28")
    def test_no_response_information_unless_asked(self):
        for section in ("", "19 00"):
            first, body = self.open().send(self.head(0xC2, section=data(section), more=self.login())).read()
            self.assertEqual((first, body[1]), (0x20, SUCCESS))
            self.assertNotIn(0x1A, after_properties(body[2:])[0])

    @covers("3.1.4-3", "3.14.2-2")
    def test_taken_over(self):
        """Whatever the client id: there is one connection of a device, and its session belongs to the device."""
        for client_id in ("raw", "another"):
            raw = self.connected(expiry=100)
            self.assertEqual(self.connack(self.open(), client_id=client_id, clean=False, expiry=100)[:2], b"\1\0")
            [(first, body)] = raw.until_closed()
            self.assertEqual((first, body[0]), (0xE0, 0x8E))
            self.assertNotIn(0x11, after_properties(body[1:])[0])

    @covers("3.1.3-2")
    def test_a_client_id_names_nothing_of_another_device(self):
        """Two devices with one client id are no conflict, and share no session."""
        raw = self.connected(client_id="same", expiry=100)
        other = f"{self.device}-other"
        first, body = self.open().send(connect(f"{other}@{self.gateway.TENANT}", self.gateway.device(other),
                                               client_id="same", clean=False, expiry=100)).read()
        self.assertEqual((first, body[:2]), (0x20, b"\0\0"))
        self.pings(raw)


class KeepAlive(Conversation):
    @covers("3.12.4-1")
    def test_pings(self):
        raw = self.connected()
        self.asks(raw, b"\xc0\0\xc0\0", "d0", "d0")

    @covers("3.1.2-22", "3.2.2-22")
    def test_silence(self):
        """Closed after one and a half of the device's own time, as if the network had failed: with the will."""
        raw = self.connected(keep_alive=1, will=("lost", "silent"))
        [(first, body)] = raw.until_closed()
        self.assertEqual((first, body[0]), (0xE0, 0x8D))
        self.wait_for_values(["silent"])

    @covers("3.1.2-22")
    def test_bytes_of_an_unfinished_packet_are_no_sign_of_life(self):
        raw = self.connected(keep_alive=1)
        raw.socket.settimeout(0.1)
        for byte in publish("t", "x" * 100):  # ten seconds and more, of which it hears no more than two
            raw.send(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                first, body = raw.read()
                break
        else:
            self.fail("was heard to the end")
        self.assertEqual((first, body[0]), (0xE0, 0x8D))

    @covers("3.2.2-22")
    def test_whose_time_counts(self):
        """The gateway's own only where it says so: for none, or more than its maximum."""
        for asked, told in ((0, 1200), (1201, 1200), (65535, 1200), (1200, None), (1, None)):
            found = after_properties(self.connack(self.open(), keep_alive=asked)[2:])[0]
            self.assertEqual(found.get(0x13), told)


class Session(Conversation):
    def present(self, raw, **more):
        body = self.connack(raw, **more)
        self.assertEqual(body[1], SUCCESS)
        return body[0] == 1

    def leave(self, raw, **more):
        raw.send(disconnect(**more))
        self.assertEqual(raw.until_closed(), [])

    def subscribed(self, raw):
        """Whether the session had the subscription, which is gone then."""
        first, body = raw.send(unsubscribe(COMMANDS, packet_id=77)).read()
        self.assertEqual(first, 0xB0)
        return body[-1] == 0

    @covers("3.1.2-4", "3.1.2-5", "3.1.2-6", "3.1.4-4", "3.2.2-2", "3.2.2-3", "3.1.2-23")
    def test_clean_start_and_resumption(self):
        raw = self.open()
        self.assertFalse(self.present(raw, clean=False, expiry=100), "none to go on with")
        self.asks(raw, subscribe(COMMANDS, packet_id=3), "90 0003 00 01")
        self.leave(raw)
        raw = self.open()
        self.assertTrue(self.present(raw, clean=False, expiry=100))
        self.assertTrue(self.subscribed(raw))
        self.asks(raw, subscribe(COMMANDS, packet_id=3), "90 0003 00 01")
        self.leave(raw)
        raw = self.open()
        self.assertFalse(self.present(raw, clean=True, expiry=100))
        self.assertFalse(self.subscribed(raw), "of the session before")
        self.leave(raw)
        self.assertTrue(self.present(self.open(), clean=False), "the new one")

    @covers("3.1.2-23", "4.1.0-2")
    def test_expiry_0_ends_with_the_connection(self):
        for section in (None, 0):
            raw = self.connected(expiry=section)
            self.asks(raw, subscribe(COMMANDS), "90 0001 00 01")
            self.leave(raw)
            raw = self.open()
            self.assertFalse(self.present(raw, clean=False, expiry=section))
            self.assertFalse(self.subscribed(raw))
            self.leave(raw)

    @covers("4.1.0-1", "4.1.0-2")
    def test_expiry_counts_without_a_connection(self):
        raw = self.connected(expiry=1)
        time.sleep(1.3)
        self.asks(raw, subscribe(COMMANDS), "90 0001 00 01")
        raw.socket.close()
        raw = self.open()
        self.assertTrue(self.present(raw, clean=False, expiry=1))
        self.leave(raw)
        time.sleep(1.3)
        self.assertFalse(self.present(self.open(), clean=False, expiry=1))

    @covers("3.1.2-23")
    def test_the_longest_expiry_is_told(self):
        """0xFFFFFFFF asks for a session without end: the gateway says how long it keeps one."""
        body = self.connack(self.open(), expiry=0xFFFFFFFF)
        self.assertEqual(after_properties(body[2:])[0][0x11], 30 * 86400)
        self.assertNotIn(0x11, after_properties(self.connack(self.open(), expiry=30 * 86400)[2:])[0])

    @covers("4.1.0-2", "3.1.2-23")
    def test_disconnect_changes_the_expiry(self):
        raw = self.connected(expiry=100)
        self.leave(raw, expiry=0)
        raw = self.open()
        self.assertFalse(self.present(raw, clean=False, expiry=1))
        self.leave(raw, expiry=100)
        time.sleep(1.2)
        self.assertTrue(self.present(self.open(), clean=False, expiry=1))

    @covers("3.14.2-1")
    def test_disconnect_makes_no_session(self):
        for expiry in (None, 0):
            raw = self.connected(expiry=expiry)
            raw.send(disconnect(expiry=10))
            [(first, body)] = raw.until_closed()
            self.assertEqual((first, body[0]), (0xE0, PROTOCOL_ERROR))

    @covers("3.1.2-5", "4.3.3-10")
    def test_a_resumed_session_knows_what_was_received(self):
        raw = self.connected(expiry=100)
        self.asks(raw, publish("once", "1", 2, 5), "50 0005")
        raw.socket.close()
        raw = self.open()
        self.assertTrue(self.present(raw, clean=False, expiry=100))
        self.asks(raw, publish("once", "1", 2, 5, dup=True), "50 0005")
        self.asks(raw, pubrel(5), "70 0005")
        self.assertEqual(self.values(), ["1"])
        self.asks(raw, publish("once", "2", 2, 5), "50 0005")
        raw.socket.close()
        raw = self.open()
        self.assertFalse(self.present(raw, clean=True, expiry=100))
        self.asks(raw, pubrel(5), "70 0005 92")
        self.asks(raw, publish("once", "3", 2, 5), "50 0005")
        self.assertEqual(self.values(), ["1", "2", "3"])


if __name__ == "__main__":
    unittest.main()
