"""What CONNECT, DISCONNECT, AUTH and SUBSCRIBE say; presence, with take-overs."""

import json
import os
import re
import signal
import unittest

import jsonschema
import paho.mqtt.client as paho
from harness import ROOT, Gateway, wait_until
from raw_mqtt import CONNACK, DISCONNECT, PUBACK, PUBREC, SUBACK, Raw, connect, disconnect, packet, publish, subscribe
from raw_mqtt import text

AUTH_METHOD = b"\x15" + text("SCRAM-SHA-256")
IS_TEXT = b"\1\1"
ALLOWED = b"$dg/commands/#, $dg/state/desired"


def schema(name):
    with open(os.path.join(ROOT, f"schemas/events/{name}.schema.json"), encoding="utf-8") as file:
        return json.load(file)


class Case(unittest.TestCase):
    SETTINGS = {"DURAGATE_CFG_SERVER__WORKERS": "3"}

    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway(settings=cls.SETTINGS)
        cls.addClassCleanup(cls.gateway.close)
        cls.gateway.up()
        cls.keys = {}

    def raw(self):
        raw = Raw(self.gateway.MQTT_PORT)
        self.addCleanup(raw.socket.close)
        return raw

    def connack(self, name, **more):
        """(connection, whole CONNACK body)"""
        if name not in self.keys:
            self.keys[name] = self.gateway.device(name)
        raw = self.raw()
        first, body = raw.send(connect(f"{name}@{self.gateway.TENANT}", self.keys[name], **more)).read()
        self.assertEqual(first >> 4, CONNACK)
        return raw, body

    def connected(self, name, **more):
        raw, body = self.connack(name, **more)
        self.assertEqual(body[1], 0)
        return raw

    def presence(self, name):
        """Payloads of a device's presence events, valid by their schemas, in order."""
        found = []
        for line in self.gateway.consume(format="%k %h|%s\\n").splitlines():
            key, rest = line.split(" ", 1)
            headers, payload = rest.rsplit("|", 1)
            kind = re.search(r"ce_type=duragate\.(device\.\w+\.v1)", headers)
            if key == name and kind:
                jsonschema.validate(json.loads(payload), schema(kind.group(1)))
                found.append(json.loads(payload))
        return found


class Presence(Case):
    def test_a_take_over_is_told_by_both(self):
        old = self.connected("over", client_id="old")
        new = self.connected("over", client_id="new")
        self.assertEqual([(first >> 4, body[0]) for first, body in old.until_closed()], [(DISCONNECT, 0x8E)])
        old_port, new_port = old.socket.getsockname()[1], new.socket.getsockname()[1]
        first, ended, second = self.presence("over")
        self.assertEqual([first["reason"], first["client_id"]], ["connected", "old"])
        self.assertNotIn("previous_peer", first)
        self.assertEqual(ended["reason"], f"taken over by 127.0.0.1:{new_port}")
        self.assertEqual([ended["session_id"], ended["reason_code"]], [first["session_id"], 0x8E])
        self.assertGreaterEqual(ended["duration_ms"], 0)
        self.assertEqual([second["connected"], second["reason"], second["client_id"]], [True, "taken over", "new"])
        self.assertEqual([second["previous_peer"], second["previous_session_id"]],
                         [f"127.0.0.1:{old_port}", first["session_id"]])
        new.send(disconnect()).until_closed()
        self.connected("over")
        self.assertEqual([event["reason"] for event in self.presence("over")[3:]],
                         ["disconnected by the device", "connected"])

    def test_a_chain_of_take_overs(self):
        for number in range(5):
            self.connected("chain", client_id=str(number), version=4 + number % 2)
        events = self.presence("chain")
        self.assertEqual([event["connected"] for event in events], [True] + 4 * [False, True])
        for before, after in zip(events[0::2], events[2::2]):
            self.assertEqual(after["previous_session_id"], before["session_id"])

    def test_one_client_id_on_two_devices_is_no_conflict(self):
        connections = [self.connected(name, client_id="same", version=version)
                       for name, version in (("one", 4), ("two", 5), ("three", 4))]
        for raw in connections:
            raw.send(b"\xc0\0")
            self.assertEqual(raw.read()[0] >> 4, 13)


