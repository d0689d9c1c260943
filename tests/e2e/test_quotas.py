"""Quotas of devices, groups and tenants: what devices see of them, with real clients."""

import threading
import unittest

import paho.mqtt.client as paho

from harness import wait_until
from raw_mqtt import CONNACK, DISCONNECT, Raw, connect, packet, publish
from test_api import ApiTest

TOO_MUCH = 0x97


class QuotaTest(ApiTest):
    def make(self, quota=None, policy=None, device=None):
        """A tenant with a device; (path, user name, key)."""
        path = self.tenant({"quota": quota or {}})
        self.call("PUT", path + "/policy", policy or {}, 200)
        return path, *self.make_device(path, "d", device)

    def make_device(self, path, name, body=None):
        self.call("PUT", f"{path}/devices/{name}", body or {}, 201)
        key = self.call("POST", f"{path}/devices/{name}/credentials", {"name": "key", "kind": "key"}, 201).body["key"]
        return f"{name}@{path.rpartition('/')[2]}", key

    def raw(self, user, key, **more):
        raw = Raw(self.gateway.MQTT_PORT)
        self.addCleanup(raw.socket.close)
        self.assertEqual(raw.log_in(user, key, **more), 0)
        return raw

    def publish_all(self, user, key, count, version=paho.MQTTv5):
        """paho publishes with QoS 1 and waits for all acknowledgements."""
        acknowledged = []
        client = paho.Client(client_id="", protocol=version)
        client.username_pw_set(user, key)
        client.on_publish = lambda *arguments: acknowledged.append(arguments[2])
        client.max_inflight_messages_set(count)
        connected = threading.Event()
        client.on_connect = lambda *_: connected.set()
        client.connect("localhost", int(self.gateway.MQTT_PORT))
        client.loop_start()
        try:
            self.assertTrue(connected.wait(10))
            for number in range(count):
                client.publish("t", str(number), qos=1)
            wait_until(lambda: len(acknowledged) == count, 30)
        finally:
            client.disconnect()
            client.loop_stop()

    def counted(self, path, name, **labels):
        """A counter of the tenant."""
        labels = {"tenant": path.rpartition("/")[2], **labels}
        text = self.gateway.api("GET", "/metrics")[1]
        for line in text.splitlines():
            if line.startswith(name + "{") and all(f'{key}="{value}"' in line for key, value in labels.items()):
                return int(line.rpartition(" ")[2])
        return 0

    def stored(self, path):
        key = self.api_key(path, "consumer")
        lines = self.gateway.consume("-X", "sasl.username=" + key["key_id"], "-X", "sasl.password=" + key["secret"],
                                     topic=path.rpartition("/")[2] + ".events", format="%h|%s\\n").splitlines()
        return [line.rpartition("|")[2] for line in lines if "ce_subject=t," in line + ","]

    def test_a_device_waits_and_nothing_is_lost(self):
        for version in (paho.MQTTv311, paho.MQTTv5):
            path, user, key = self.make(policy={"device_quota": {"messages_per_second": 50}})
            self.publish_all(user, key, 120, version)
            self.assertEqual(self.stored(path), [str(number) for number in range(120)])
            wait_until(lambda at=path: self.counted(at, "duragate_quota_publishes_total", quota="device",
                                                    outcome="waited") > 0, 10)

    def test_devices_share_the_quotas_of_group_and_tenant(self):
        for quota, policy, kind in (({"messages_per_second": 50}, {}, "tenant"),
                                    ({}, {"groups": {"g": {"quota": {"messages_per_second": 50}}}}, "group")):
            path, *device = self.make(quota, policy, {"group": "g"})
            devices = [device] + [self.make_device(path, f"d{i}", {"group": "g"}) for i in range(4)]
            threads = [threading.Thread(target=self.publish_all, args=(*each, 30)) for each in devices]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(sorted(self.stored(path)), sorted(5 * [str(number) for number in range(30)]))
            wait_until(lambda at=path, of=kind: self.counted(at, "duragate_quota_publishes_total", quota=of,
                                                             outcome="waited") > 0, 10)

    def test_too_long_a_wait_is_refused_with_the_quota_named(self):
        path, user, key = self.make(policy={"device_quota": {"bytes_per_second": 10}})
        with self.raw(user, key) as raw:
            self.assertEqual(raw.published("t", b"x" * 300), 0, "larger than a second's worth: paid for afterwards")
            raw.send(publish("t", b"y", packet_id=2))
            first, body = raw.read()
            self.assertEqual((first, body[2]), (0x40, TOO_MUCH))
            self.assertIn(b"over the device's quota of 10 bytes per second", body)
            raw.send(publish("t", b"z", qos=0) + packet(0xC0, b""))
            self.assertEqual(raw.read()[0], 0xD0)
        with self.raw(user, key) as raw:  # coming anew is no way out
            self.assertEqual(raw.published("t", b"y"), TOO_MUCH)
        for outcome, least in (("refused", 2), ("dropped", 1)):
            wait_until(lambda: self.counted(path, "duragate_quota_publishes_total", quota="device",  # pylint: disable=cell-var-from-loop
                                            outcome=outcome) >= least, 10)  # pylint: disable=cell-var-from-loop
        self.assertEqual(self.stored(path), ["x" * 300])

    def test_mqtt_3_1_1_gets_no_answer(self):
        _, user, key = self.make(policy={"device_quota": {"bytes_per_second": 10}})
        with self.raw(user, key, version=4) as raw:
            raw.send(publish("t", b"x" * 300, version=4) + publish("t", b"y", packet_id=2, version=4))
            self.assertEqual(raw.read(), (0x40, b"\0\1"))
            self.assertEqual(raw.send(packet(0xC0, b"")).read()[0], 0xD0)
            raw.socket.settimeout(20)
            self.assertEqual(raw.until_closed(), [])

    def test_a_changed_policy_applies_at_once(self):
        path, user, key = self.make(policy={"device_quota": {"bytes_per_second": 10},
                                            "groups": {"slow": {"device_quota": {"bytes_per_second": 11}}}})
        with self.raw(user, key) as raw:
            self.assertEqual(raw.published("t", b"x" * 300), 0)
            self.assertEqual(raw.published("t", b"x"), TOO_MUCH)
            self.call("PUT", path + "/policy", {}, 200)
            wait_until(lambda: raw.published("t", b"x") == 0, 10)
            self.call("PATCH", path, {"quota": {"bytes_per_second": 10}}, 200)
            wait_until(lambda: raw.published("t", b"x" * 300) == TOO_MUCH, 10)
            self.call("PATCH", path, {"quota": None}, 200)
            wait_until(lambda: raw.published("t", b"x") == 0, 10)
            self.call("PUT", path + "/policy", {"groups": {"slow": {"device_quota": {"bytes_per_second": 11}}}}, 200)
            self.call("PATCH", path + "/devices/d", {"group": "slow"}, 200)
            wait_until(lambda: raw.published("t", b"x" * 300) == TOO_MUCH, 10)
            self.call("PATCH", path + "/devices/d", {"group": None}, 200)
            wait_until(lambda: raw.published("t", b"x") == 0, 10)

    def test_connections_of_a_tenant(self):
        path, user, key = self.make({"connections": 1})
        other = self.make_device(path, "other")
        with self.raw(user, key):
            with Raw(self.gateway.MQTT_PORT) as raw:
                first, body = raw.send(connect(*other)).read()
                self.assertEqual((first >> 4, body[1]), (CONNACK, TOO_MUCH))
                self.assertIn(b"over the tenant's quota of 1 connections", body)
            with Raw(self.gateway.MQTT_PORT) as raw:
                self.assertEqual(raw.log_in(*other, version=4), 3)
            with self.raw(user, key) as again:  # the same device takes over
                self.assertEqual(again.published("t"), 0)
        wait_until(lambda: self.counted(path, "duragate_quota_connections_refused_total") == 2, 10)

        def gets_in():
            with Raw(self.gateway.MQTT_PORT) as raw:
                return raw.log_in(*other) == 0

        wait_until(gets_in, 10)
        self.call("PATCH", path, {"quota": None}, 200)

        def both_get_in():
            with Raw(self.gateway.MQTT_PORT) as one, Raw(self.gateway.MQTT_PORT) as two:
                return one.log_in(user, key) == 0 and two.log_in(*other) == 0

        wait_until(both_get_in, 10)


if __name__ == "__main__":
    unittest.main()
