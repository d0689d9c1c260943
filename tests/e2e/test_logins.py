"""Floods of wrong passwords, and a cache that is outdated: what honest devices and the log see."""

import os
import signal
import subprocess
import time
import unittest

from harness import Gateway, wait_until
from raw_mqtt import Raw

BAD, THROTTLED, UNAVAILABLE = 0x86, 0x9F, 0x88


class Logins(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway().up()

    @classmethod
    def tearDownClass(cls):
        cls.gateway.close()

    def login(self, device, password, version=5):
        with Raw(self.gateway.MQTT_PORT) as raw:
            return raw.log_in(f"{device}@{self.gateway.TENANT}", password, version=version)

    def password_device(self, name, password):
        path = f"/v1/tenants/{self.gateway.TENANT}/devices/{name}"
        for path, body in ((path, {}), (path + "/credentials/pw", {"kind": "password", "password": password})):
            self.assertEqual(self.gateway.api("PUT", path, body)[0], 201)

    def test_a_flood_of_wrong_passwords(self):
        key = self.gateway.device("keyed")
        for name in ("known", "fresh"):
            self.password_device(name, "correct horse battery")
        self.assertEqual(self.login("known", "correct horse battery"), 0)
        runs = self.gateway.metric("duragate_password_runs_total")
        started = time.monotonic()
        codes = [self.login(f"x{n % 7}", "wrong password!") for n in range(200)]
        seconds = time.monotonic() - started
        self.assertEqual(set(codes), {BAD, THROTTLED})
        self.assertGreater(codes.count(THROTTLED), 100)
        self.assertLessEqual(self.gateway.metric("duragate_password_runs_total") - runs, 26 + 2 * seconds)
        self.assertEqual(self.login("x0", "wrong password!", version=4), 3)
        self.assertEqual(self.login("known", "correct horse battery"), 0)
        self.assertEqual(self.login("keyed", key), 0)
        self.assertEqual(self.login("keyed", "A" * 32), BAD)
        wait_until(lambda: self.login("fresh", "correct horse battery") == 0, 5)
        lines = [line for line in self.gateway.log().splitlines() if "mqtt.login_refused" in line]
        self.assertLess(len(lines), 100)
        self.assertGreater(self.gateway.metric('duragate_logins_total{result="throttled"}'), 100)

    def changes_backends(self):
        """The PostgreSQL processes that serve connections on which changes are heard."""
        with open(os.path.join(self.gateway.var, "registry.password"), encoding="ascii") as file:
            environment = dict(os.environ, PGPASSWORD=file.read().strip())
        sql = ("select pid from pg_stat_activity where application_name = 'duragate'"
               " and query like '%registry_change%' and pid <> pg_backend_pid()")
        found = subprocess.run(
            ["psql", "-h", self.gateway.postgres_home(), "-U", "duragate", "-d", "duragate", "-At", "-c", sql],
            env=environment, capture_output=True, text=True, timeout=30, check=True)
        return [int(pid) for pid in found.stdout.split()]

    def test_a_key_that_was_not_heard_of(self):
        """Changes do not come through for a moment; a new key is not called a bad one."""
        self.gateway.device("slow")
        pids = self.changes_backends()
        self.assertTrue(pids)
        self.assertEqual(self.login("slow", "A" * 32), BAD)
        time.sleep(1.1)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            path = f"/v1/tenants/{self.gateway.TENANT}/devices/slow/credentials"
            status, body, _ = self.gateway.api("POST", path, {"kind": "key", "name": "second"})
            self.assertEqual((status, self.login("slow", body["key"])), (201, 0))
            self.assertIn(self.login("slow", "A" * 32), (BAD, UNAVAILABLE))
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)


if __name__ == "__main__":
    unittest.main()