class Connect(Case):
    def test_no_authentication_methods(self):
        _, body = self.connack("method", properties=AUTH_METHOD)
        self.assertEqual(body[1], 0x8C)
        self.assertEqual(self.raw().send(packet(0xF0, b"")).until_closed(), [])  # instead of CONNECT
        for body in (b"", b"\x18\0", b"\x18" + bytes([len(AUTH_METHOD)]) + AUTH_METHOD):
            answers = self.connected("method").send(packet(0xF0, body)).until_closed()
            self.assertEqual([(first >> 4, body[0]) for first, body in answers], [(DISCONNECT, 0x82)])
        answers = self.connected("method", version=4).send(packet(0xF0, b"")).until_closed()
        self.assertEqual(answers, [])

    def test_response_information_is_never_sent(self):
        for asked in (b"", b"\x19\0", b"\x19\1"):
            _, body = self.connack("informed", properties=asked)
            self.assertEqual(body[1], 0)
            self.assertNotIn(b"\x1a\0", body)

    def test_empty_client_ids(self):
        _, body = self.connack("nameless", client_id="", clean=True)
        self.assertIn(b"\x12\0", body)  # assigned
        self.assertEqual(self.connack("nameless", client_id="", clean=False)[1][1], 0)
        self.assertEqual(self.connack("nameless", client_id="", version=4, clean=True)[1], b"\0\0")
        self.assertEqual(self.connack("nameless", client_id="", version=4, clean=False)[1], b"\0\2")

    def test_a_will_that_is_no_text(self):
        for payload, code in ((b"gr\xc3\xbc\xc3\x9f\0", 0), (b"\xc3(", 0x99)):
            _, body = self.connack("texting", will=("t", payload), will_properties=IS_TEXT)
            self.assertEqual(body[1], code)

    def test_with_a_client_of_the_trade(self):
        """paho: clean session 0 in 3.1.1, then a take-over by MQTT 5, which hears why."""
        key, events = self.gateway.device("paho"), []
        clients = []
        for number, version in enumerate((paho.MQTTv311, paho.MQTTv5)):
            more = {"clean_session": False} if version == paho.MQTTv311 else {}
            client = paho.Client(client_id=f"p{number}", protocol=version, **more)
            client.username_pw_set(f"paho@{self.gateway.TENANT}", key)
            client.on_connect = lambda *a, n=number: events.append((n, "connected"))
            client.connect("127.0.0.1", int(self.gateway.MQTT_PORT))
            client.loop_start()
            self.addCleanup(client.loop_stop)
            clients.append(client)
            wait_until(lambda: (number, "connected") in events, 20)
            if number == 1:
                clients[0].disconnect()
        clients[1].disconnect()
        self.assertEqual(self.presence("paho")[2]["reason"], "taken over")


class Payloads(Case):
    def test_what_is_called_text_is_text(self):
        raw = self.connected("text")
        self.assertEqual(raw.published("t", b"gr\xc3\xbc\xc3\x9f\0", properties=IS_TEXT), 0)
        self.assertEqual(raw.published("t", b"\xc3(", properties=IS_TEXT), 0x99)
        self.assertEqual(raw.published("t", b"\xc3(", properties=b"\1\0"), 0)
        first, body = raw.send(publish("t", b"\xc3(", 2, 9, properties=IS_TEXT)).read()
        self.assertEqual((first >> 4, body[2]), (PUBREC, 0x99))
        answers = raw.send(publish("t", b"\xc3(", 0, properties=IS_TEXT)).until_closed()
        self.assertEqual([(first >> 4, body[0]) for first, body in answers], [(DISCONNECT, 0x99)])
        lines = [line for line in self.gateway.consume().splitlines() if "devices/text" in line and "=t," in line]
        self.assertEqual(["ce_payloadformat=utf-8" in line for line in lines], [True, False])


class Subscribe(Case):
    def test_refused_filters(self):
        raw = self.connected("curious")
        first, body = raw.send(subscribe("other/#", "$dg/commands/#", "$share/g/t", "plain")).read()
        self.assertEqual((first >> 4, body[-4:]), (SUBACK, b"\xa2\1\x9e\x87"))
        self.assertIn(ALLOWED, body)
        _, body = self.connected("quiet", properties=b"\x17\0").send(subscribe("other")).read()
        self.assertEqual(body, b"\0\1\0\x87")
        first, body = self.connected("old", version=4).send(
            subscribe("other/#", "$dg/state/desired", "$share/g/t", version=4)).read()
        self.assertEqual((first >> 4, body), (SUBACK, b"\0\1\x80\1\x80"))
        lines = [line for line in self.gateway.log().splitlines() if "mqtt.subscription_refused" in line]
        self.assertIn("device=curious", lines[0])
        self.assertIn('filter=other/#', lines[0])
        self.assertIn(ALLOWED.decode(), lines[0])

    def test_no_reason_strings_when_none_are_wanted(self):
        """MQTT5 3.1.2-29: only CONNACK, DISCONNECT and PUBLISH may have one."""
        raw = self.connected("terse", properties=b"\x17\0")
        first, body = raw.send(publish("$nothing")).read()
        self.assertEqual((first >> 4, body), (PUBACK, b"\0\1\x87"))
        raw.send(packet(0x62, b"\0\7"))
        self.assertEqual(raw.read()[1], b"\0\7\x92")
        self.assertIn(b"\x1f\0", raw.send(packet(0xF0, b"")).read()[1])


class Stop(Case):
    SETTINGS = {"DURAGATE_CFG_MQTT__SERVER_REFERENCE": "gw2.example:8883"}

    def test_devices_are_sent_to_another_server(self):
        new, old = self.connected("five"), self.connected("three", version=4)
        self.gateway.kill(signal.SIGTERM)
        self.assertEqual(old.until_closed(), [])
        (first, body), = new.until_closed()
        self.assertEqual((first >> 4, body[0]), (DISCONNECT, 0x9C))
        self.assertIn(b"\x1c" + text("gw2.example:8883"), body)


if __name__ == "__main__":
    unittest.main()
