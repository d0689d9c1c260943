"""Gateway devices and topic maps with paho and mosquitto clients, as docs/devices.md describes them."""

import collections
import json
import os
import re
import threading
import unittest

import paho.mqtt.client as paho

from harness import ROOT, Gateway, wait_until
from raw_mqtt import PUBACK, SUBACK, Raw, publish, subscribe

EXAMPLES = os.path.join(ROOT, "docs/devices.md")


class Client:
    """A paho client that remembers the reason of each acknowledgement."""

    def __init__(self, gateway, name, key, version=5):
        self.client = paho.Client(name, protocol=paho.MQTTv5 if version == 5 else paho.MQTTv311)
        self.client.username_pw_set(f"{name}@{gateway.TENANT}", key)
        self.acknowledged, self.disconnects = {}, 0
        self.changed = threading.Condition()
        self.client.on_publish = lambda client, data, mid: self.note(mid)
        self.client.on_disconnect = self.gone
        connected = threading.Event()
        self.client.on_connect = lambda *_: connected.set()
        self.client.connect("localhost", int(gateway.MQTT_PORT))
        self.client.loop_start()
        assert connected.wait(20)

    def note(self, mid):
        with self.changed:
            self.acknowledged[mid] = True
            self.changed.notify_all()

    def gone(self, *_):
        self.disconnects += 1

    def publish(self, topic, payload, qos):
        """Waits for the acknowledgement."""
        self.client.publish(topic, payload, qos).wait_for_publish(20)

    def close(self):
        self.client.on_disconnect = None
        self.client.disconnect()
        self.client.loop_stop()


def headers_of(text):
    return dict(pair.split("=", 1) for pair in text.split(",") if "=" in pair)


Event = collections.namedtuple("Event", "partition key headers value")


class ViaTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()
        cls.addClassCleanup(cls.gateway.close)
        cls.gateway.up()
        cls.devices = f"/v1/tenants/{cls.gateway.TENANT}/devices/"

    def set(self, path, body, method="PATCH", expect=(200, 201)):
        headers = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else None
        status, answer, _ = self.gateway.api(method, path, body, headers)
        self.assertIn(status, expect, answer)
        return answer

    def child(self, name, *via, **more):
        return self.set(self.devices + name, {"via": list(via), **more}, "PUT")

    def events(self, *payloads, topic=None):
        """The events with one of these payloads, by payload; each is there once."""
        found = {}
        for line in self.gateway.consume(topic=topic, format="%p|%k|%h|%s\\n").splitlines():
            partition, key, headers, value = line.split("|", 3)
            if value in payloads:
                self.assertNotIn(value, found, "stored once")
                found[value] = Event(int(partition), key, headers_of(headers), value)
        return found

    def policy(self, body):
        self.set(f"/v1/tenants/{self.gateway.TENANT}/policy", body, "PUT")

    def applies(self, topic, answer, raw):
        """Waits until a topic of the raw connection is answered so: a change is heard within a second."""
        wait_until(lambda: raw.published(topic) == answer, 10)


