"""SASL SCRAM-SHA-256 with a stock client: keys made through the API and by the administrator."""

import os
import subprocess
import time
import unittest

from harness import Gateway, wait_until


class Scram(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway().up()
        cls.gateway.publish("-q", "1", "-t", "t", "-m", "hello")

    @classmethod
    def tearDownClass(cls):
        cls.gateway.close()

    def kcat(self, user, secret, *arguments):
        return ["kcat", "-F", os.path.join(self.gateway.var, "kcat.conf"),
                "-X", "sasl.mechanisms=SCRAM-SHA-256", "-X", f"sasl.username={user}",
                "-X", f"sasl.password={secret}", *arguments]

    def read(self, user, secret):
        """(exit status, both outputs) of a consumer that reads what there is."""
        done = subprocess.run(
            self.kcat(user, secret, "-C", "-t", self.gateway.TOPIC, "-o", "beginning", "-e", "-q"),
            capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout + done.stderr

    def refusals(self):
        return self.gateway.log().count("event=kafka.login_refused")

    def make_key(self, name):
        status, body, _ = self.gateway.api("POST", f"/v1/tenants/{self.gateway.TENANT}/api-keys",
                                           {"key_id": name, "roles": ["consumer"]})
        self.assertEqual(status, 201, body)
        return body["secret"]

    def test_right_and_wrong(self):
        secret = self.make_key("reader")
        status, output = self.read("reader", secret)
        self.assertEqual(status, 0, output)
        self.assertIn("hello", output)
        for user, wrong in (("reader", secret[::-1]), ("nobody", secret)):
            status, output = self.read(user, wrong)
            self.assertNotEqual(status, 0, output)
        self.assertGreaterEqual(self.refusals(), 2)
        self.assertIn("mechanism=SCRAM-SHA-256", self.gateway.log())

    def test_a_key_of_the_administrator(self):
        done = subprocess.run(
            [os.path.join(self.gateway.build, "duragate"), "admin", "create-key",
             "--config", os.path.join(self.gateway.var, "duragate.yaml"), "--role", "admin", "platform-reader"],
            env=dict(self.gateway.environment, DURAGATE_CFG_REGISTRY__PASSWORD_FILE=os.path.join(
                self.gateway.var, "registry.password")),
            capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        user, _, secret = done.stdout.split()[-1].rpartition(".")
        status, output = self.read(user, secret)
        self.assertEqual(status, 0, output)
        self.assertIn("hello", output)

    def test_a_key_from_before(self):
        secret = self.make_key("old")
        self.gateway.sql("update api_key set scram = null where key_id = 'old'")
        time.sleep(1)  # the gateway hears of it; nothing it knows depends on it
        status, output = self.read("old", secret)
        self.assertNotEqual(status, 0, output)
        self.assertIn("event=registry.key_without_scram", self.gateway.log())
        self.assertIn("make a new one", self.gateway.log())

    def test_a_revoked_key_ends_its_connection(self):
        secret = self.make_key("revoked")
        with subprocess.Popen(
                self.kcat("revoked", secret, "-C", "-t", self.gateway.TOPIC, "-o", "beginning", "-u",
                          "-q"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as reader:
            try:
                self.assertTrue(any("hello" in line for line in reader.stdout), "it read nothing")
                ended = self.gateway.metric("duragate_revocations_total")
                status, body, _ = self.gateway.api(
                    "DELETE", f"/v1/tenants/{self.gateway.TENANT}/api-keys/revoked")
                self.assertEqual(status, 204, body)
                wait_until(lambda: self.gateway.metric("duragate_revocations_total") > ended, 10)
                reader.wait(60)
            finally:
                if reader.poll() is None:
                    reader.kill()
        refused = self.refusals()
        status, output = self.read("revoked", secret)
        self.assertNotEqual(status, 0, output)
        self.assertGreater(self.refusals(), refused)


if __name__ == "__main__":
    unittest.main()
