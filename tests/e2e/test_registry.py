"""Revocation ends live connections; PostgreSQL down or frozen does not stop known devices."""

import glob
import os
import signal
import subprocess
import time
import unittest
import urllib.error
import urllib.request

import paho.mqtt.client as paho

from harness import Gateway, wait_until


class Device:
    """A device that stays connected, in MQTT 5."""

    def __init__(self, gateway, name, key):
        self.reasons = []
        self.connacks = []
        self.client = paho.Client(name, protocol=paho.MQTTv5)
        self.client.username_pw_set(f"{name}@{gateway.TENANT}", key)
        self.client.on_connect = lambda c, u, f, rc, p=None: self.connacks.append(rc.value)
        self.client.on_disconnect = lambda c, u, rc, p=None: self.reasons.append(getattr(rc, "value", rc))
        self.client.reconnect_delay_set(60, 60)
        self.client.connect("localhost", int(gateway.MQTT_PORT), 30)
        self.client.loop_start()
        wait_until(lambda: self.connacks, 10)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


def postgres_pids(gateway):
    """The gateway's own PostgreSQL, by the pid files under its state directory."""
    with open(os.path.join(gateway.var, "duragate.yaml"), encoding="utf-8") as file:
        socket = next(line for line in file if "conninfo" in line).split("host=")[1].split()[0]
    with open(os.path.join(socket, "data", "postmaster.pid"), encoding="ascii") as file:
        main = int(file.readline())
    with open(f"/proc/{main}/task/{main}/children", encoding="ascii") as file:
        return [main] + [int(pid) for pid in file.read().split()]


class Registry(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway().up()

    @classmethod
    def tearDownClass(cls):
        cls.gateway.close()

    def ends_within_a_second(self, change):
        name = f"revoked{time.monotonic_ns()}"
        device = Device(self.gateway, name, self.gateway.device(name))
        self.addCleanup(device.close)
        self.assertEqual(device.connacks, [0])
        path = f"/v1/tenants/{self.gateway.TENANT}/devices/{name}"
        change(path)
        wait_until(lambda: device.reasons, 1.0)
        return device.reasons[0]

    def test_disabling_ends_the_connection(self):
        self.ends_within_a_second(lambda path: self.gateway.api("PATCH", path, {"enabled": False}))

    def test_deleting_ends_the_connection(self):
        self.ends_within_a_second(lambda path: self.gateway.api("DELETE", path))

    def test_removing_the_credential_ends_the_connection(self):
        self.ends_within_a_second(lambda path: self.gateway.api("DELETE", path + "/credentials/key"))

    def test_metadata_does_not(self):
        with self.assertRaises(AssertionError):
            self.ends_within_a_second(lambda path: self.gateway.api("PATCH", path, {"tags": {"a": "b"}}))

    def test_take_over(self):
        key = self.gateway.device("twice")
        first = Device(self.gateway, "twice", key)
        second = Device(self.gateway, "twice", key)
        self.addCleanup(first.close)
        self.addCleanup(second.close)
        wait_until(lambda: first.reasons, 2)
        self.assertEqual(first.reasons[0], 0x8E)
        self.assertEqual(second.reasons, [])

    def test_frozen_postgres(self):
        known = self.gateway.device("known")
        self.gateway.publish("-q", "1", "-t", "before", "-m", "x", device="known", key=known)
        pids = postgres_pids(self.gateway)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            self.gateway.publish("-q", "1", "-t", "frozen", "-m", "x", device="known", key=known)
            wait_until(lambda: not self.ready(), 10)
            self.gateway.publish("-q", "1", "-t", "frozen", "-m", "y", device="known", key=known)
            unknown = self.gateway.publish("-V", "5", "-q", "1", "-t", "t", "-m", "x", device="never-seen",
                                           key="k", check=False)
            self.assertNotIn("bad user", (unknown.stdout + unknown.stderr).lower())
            self.assertIn("unavailable", (unknown.stdout + unknown.stderr).lower())
            started = time.monotonic()
            status, _, _ = self.gateway.api("GET", f"/v1/tenants/{self.gateway.TENANT}/devices")
            self.assertEqual(status, 503)
            self.assertLess(time.monotonic() - started, 3)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        wait_until(self.ready, 30)
        self.gateway.publish("-q", "1", "-t", "after", "-m", "x", device="known", key=known)

    def ready(self):
        try:
            with urllib.request.urlopen(self.gateway.HTTP_URL + "/readyz", timeout=5) as answer:
                return answer.status == 200
        except urllib.error.HTTPError:
            return False


if __name__ == "__main__":
    unittest.main()