class Publishing(ViaTest):
    def test_two_children_at_every_qos(self):
        partitions = {name: self.child(name, "other", "gw")["partition"] for name in ("s1", "s2", "s3", "s4")}
        self.assertGreater(len(set(partitions.values())), 1)
        key = self.gateway.device("gw")
        expected = {}
        for version in (4, 5):
            client = Client(self.gateway, "gw", key, version)
            for qos in (0, 1, 2):
                for name in partitions:
                    for topic, subject, kind in (("a/b", "a/b", "telemetry"), ("$dg/events/door", "door", "event")):
                        payload = f"{version} {qos} {name} {kind}"
                        expected[payload] = (name, subject, f"duragate.{kind}.v1", str(qos))
                        client.publish(f"$dg/via/{name}/{topic}", payload, qos)
            client.publish("own", f"own {version}", 1)
            client.close()
        found = self.events(*expected, "own 4", "own 5")
        self.assertEqual(set(found), {*expected, "own 4", "own 5"})
        for payload, (name, subject, kind, qos) in expected.items():
            event = found[payload]
            self.assertEqual((event.key, event.partition), (name, partitions[name]))
            self.assertEqual(event.headers["ce_source"], f"/tenants/{self.gateway.TENANT}/devices/{name}")
            self.assertEqual(event.headers["ce_viadevice"], "gw")
            self.assertEqual((event.headers["ce_subject"], event.headers["ce_type"], event.headers["ce_qos"]),
                             (subject, kind, qos))
        self.assertNotIn("ce_viadevice", found["own 5"].headers)
        self.assertEqual(found["own 5"].key, "gw")

    def test_order_of_a_childs_events(self):
        self.child("ordered", "gw-order")
        client = Client(self.gateway, "gw-order", self.gateway.device("gw-order"))
        for number in range(500):
            client.client.publish("$dg/via/ordered/n" if number % 3 else "n", f"number {number}", 1)
        client.publish("$dg/via/ordered/n", "number 500", 1)
        client.close()
        lines = self.gateway.consume(format="%k %s\\n").splitlines()
        numbers = [int(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("ordered number ")]
        self.assertEqual(numbers, [n for n in range(501) if n % 3 or n == 500])

    def test_mosquitto_pub(self):
        self.child("mosquitto-child", "gw-mosquitto")
        key = self.gateway.device("gw-mosquitto")
        for version in ("311", "5"):
            for qos in ("0", "1", "2"):
                self.gateway.publish("-V", {"311": "mqttv311", "5": "mqttv5"}[version], "-q", qos, "-t",
                                     "$dg/via/mosquitto-child/t", "-m", f"mosquitto {version} {qos}",
                                     device="gw-mosquitto", key=key)
        found = self.events(*(f"mosquitto {v} {q}" for v in ("311", "5") for q in "012"))
        self.assertEqual(len(found), 6)
        self.assertEqual({event.key for event in found.values()}, {"mosquitto-child"})


class Refusals(ViaTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.key = cls.gateway.device("gw-r")

    def setUp(self):
        self.child("mine", "gw-r")

    def other_tenants_child(self):
        self.set("/v1/tenants/elsewhere", {}, "PUT")
        self.set("/v1/tenants/elsewhere/devices/theirs", {"via": ["gw-r"]}, "PUT")

    def refused_names(self):
        self.other_tenants_child()
        self.child("not-mine", "gw-x")
        self.child("nobodys")
        self.child("off", "gw-r", enabled=False)
        return ("not-mine", "nobodys", "off", "unknown", "theirs", "gw-r", "x" * 129)

    def test_mqtt5_is_told_and_stays(self):
        with Raw(self.gateway.MQTT_PORT) as raw:
            self.assertEqual(raw.log_in(f"gw-r@{self.gateway.TENANT}", self.key), 0)
            for name in self.refused_names():
                raw.send(publish(f"$dg/via/{name}/a", "refused, QoS 0", 0))
                first, body = raw.send(publish(f"$dg/via/{name}/a", "refused", 1)).read()
                self.assertEqual((first >> 4, body[2]), (PUBACK, 0x87), name)
                self.assertIn(b"lists it in its member via", body)
                self.assertEqual(raw.published("$dg/via/mine/a", f"beside {name}"), 0)
        self.assertEqual(self.events("refused", "refused, QoS 0"), {})
        self.assertEqual(self.events("refused", topic=f"{self.gateway.TENANT}.quarantine"), {})

    def test_mqtt311_goes_on(self):
        refused = self.gateway.metric("duragate_mqtt_via_refused_total")
        client = Client(self.gateway, "gw-r", self.key, 4)
        names = self.refused_names()
        for qos in (0, 1, 2):
            for name in names:
                client.publish(f"$dg/via/{name}/a", f"refused {qos} {name}", qos)
        client.publish("$dg/via/mine/a", "the last of 3.1.1", 2)
        self.assertEqual(client.disconnects, 0)
        client.close()
        payloads = [f"refused {qos} {name}" for qos in (0, 1, 2) for name in names]
        self.assertEqual(set(self.events(*payloads, "the last of 3.1.1")), {"the last of 3.1.1"})
        found = self.events(*payloads, topic=f"{self.gateway.TENANT}.quarantine")
        self.assertEqual(set(found), set(payloads))
        event = found["refused 1 off"]
        self.assertEqual((event.key, event.headers["ce_subject"], event.headers["ce_quarantinerule"]),
                         ("gw-r", "$dg/via/off/a", "via"))
        self.assertIn("lists it in its member via", event.headers["ce_quarantinereason"])
        self.assertEqual(self.gateway.metric("duragate_mqtt_via_refused_total"), refused + 3 * len(names))
        self.assertRegex(self.gateway.log(), r"mqtt\.via_refused .*gateway=gw-r")

    def test_changes_while_connected(self):
        self.child("changing", "gw-r")
        topic = "$dg/via/changing/a"
        with Raw(self.gateway.MQTT_PORT) as raw:
            self.assertEqual(raw.log_in(f"gw-r@{self.gateway.TENANT}", self.key), 0)
            self.assertEqual(raw.published(topic), 0)
            for change, answer in (({"via": ["gw-x"]}, 0x87), ({"via": ["gw-x", "gw-r"]}, 0), ({"enabled": False}, 0x87),
                                   ({"enabled": True}, 0), ({"tags": {"a": "b"}}, 0)):
                self.set(self.devices + "changing", change)
                self.applies(topic, answer, raw)
                self.assertEqual(raw.published("$dg/via/mine/a"), 0)
            self.gateway.api("DELETE", self.devices + "changing")
            self.applies(topic, 0x87, raw)
            self.child("changing", "gw-r")
            self.applies(topic, 0, raw)

    def test_subscriptions(self):
        filters = ("$dg/via/mine/commands/#", "$dg/via/mine/state/desired", "$dg/via/nobodys-here/commands/#",
                   "$dg/via/+/commands/#", "$dg/commands/#")
        with Raw(self.gateway.MQTT_PORT) as raw:
            self.assertEqual(raw.log_in(f"gw-r@{self.gateway.TENANT}", self.key), 0)
            first, body = raw.send(subscribe(*filters)).read()
            self.assertEqual((first >> 4, list(body[-5:])), (SUBACK, [1, 1, 0x87, 0x87, 1]))

    def test_known_children_outlive_postgresql(self):
        self.child("late", "gw-r")
        with Raw(self.gateway.MQTT_PORT) as raw:
            self.assertEqual(raw.log_in(f"gw-r@{self.gateway.TENANT}", self.key), 0)
            self.assertEqual(raw.published("$dg/via/mine/a"), 0)
            with self.gateway.locked("device"):
                self.assertEqual(raw.published("$dg/via/late/a", "not now"), 0x80)
                self.assertEqual(raw.published("$dg/via/mine/a", "still"), 0)
            self.applies("$dg/via/late/a", 0, raw)
        self.assertEqual(self.events("not now"), {})


class Payloads(ViaTest):
    def test_rules_are_held_against_the_childs_topic(self):
        self.child("ruled", "gw-q")
        key = self.gateway.device("gw-q")
        self.policy({"quarantine": [{"pattern": "json/#", "require": "json"}]})
        self.addCleanup(self.policy, {})
        with Raw(self.gateway.MQTT_PORT) as raw:
            self.assertEqual(raw.log_in(f"gw-q@{self.gateway.TENANT}", key), 0)
            self.applies("$dg/via/ruled/json/probe", 0x99, raw)
            self.assertEqual(raw.published("$dg/via/ruled/json/a", "no json"), 0x99)
            self.assertEqual(raw.published("$dg/via/ruled/a", "no json either"), 0)
        event = self.events("no json", topic=f"{self.gateway.TENANT}.quarantine")["no json"]
        self.assertEqual((event.key, event.headers["ce_viadevice"]), ("ruled", "gw-q"))
        self.assertEqual(self.events("no json", "no json either").keys(), {"no json either"})


class Maps(ViaTest):
    def tearDown(self):
        self.policy({})

    def published(self, raw, topic, payload):
        self.assertEqual(raw.published(topic, payload), 0)
        return self.events(payload)[payload]

    def test_changes_apply_at_once(self):
        self.child("mapped-child", "gw-map")
        key = self.gateway.device("gw-map")
        with Raw(self.gateway.MQTT_PORT) as raw:
            self.assertEqual(raw.log_in(f"gw-map@{self.gateway.TENANT}", key), 0)
            event = self.published(raw, "legacy/7/alarm", "before")
            self.assertEqual(event.headers["ce_type"], "duragate.telemetry.v1")
            self.policy({"topic_map": {"in": [{"pattern": "legacy/+/alarm", "kind": "event"},
                                              {"pattern": "nodes/{device}/up/#", "kind": "via"},
                                              {"pattern": "probe", "kind": "state_reported"}],
                                       "out": {"command": "cmd/{id}/{name}", "via_command": "nodes/{device}/cmd/{id}"}}})
            self.applies("probe", 0x99, raw)
            event = self.published(raw, "legacy/7/alarm", "mapped")
            self.assertEqual((event.key, event.headers["ce_type"], event.headers["ce_subject"]),
                             ("gw-map", "duragate.event.v1", "legacy/7/alarm"))
            event = self.published(raw, "nodes/mapped-child/up/legacy/7/alarm", "mapped child")
            self.assertEqual((event.key, event.headers["ce_type"], event.headers["ce_viadevice"]),
                             ("mapped-child", "duragate.event.v1", "gw-map"))
            self.assertEqual(raw.published("nodes/unknown/up/a"), 0x87)
            first, body = raw.send(subscribe("cmd/+/+", "nodes/mapped-child/cmd/+", "nodes/unknown/cmd/+", "cmd/+")).read()
            self.assertEqual((first >> 4, list(body[-4:])), (SUBACK, [1, 1, 0x87, 0xA2]))
            self.policy({})
            self.applies("probe", 0, raw)
            event = self.published(raw, "legacy/7/alarm", "after")
            self.assertEqual(event.headers["ce_type"], "duragate.telemetry.v1")

    def test_refusals_name_the_place(self):
        path = f"/v1/tenants/{self.gateway.TENANT}/policy"
        for pointer, topic_map in (("/topic_map/in/1: ", {"in": [{"pattern": "a", "kind": "event"},
                                                                 {"pattern": "$dg/events/#", "kind": "event"}]}),
                                   ("/topic_map/in/0: ", {"in": [{"pattern": "a/#/b", "kind": "event"}]}),
                                   ("/topic_map/in: ", {"in": 1}),
                                   ("/topic_map/in/64: ", {"in": [{"pattern": "a", "kind": "event"}] * 65}),
                                   ("/topic_map/out/command: ", {"out": {"command": "$dg/x/{id}"}})):
            status, answer, _ = self.gateway.api("PUT", path, {"topic_map": topic_map})
            self.assertEqual(status, 422)
            self.assertIn(pointer, json.dumps(answer))


class Document(ViaTest):
    """What docs/devices.md shows is what happens."""

    def test_examples(self):
        with open(EXAMPLES, encoding="utf-8") as file:
            text = file.read()
        blocks = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.S)]
        child, policy = blocks
        self.set(self.devices + "meter-17", child, "PUT")
        gateway_name = child["via"][0]
        key = self.gateway.device(gateway_name)
        self.policy(policy)
        self.addCleanup(self.policy, {})
        rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| `([^`]+)` \| ([a-z ]+) \|$", text, re.M)
        self.assertGreater(len(rows), 6)
        self.child("meter-18", gateway_name)
        with Raw(self.gateway.MQTT_PORT) as raw:
            self.assertEqual(raw.log_in(f"{gateway_name}@{self.gateway.TENANT}", key), 0)
            wait_until(lambda: "event" in self.kind(raw, "plant/3/alarm"), 10)
            for number, (topic, device, subject, kind) in enumerate(rows):
                payload = f"documented {number}"
                self.assertEqual(raw.published(topic, payload), 0, topic)
                event = self.events(payload)[payload]
                self.assertEqual((event.key, event.headers["ce_subject"], event.headers["ce_type"]),
                                 (device, subject, f"duragate.{kind}.v1"), topic)

    def kind(self, raw, topic):
        self.probes = getattr(self, "probes", 0) + 1
        payload = f"probe {self.probes}"
        self.assertEqual(raw.published(topic, payload), 0)
        return self.events(payload)[payload].headers["ce_type"]


if __name__ == "__main__":
    unittest.main()
