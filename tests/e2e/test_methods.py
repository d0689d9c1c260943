"""A method call over HTTP reaches the device and its answer the caller, whatever happens in between."""

import base64
import json
import os
import struct
import subprocess
import threading
import unittest
import urllib.error
import urllib.request

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from called_device import FILTER, PUBREL, Call, CalledDevice, Received, acknowledge, subscribe
from harness import Gateway, wait_until
from raw_mqtt import PUBACK, PUBCOMP, PUBREC, SUBACK, Raw, packet, publish, text

HOUR = 3600


class Methods(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway(settings={"DURAGATE_CFG_SERVER__WORKERS": "2"}).up()
        cls.addClassCleanup(cls.gateway.close)
        cls.keys = {}

    def device(self, name, **more):
        if name not in self.keys:
            self.keys[name] = self.gateway.device(name)
        device = CalledDevice(self.gateway, name, key=self.keys[name], **more)
        self.addCleanup(device.socket.close)
        return device

    def call(self, name, *arguments, **more):
        return Call(self.gateway, name, *arguments, **more)

    def test_every_qos_and_version(self):
        for version in (4, 5):
            for qos in (0, 1, 2):
                with self.subTest(version=version, qos=qos):
                    device = self.device(f"q{qos}v{version}", version=version, qos=qos)
                    call = self.call(device.name)
                    received = device.called()
                    self.assertEqual((received.qos, received.dup), (qos, False))
                    self.assertLessEqual(len(received.id), 16)
                    self.assertEqual(received.topic, f"$dg/commands/{received.id}/reboot")
                    self.assertEqual(received.payload, b'{"delay":1}')
                    device.acknowledged(received)
                    self.assertEqual(device.reply(received, 207, b'{"done":1.50}', qos), 0)
                    self.assertEqual(call.result(), (200, {"status": 207, "payload": {"done": 1.5}}))

    def test_mqtt5_properties(self):
        device = self.device("properties", qos=None)
        device.send(subscribe(1, 5, 77))
        self.assertEqual(device.read()[0] >> 4, SUBACK)
        call = self.call(device.name, query="?response_timeout=20")
        received = device.called()
        self.assertIn(b"\x0b\x4d", received.properties)  # subscription identifier
        self.assertIn(b"\x08" + text(f"$dg/replies/{received.id}/200"), received.properties)
        self.assertIn(b"\x09" + text(received.id), received.properties)
        self.assertIn(b"\x03" + text("application/json"), received.properties)
        expiry = struct.unpack(">I", received.properties.split(b"\x02", 1)[1][:4])[0]
        self.assertIn(expiry, range(15, 21))
        device.acknowledged(received)
        self.assertEqual(device.reply(received), 0)
        self.assertEqual(call.result()[0], 200)

    def test_topic_map(self):
        """Firmware with topics of its own, in both versions; others of the tenant keep the native ones."""
        path = f"/v1/tenants/{self.gateway.TENANT}/policy"
        rules = {"topic_map": {"in": [{"pattern": "done/{id}/{status}", "kind": "reply"}],
                               "out": {"command": "cmd/{id}/{name}"}}}
        self.assertEqual(self.gateway.api("PATCH", path, rules)[0], 200)
        self.addCleanup(self.gateway.api, "PATCH", path, {"topic_map": None})
        for version in (4, 5):
            device = self.device(f"mapped{version}", version=version, qos=None)

            def granted():
                return device.send(subscribe(1, version, to="cmd/#")).read()[1][-1] == 1

            wait_until(granted, 10)
            call = self.call(device.name)
            received = device.called()
            self.assertRegex(received.topic, "^cmd/[^/]+/reboot$")
            device.acknowledged(received)
            device.send(publish(f"done/{received.topic.split('/')[1]}/201", b"1", 1, 9, version))
            self.assertEqual(device.read()[0] >> 4, PUBACK)
            self.assertEqual(call.result(), (200, {"status": 201, "payload": 1}))
            native = self.device(f"native{version}", version=version)
            call = self.call(native.name)
            received = native.called()
            self.assertEqual(received.topic, f"$dg/commands/{received.id}/reboot")
            native.acknowledged(received)
            native.reply(received)
            self.assertEqual(call.result()[0], 200)

    def test_reply_before_the_acknowledgement(self):
        for qos in (1, 2):
            device = self.device(f"early{qos}", qos=qos)
            call = self.call(device.name)
            received = device.called()
            self.assertEqual(device.reply(received), 0)
            self.assertEqual(call.result()[0], 200)
            device.acknowledged(received)
            call = self.call(device.name)
            again = device.called()
            self.assertNotEqual(again.packet_id, received.packet_id)
            device.acknowledged(again)
            device.reply(again)
            self.assertEqual(call.result()[0], 200)

    def test_payload_that_is_no_json(self):
        device = self.device("bytes")
        call = self.call(device.name, body=b"\x00\xff", content_type="application/octet-stream")
        received = device.called()
        self.assertEqual(received.payload, b"\x00\xff")
        device.acknowledged(received)
        device.reply(received, 500, b"\xfe\x00")
        self.assertEqual(call.result(),
                         (200, {"status": 500, "payload_base64": base64.b64encode(b"\xfe\x00").decode()}))
        call = self.call(device.name, body=b"")
        received = device.called()
        self.assertEqual(received.payload, b"")
        device.acknowledged(received)
        device.reply(received, 200, b"")
        self.assertEqual(call.result(), (200, {"status": 200, "payload": None}))

    def test_large_payload(self):
        device = self.device("large")
        body = b'"' + b"x" * (128 * 1024 - 2) + b'"'
        call = self.call(device.name, body=body)
        received = device.called()
        self.assertEqual(received.payload, body)
        device.acknowledged(received)
        device.reply(received, 200, received.payload)
        self.assertEqual(call.result()[1]["payload"], "x" * (128 * 1024 - 2))
        self.assertEqual(self.call(device.name, body=body + b" ").result()[0], 413)

    def test_not_there(self):
        self.assertEqual(self.call("nobody").result()[0], 404)
        device = self.device("deaf", qos=None)
        status, problem = self.call(device.name).result()
        self.assertEqual(status, 404)
        self.assertIn("has not subscribed", problem["detail"])
        device.socket.close()
        wait_until(lambda: "not connected" in self.call(device.name).result()[1]["detail"], 10)

    def test_connect_timeout_waits_for_the_device(self):
        self.keys["late"] = self.gateway.device("late")
        call = self.call("late", query="?connect_timeout=30")
        device = self.device("late")
        received = device.called()
        device.acknowledged(received)
        device.reply(received)
        self.assertEqual(call.result()[0], 200)

    def test_no_answer(self):
        device = self.device("mute")
        call = self.call(device.name, query="?response_timeout=1")
        received = device.called()
        device.acknowledged(received)
        self.assertEqual(call.result()[0], 504)
        self.assertEqual(device.reply(received), 0x80)  # nobody waits any more
        before = self.gateway.metric("duragate_replies_unexpected_total")
        old = self.device("mute-old", version=4)
        received.id = "0" * 16
        self.assertEqual(old.reply(received), 0)
        self.assertEqual(old.reply(received, qos=2), 0)
        self.assertEqual(old.reply(received, qos=0), 0)
        wait_until(lambda: self.gateway.metric("duragate_replies_unexpected_total") == before + 3, 10)

    def test_only_the_called_device_replies(self):
        device, other = self.device("called"), self.device("other")
        call = self.call(device.name)
        received = device.called()
        device.acknowledged(received)
        self.assertEqual(other.reply(received), 0x80)
        self.assertEqual(device.reply(received, 201), 0)
        self.assertEqual(call.result()[1]["status"], 201)

    def test_device_refuses(self):
        for qos, kind in ((1, PUBACK), (2, PUBREC)):
            device = self.device(f"refuses{qos}", qos=qos)
            call = self.call(device.name)
            device.send(acknowledge(kind, device.called().packet_id, 0x99))
            status, problem = call.result()
            self.assertEqual(status, 502)
            self.assertIn("0x99", problem["detail"])

    def test_again_with_dup_after_a_lost_connection(self):
        for version in (4, 5):
            for qos in (1, 2):
                with self.subTest(version=version, qos=qos):
                    keep = {"version": version, "clean": False, "expiry": HOUR}
                    device = self.device(f"lost{qos}v{version}", qos=qos, **keep)
                    calls = [self.call(device.name)]
                    first = [device.called()]
                    calls.append(self.call(device.name))
                    first.append(device.called())
                    if qos == 2:  # of the first one only PUBREL is left
                        device.send(acknowledge(PUBREC, first[0].packet_id))
                        self.assertEqual(device.read()[0] >> 4, PUBREL)
                    device.socket.close()
                    device = self.device(device.name, qos=None, **keep)
                    self.assertTrue(device.present)
                    if qos == 2:
                        self.assertEqual(device.read(), (0x62, struct.pack(">H", first[0].packet_id)))
                        device.send(acknowledge(PUBCOMP, first[0].packet_id))
                    for was in first[qos - 1:]:
                        again = device.called()
                        self.assertEqual((again.dup, again.packet_id, again.topic, again.payload),
                                         (True, was.packet_id, was.topic, was.payload))
                        device.acknowledged(again)
                    for was in first:
                        device.reply(was, qos=1)
                    self.assertEqual([call.result()[0] for call in calls], [200, 200])

    def test_receive_maximum(self):
        device = self.device("narrow", qos=None)
        device.socket.close()
        device = Raw(self.gateway.MQTT_PORT, timeout=30)
        self.addCleanup(device.socket.close)
        user, key = f"narrow@{self.gateway.TENANT}", self.keys["narrow"]
        head = text("MQTT") + b"\5\xc2\0\x3c" + b"\3\x21\0\1"
        self.assertEqual(device.send(packet(0x10, head + text("narrow") + text(user) + text(key))).read()[1][1], 0)
        device.send(subscribe(1, 5))
        self.assertEqual(device.read()[0] >> 4, SUBACK)
        calls = [self.call("narrow") for _ in range(3)]
        for _ in calls:
            received = Received(*device.read(), 5)
            device.send(b"\xc0\0")
            self.assertEqual(device.read(), (0xD0, b""))  # and nothing else before the acknowledgement
            device.send(publish(f"$dg/replies/{received.id}/200", b"1", 1, 9))
            self.assertEqual(device.read()[0] >> 4, PUBACK)
            device.send(acknowledge(PUBACK, received.packet_id))
        self.assertEqual([call.result() for call in calls], [(200, {"status": 200, "payload": 1})] * 3)

    def test_maximum_packet_size(self):
        self.keys["small"] = self.gateway.device("small")
        device = Raw(self.gateway.MQTT_PORT, timeout=30)
        self.addCleanup(device.socket.close)
        user, key = f"small@{self.gateway.TENANT}", self.keys["small"]
        head = text("MQTT") + b"\5\xc2\0\x3c" + b"\5\x27" + struct.pack(">I", 300)
        self.assertEqual(device.send(packet(0x10, head + text("small") + text(user) + text(key))).read()[1][1], 0)
        device.send(subscribe(1, 5))
        self.assertEqual(device.read()[0] >> 4, SUBACK)
        self.assertEqual(self.call("small", body=b"x" * 300).result()[0], 413)

    def test_take_over_while_a_call_waits(self):
        keep = {"clean": False, "expiry": HOUR}
        old = self.device("moves", **keep)
        call = self.call("moves")
        received = old.called()
        old.acknowledged(received)
        new = self.device("moves", qos=None, **keep)  # on any worker
        self.assertTrue(new.present)
        self.assertEqual(new.reply(received), 0)
        self.assertEqual(call.result()[0], 200)

    def test_device_goes_while_a_call_waits(self):
        device = self.device("goes")
        call = self.call("goes")
        device.acknowledged(device.called())
        device.socket.close()
        status, problem = call.result()
        self.assertEqual(status, 504)
        self.assertIn("ended before it answered", problem["detail"])

    def test_unknown_acknowledgements(self):
        for version in (4, 5):
            device = self.device(f"strange{version}", version=version)
            device.send(acknowledge(PUBACK, 99) + acknowledge(PUBCOMP, 99) + acknowledge(PUBREC, 99))
            self.assertEqual(device.read(), (0x62, b"\0\x63" if version == 4 else b"\0\x63\x92"))
            call = self.call(device.name)
            device.send(acknowledge(PUBREC, device.called().packet_id))  # of QoS 1
            device.until_closed()
            self.assertEqual(call.result()[0], 504)

    def test_who_may(self):
        device = self.device("guarded")
        keys = {}
        for role in ("reader", "commander"):
            status, body, _ = self.gateway.api("POST", f"/v1/tenants/{self.gateway.TENANT}/api-keys",
                                               {"roles": [role]})
            self.assertEqual(status, 201)
            keys[role] = body["bearer"]
        self.assertEqual(self.call(device.name, key=keys["reader"]).result()[0], 403)
        call = self.call(device.name, key=keys["commander"])
        received = device.called()
        device.acknowledged(received)
        device.reply(received)
        self.assertEqual(call.result()[0], 200)

    def test_what_the_caller_may_ask(self):
        device = self.device("asked")
        self.assertEqual(self.call(device.name, query="?response_timeout=0").result()[0], 400)
        self.assertEqual(self.call(device.name, query="?connect_timeout=1000").result()[0], 400)
        self.assertEqual(self.call(device.name, "a%20b").result()[0], 422)
        self.assertEqual(self.call(device.name, "a" * 65).result()[0], 422)
        self.assertEqual(self.call(device.name, content_type="a/" + "b" * 255).result()[0], 415)
        for query in ("response_timout=60", "response_timeout=1&response_timeout=60"):
            status, problem = self.call(device.name, query="?" + query).result()
            self.assertEqual(status, 400)
            self.assertIn(query.split("=")[0], problem["detail"])

    def test_caller_goes(self):
        device = self.device("left")
        request = urllib.request.Request(
            f"{self.gateway.HTTP_URL}/v1/tenants/{self.gateway.TENANT}/devices/left/methods/x", b"1", method="POST")
        request.add_header("Authorization", "Bearer " + self.gateway.API_KEY)
        with self.assertRaises((TimeoutError, urllib.error.URLError)):
            urllib.request.urlopen(request, timeout=1)
        received = device.called()
        device.acknowledged(received)
        self.assertEqual(device.reply(received), 0)  # it was in time

    def test_caller_goes_before_the_device_comes(self):
        """What nobody waits for any more is not done when the device comes at last."""
        self.keys["sleeper"] = self.gateway.device("sleeper")
        unanswered = 'duragate_calls_total{result="no_answer"}'
        before = self.gateway.metric(unanswered)
        request = urllib.request.Request(
            f"{self.gateway.HTTP_URL}/v1/tenants/{self.gateway.TENANT}/devices/sleeper/methods/first?connect_timeout=60",
            b"1", method="POST")
        request.add_header("Authorization", "Bearer " + self.gateway.API_KEY)
        with self.assertRaises((TimeoutError, urllib.error.URLError)):
            urllib.request.urlopen(request, timeout=0.5)
        wait_until(lambda: self.gateway.metric(unanswered) == before + 1, 10)
        device = self.device("sleeper")
        call = self.call("sleeper", "second")
        received = device.called()
        self.assertTrue(received.topic.endswith("/second"), received.topic)
        device.acknowledged(received)
        device.reply(received)
        self.assertEqual(call.result()[0], 200)


class Clients(unittest.TestCase):
    """Python paho as the device."""

    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway().up()
        cls.addClassCleanup(cls.gateway.close)

    def test_paho(self):
        for version in (paho.MQTTv311, paho.MQTTv5):
            for qos in (0, 1, 2):
                name = f"paho{version}{qos}"
                self.answers(name, version, qos)

    def answers(self, name, version, qos):
        ready = threading.Event()

        def on_message(client, _, message):
            topic = f"$dg/replies/{message.topic.split('/')[2]}/200"
            properties = None
            if version == paho.MQTTv5:
                self.assertEqual(message.properties.ResponseTopic, topic)
                properties = Properties(PacketTypes.PUBLISH)
                properties.CorrelationData = message.properties.CorrelationData
            client.publish(topic, message.payload, qos, properties=properties)

        client = paho.Client(name, protocol=version)
        client.username_pw_set(f"{name}@{self.gateway.TENANT}", self.gateway.device(name))
        client.on_connect = lambda *_: client.subscribe(FILTER, qos)
        client.on_subscribe = lambda *_: ready.set()
        client.on_message = on_message
        client.connect("127.0.0.1", int(self.gateway.MQTT_PORT))
        client.loop_start()
        try:
            self.assertTrue(ready.wait(30))
            calls = [Call(self.gateway, name, body=str(i).encode()) for i in range(8)]
            self.assertEqual([call.result() for call in calls],
                             [(200, {"status": 200, "payload": i}) for i in range(8)])
        finally:
            client.disconnect()
            client.loop_stop()

    def duragate(self, *arguments):
        return subprocess.run([os.path.join(self.gateway.build, "duragate"), *arguments, "--env",
                               os.path.join(self.gateway.var, "demo.env")], capture_output=True, text=True,
                              timeout=60, check=False)

    def test_command_line(self):
        """`duragate device call` against `duragate device simulate`, which is libmosquitto."""
        device = self.gateway.DEVICE
        missing = self.duragate("device", "call", device, "reboot")
        self.assertEqual(missing.returncode, 1)
        self.assertIn("is not connected", missing.stderr)
        with subprocess.Popen([os.path.join(self.gateway.build, "duragate"), "device", "simulate", "--env",
                               os.path.join(self.gateway.var, "demo.env"), "--interval", "200ms"],
                              stdout=subprocess.PIPE, text=True) as simulation:
            try:
                done = self.duragate("device", "call", device, "reboot", "--data", '{"delay":1}',
                                     "--connect-timeout", "20", "--json")
                self.assertEqual((done.returncode, json.loads(done.stdout)),
                                 (0, {"status": 200, "payload": {"delay": 1}}), done.stderr)
                done = self.duragate("device", "call", device, "reboot", "--timeout", "5")
                self.assertEqual(done.stdout.split(), ["status", "200", "payload", "-"])
            finally:
                simulation.terminate()
            lines = simulation.stdout.read().splitlines()
        self.assertEqual(lines.count("called: reboot"), 2)
        published, acknowledged = [int(word) for word in lines[-1].split() if word.isdigit()]
        self.assertEqual(published, acknowledged)
        self.assertEqual(len([line for line in lines if line.endswith("is durable")]), published)


if __name__ == "__main__":
    unittest.main()
