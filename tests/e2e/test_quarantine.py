"""Payloads that are not as the tenant's rules ask."""

import os
import re
import subprocess
import unittest

import raw_mqtt
from harness import Gateway, wait_until

RULE = {"pattern": "plant/#", "require": "json", "max_bytes": 100}


class Quarantine(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway().up()
        cls.command = cls.read_command()
        cls.shell(cls.curl)

    @classmethod
    def tearDownClass(cls):
        cls.gateway.close()

    @classmethod
    def read_command(cls):
        """What docs/quarantine.md tells to do: the rule, and reading."""
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        with open(os.path.join(root, "docs/quarantine.md"), encoding="utf-8") as file:
            text = file.read()
        cls.curl = re.search(r"```sh\n(.*?)```", text, re.S).group(1)
        return re.search(r"```console\n\$ (.*?)\n(.*?)```", text, re.S)

    @classmethod
    def shell(cls, command):
        variables = ". " + os.path.join(cls.gateway.var, "demo.env") + "; "
        command = command.replace("var/kcat.conf", os.path.join(cls.gateway.var, "kcat.conf"))
        done = subprocess.run(["bash", "-c", "set -a; " + variables + command], capture_output=True, text=True,
                              timeout=60)
        return done.stdout

    def connect(self, version):
        raw = raw_mqtt.Raw(self.gateway.MQTT_PORT)
        raw.send(raw_mqtt.connect(self.gateway.MQTT_USER, self.gateway.DEVICE_KEY, version=version))
        self.assertEqual(raw.read()[0] >> 4, raw_mqtt.CONNACK)
        return raw

    def read(self, topic):
        return self.shell(f"kcat -F var/kcat.conf -C -t $DURAGATE_TENANT.{topic} -o beginning -e -q -f '%k %p %h %s\\n'")

    def test_the_document(self):
        with self.connect(5) as raw:
            raw.send(raw_mqtt.publish("plant/1", "{\"a\" 21.5 }."))
            first, body = raw.read()
            self.assertEqual((first >> 4, body[2]), (raw_mqtt.PUBACK, 0x99))
            self.assertIn(b"is not JSON", body)
            raw.send(raw_mqtt.publish("plant/1", "{\"a\":21.5}", packet_id=2))
            self.assertEqual(raw.read()[1], b"\0\2", "the connection stays")
        # tr cuts at commas; the header's value has none.
        self.assertIn("ce_quarantinereason=the payload is not JSON: see byte 5 of 12", self.shell(self.command.group(1)))
        self.assertIn("ce_quarantinerule=plant/#", self.shell(self.command.group(1)))
        self.assertGreater(self.gateway.metric("duragate_quarantined_total"), 0)

    def test_311_and_kill(self):
        """Acknowledged: stored, though elsewhere, and still there after kill -9."""
        with self.connect(4) as raw:
            for packet_id, qos in ((1, 1), (2, 2)):
                raw.send(raw_mqtt.publish("plant/kill", f"not JSON {qos}", qos=qos, packet_id=packet_id, version=4))
                first, body = raw.read()
                self.assertEqual(first >> 4, raw_mqtt.PUBACK if qos == 1 else raw_mqtt.PUBREC)
            self.gateway.kill()
        self.gateway.up()
        lines = self.read("quarantine")
        self.assertIn("ce_subject=plant/kill", lines)
        self.assertEqual(lines.count("not JSON 1"), 1)
        self.assertEqual(lines.count("not JSON 2"), 1)
        self.assertNotIn("not JSON", self.read("events"))

    def test_rules_apply_at_once(self):
        with self.connect(5) as raw:
            raw.send(raw_mqtt.publish("later/1", "x"))
            self.assertEqual(raw.read()[1], b"\0\1")
            self.shell(self.curl.replace("plant/#", "later/#"))

            def refused():
                raw.send(raw_mqtt.publish("later/1", "x"))
                return raw.read()[1][2:3] == b"\x99"
            wait_until(refused, 10)
            self.shell(self.curl)


if __name__ == "__main__":
    unittest.main()
