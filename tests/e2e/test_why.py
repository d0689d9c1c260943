"""Why a device cannot connect, or no longer is: its connection and what happened to it lately, over HTTP and in words."""

import json
import os
import subprocess
import unittest

import jsonschema
import paho.mqtt.client as paho

from contract import Contract
from harness import BUILDS, Gateway, wait_until
from raw_mqtt import CONNACK, DISCONNECT, Raw, connect, disconnect, packet, publish, subscribe

SETTINGS = {"DURAGATE_CFG_SERVER__WORKERS": "2", "DURAGATE_CFG_MQTT__MAX_PACKET_BYTES": "65536"}


class WhyTest(unittest.TestCase):
    """On two workers: the one that is asked is often not the one that has the device."""

    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway(settings=SETTINGS).up()
        cls.contract = Contract()
        cls.count = 0

    @classmethod
    def tearDownClass(cls):
        cls.gateway.close()

    def setUp(self):
        type(self).count += 1
        self.device = f"why{self.count}"
        self.key = self.gateway.device(self.device)
        self.user = f"{self.device}@{self.gateway.TENANT}"

    def get(self, suffix="", device=None, **more):
        path = f"/v1/tenants/{self.gateway.TENANT}/devices/{device or self.device}{suffix}"
        status, body, _ = self.gateway.api("GET", path, **more)
        self.assertEqual(status, 200, body)
        name, operation = self.contract.find("GET", path.split("?")[0])
        schema = self.contract.resolved(operation["responses"]["200"])["content"]["application/json"]["schema"]
        self.assertFalse(self.faults(schema, body), (name, body))
        return body

    @staticmethod
    def faults(schema, body):
        return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(body)]

    def connection(self):
        return self.get()["connection"]

    def recent(self, suffix=""):
        return self.get("/recent" + suffix)["items"]

    def newest(self, kind):
        """The newest entry of this kind, as soon as there is one."""
        wait_until(lambda: any(entry["kind"] == kind for entry in self.recent()), 20)
        return next(entry for entry in self.recent() if entry["kind"] == kind)

    def why(self, *arguments):
        done = subprocess.run(
            [os.path.join(BUILDS, "asan", "duragate"), "device", "why", self.device, *arguments, "--env",
             os.path.join(self.gateway.var, "demo.env")],
            capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def open(self, **more):
        raw = Raw(self.gateway.MQTT_PORT)
        self.assertEqual(raw.log_in(self.user, self.key, **more), 0)
        self.addCleanup(raw.socket.close)
        return raw


class Refused(WhyTest):
    def test_wrong_password(self):
        for _ in range(3):
            done = self.gateway.publish("-t", "t", "-m", "x", device=self.device, key="wrong", check=False)
            self.assertNotEqual(done.returncode, 0)
        entry = self.newest("login_refused")
        self.assertEqual((entry["reason_code"], entry["count"]), (0x86, 3))
        self.assertTrue(entry["peer"].startswith("127.0.0.1:"), entry)
        self.assertEqual(self.connection()["last_end"]["kind"], "login_refused")
        page = self.why()
        for words in ("not connected", "bad user name or credential (3 times), from 127.0.0.1:", "duragate credential"):
            self.assertIn(words, page)
        self.assertNotIn("wrong", page)

    def test_of_a_name_only_what_came_since_it_is_a_device(self):
        name = self.device + "later"
        with Raw(self.gateway.MQTT_PORT) as raw:
            self.assertEqual(raw.log_in(f"{name}@{self.gateway.TENANT}", "guess"), 0x86)
        key = self.gateway.device(name)
        self.assertEqual(self.get("/recent", name)["items"], [])
        with Raw(self.gateway.MQTT_PORT) as raw:
            self.assertEqual(raw.log_in(f"{name}@{self.gateway.TENANT}", "guess"), 0x86)
        self.assertEqual([e["kind"] for e in self.get("/recent", name)["items"]], ["login_refused"])
        with Raw(self.gateway.MQTT_PORT) as raw:
            self.assertEqual(raw.log_in(f"{name}@{self.gateway.TENANT}", key), 0)

    def test_switched_off(self):
        raw = self.open()
        path = f"/v1/tenants/{self.gateway.TENANT}/devices/{self.device}"
        self.assertEqual(self.gateway.api("PATCH", path, {"enabled": False})[0], 200)
        self.assertEqual(raw.until_closed()[-1][0] >> 4, DISCONNECT)
        self.assertEqual(self.newest("ended")["text"], "ended by the gateway: the device is disabled")
        with Raw(self.gateway.MQTT_PORT) as again:
            self.assertEqual(again.log_in(self.user, self.key), 0x8A)
        self.assertIn("enable", self.newest("login_refused")["advice"])
        self.assertIn("switched off", self.why())

    def test_connect_that_is_no_login(self):
        """Before a login, but it says whose it would be."""
        with Raw(self.gateway.MQTT_PORT) as raw:
            self.assertEqual(raw.log_in(self.user, self.key, client_id="", version=4, clean=False), 2)
        self.assertIn("client identifier", self.newest("connect_refused")["text"])
        with Raw(self.gateway.MQTT_PORT) as raw:
            first, body = raw.send(connect(self.user, self.key, will=("$dg/nonsense", "x"))).read()
            self.assertEqual((first >> 4, body[1] != 0), (CONNACK, True))
        self.assertEqual(self.newest("connect_refused")["detail"], "the will's topic is not allowed")

    def test_metrics(self):
        def refused():
            return self.gateway.metric('duragate_mqtt_connects_refused_total{reason="credentials"}')
        before = refused()
        with Raw(self.gateway.MQTT_PORT) as raw:
            raw.log_in(self.user, "wrong")
        self.assertEqual(refused(), before + 1)


class Connected(WhyTest):
    def test_paho(self):
        """What a connection is, over and over on either worker."""
        client = paho.Client("my client", protocol=paho.MQTTv5)
        client.username_pw_set(self.user, self.key)
        client.connect("localhost", int(self.gateway.MQTT_PORT), keepalive=77)
        client.loop_start()
        try:
            for number in range(4):
                client.publish("t/1", str(number), qos=1).wait_for_publish()
            for _ in range(8):
                connection = self.connection()
                self.assertTrue(connection["connected"])
            self.assertEqual((connection["client_id"], connection["keep_alive_seconds"], connection["protocol"]),
                             ("my client", 77, "mqtt5"))
            self.assertEqual((connection["published"], connection["refused"], connection["dropped"]), (4, 0, 0))
            self.assertEqual(connection["in_flight"], 0)
            self.assertLessEqual(connection["since"], connection["last_activity"])
            self.assertIn("client id my client", self.why())
        finally:
            client.disconnect()
            client.loop_stop()
        self.assertEqual(self.newest("disconnected")["text"], "disconnected by the device")
        self.assertEqual([e["kind"] for e in self.recent()], ["disconnected", "connected"])
        self.assertEqual([e["kind"] for e in self.recent("?limit=1")], ["disconnected"])
        connection = self.connection()
        self.assertEqual((connection["connected"], connection["last_end"]["kind"], connection["session"]),
                         (False, "disconnected", None))

    def test_topic_that_is_not_allowed(self):
        raw = self.open()
        for number in range(3):
            self.assertEqual(raw.published("$SYS/x", packet_id=number + 1), 0x87)
        raw.send(subscribe("other/#", packet_id=9)).read()
        raw.send(subscribe("$dg/commands/#", packet_id=9)).read()
        entry = self.newest("publish_refused")
        self.assertEqual((entry["detail"], entry["count"], entry["reason_code"]), ("$SYS/x", 3, 0x87))
        self.assertEqual(self.newest("subscribe_refused")["detail"], "other/#")
        self.assertEqual(self.newest("subscribed")["detail"], "$dg/commands/#")
        self.assertEqual(self.connection()["refused"], 3)
        self.assertIn("does not begin with $", self.why())

    def test_keep_alive(self):
        self.open(keep_alive=1)
        self.assertEqual(self.newest("keep_alive_timeout")["reason_code"], 0x8D)
        self.assertIn("keep-alive", self.why())

    def test_take_over(self):
        first = self.open()
        second = self.open()
        self.assertEqual(first.until_closed()[-1][1][:1], b"\x8e")
        entry = self.newest("taken_over")
        address = "127.0.0.1:%d" % second.socket.getsockname()[1]
        self.assertEqual((entry["peer"], entry["detail"]),
                         ("127.0.0.1:%d" % first.socket.getsockname()[1], address))
        self.assertEqual(self.connection()["peer"], address)
        self.assertIn("two have one identity", self.why())

    def test_oversized_packet(self):
        raw = self.open()
        raw.send(publish("t", b"x" * 70000))
        raw.until_closed()
        entry = self.newest("protocol_error")
        self.assertEqual(entry["reason_code"], 0x95)
        self.assertIn("MQTT5 3.2.2.3.6: packet too large", entry["detail"])
        self.assertIn("mqtt.max_packet_bytes", self.why())

    def test_nonsense(self):
        raw = self.open()
        raw.send(packet(0xF3, b""))
        raw.until_closed()
        self.assertIn("MQTT5", self.newest("protocol_error")["detail"])

    def test_will_and_lost_connection(self):
        raw = self.open(will=("last/words", "x"))
        raw.socket.close()
        self.assertEqual(self.newest("will_stored")["detail"], "last/words")
        self.assertEqual(self.newest("connection_lost")["reason_code"], 0x80)

    def test_session_that_is_kept(self):
        raw = self.open(expiry=3600, clean=False)
        raw.send(disconnect())
        raw.until_closed()
        wait_until(lambda: not self.connection()["connected"] and self.connection()["session"], 20)
        session = self.connection()["session"]
        self.assertLess(session["disconnected_at"], session["expires_at"])
        self.assertIn("its session is kept until", self.why())
        raw = Raw(self.gateway.MQTT_PORT)
        self.addCleanup(raw.socket.close)
        self.assertTrue(raw.resumed(self.user, self.key, clean=False, expiry=1))
        self.assertEqual(self.recent()[0]["kind"], "resumed")
        raw.send(disconnect())
        raw.until_closed()
        self.newest("session_expired")
        wait_until(lambda: self.connection()["session"] is None, 20)


class Routes(WhyTest):
    def test_who_may_ask(self):
        status, body, _ = self.gateway.api("POST", f"/v1/tenants/{self.gateway.TENANT}/api-keys", {"roles": ["reader"]})
        self.assertEqual(status, 201, body)
        self.get("/recent", key=body["bearer"])
        self.assertEqual(self.gateway.api("PUT", "/v1/tenants/stranger", {})[0], 201)
        self.gateway.device(self.device, "stranger")
        for suffix in ("", "/recent"):
            status, _, _ = self.gateway.api("GET", f"/v1/tenants/stranger/devices/{self.device}{suffix}", key=body["bearer"])
            self.assertEqual(status, 404)
        for query in ("limit=0", "limit=x", "nonsense=1"):
            path = f"/v1/tenants/{self.gateway.TENANT}/devices/{self.device}/recent?{query}"
            self.assertEqual(self.gateway.api("GET", path)[0], 400, query)
        path = f"/v1/tenants/{self.gateway.TENANT}/devices/nobody/recent"
        self.assertEqual(self.gateway.api("GET", path)[0], 404)

    def test_tenants_do_not_see_each_other(self):
        """The same device name in another tenant."""
        self.gateway.api("PUT", "/v1/tenants/neighbour", {})
        self.gateway.device(self.device, "neighbour")
        self.open()
        status, body, _ = self.gateway.api("GET", f"/v1/tenants/neighbour/devices/{self.device}")
        self.assertEqual((status, body["connection"]["connected"]), (200, False))
        status, body, _ = self.gateway.api("GET", f"/v1/tenants/neighbour/devices/{self.device}/recent")
        self.assertEqual((status, body["items"]), (200, []))

    def test_a_list_does_not_ask(self):
        status, body, _ = self.gateway.api("GET", f"/v1/tenants/{self.gateway.TENANT}/devices")
        self.assertEqual(status, 200)
        self.assertTrue(all("connection" not in item for item in body["items"]))

    def test_json_and_show(self):
        self.open()
        value = json.loads(self.why("--json", "--limit", "1"))
        self.assertEqual((value["device_id"], value["connection"]["connected"], len(value["recent"])),
                         (self.device, True, 1))
        done = subprocess.run(
            [os.path.join(BUILDS, "asan", "duragate"), "device", "show", self.device, "--env",
             os.path.join(self.gateway.var, "demo.env")],
            capture_output=True, text=True, timeout=60, check=True)
        self.assertRegex(done.stdout, r"\nconnection\nconnected +true\n")

    def test_control_characters_do_not_reach_the_terminal(self):
        raw = self.open()
        raw.published("$x\x1b[2J", packet_id=1)
        wait_until(lambda: self.recent()[0]["kind"] in ("publish_refused", "protocol_error"), 20)
        self.assertNotIn("\x1b", self.why())


if __name__ == "__main__":
    unittest.main()
