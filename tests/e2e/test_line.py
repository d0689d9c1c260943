"""The main job: publish over MQTT, read back with stock Kafka clients, on what deploy/up made."""

import json
import os
import re
import shlex
import ssl
import subprocess
import time
import unittest
import urllib.request

import paho.mqtt.client as paho

from harness import Gateway, ROOT, wait_until


class Line(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway().up()

    @classmethod
    def tearDownClass(cls):
        cls.gateway.close()

    def events(self, subject, **arguments):
        return [line for line in self.gateway.consume(**arguments).splitlines()
                if f"ce_subject={subject}," in line]

    def test_published_event_is_read_with_kcat(self):
        self.gateway.publish("-q", "1", "-t", "room/1", "-m", '{"celsius":21.5}')
        [event] = self.events("room/1")
        self.assertIn(" sensor1|", event)
        self.assertTrue(event.endswith('|{"celsius":21.5}'), event)
        for header in ("ce_specversion=1.0", "ce_type=duragate.telemetry.v1",
                       "ce_source=/tenants/demo/devices/sensor1", "ce_protocol=mqtt3.1.1"):
            self.assertIn(header, event)
        self.assertRegex(event, r"ce_time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

    def test_mqtt5_properties_become_headers(self):
        self.gateway.publish("-V", "5", "-q", "1", "-t", "room/5", "-m", "x",
                             "-D", "publish", "content-type", "text/plain",
                             "-D", "publish", "user-property", "colour", "blue",
                             "-D", "publish", "user-property", "ce_source", "/forged")
        [event] = self.events("room/5")
        self.assertIn("content-type=text/plain", event)
        self.assertIn("colour=blue", event)
        self.assertNotIn(",ce_source=/forged", event)
        self.assertIn("ce_source=/tenants/demo/devices/sensor1", event)

    def test_qos_0_and_binary_payload_and_empty_payload(self):
        payload = bytes(range(256))
        path = os.path.join(self.gateway.var, "payload")
        with open(path, "wb") as file:
            file.write(payload)
        self.gateway.publish("-q", "0", "-t", "binary", "-f", path)
        self.gateway.publish("-q", "1", "-t", "empty", "-n")
        wait_until(lambda: "ce_subject=binary," in self.gateway.consume(), 5)
        [size] = re.findall(r"ce_subject=binary,.*\|size (\d+)",
                            self.gateway.consume(format="%h|size %S\\n"))
        self.assertEqual(size, "256")
        [size] = re.findall(r"ce_subject=empty,.*\|size (-?\d+)",
                            self.gateway.consume(format="%h|size %S\\n"))
        self.assertEqual(size, "0")

    def test_presence_is_in_order_with_data(self):
        key = self.gateway.device("presence1")
        self.gateway.publish("-q", "1", "-t", "between", "-m", "x", device="presence1", key=key)
        wait_until(lambda: "device.disconnected" in self.of("presence1"), 5)
        types = re.findall(r"ce_type=([a-z0-9.]+)", self.of("presence1"))
        self.assertEqual(types, ["duragate.device.connected.v1", "duragate.telemetry.v1",
                                 "duragate.device.disconnected.v1"])

    def of(self, device):
        return "\n".join(line for line in self.gateway.consume().splitlines() if f" {device}|" in line)

    def test_wrong_password_writes_nothing(self):
        before = self.gateway.consume()
        done = self.gateway.publish("-q", "1", "-t", "t", "-m", "x", key="wrong", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("bad user name or password", (done.stdout + done.stderr).lower())
        unknown = self.gateway.publish("-q", "1", "-t", "t", "-m", "x", device="nobody", check=False)
        self.assertNotEqual(unknown.returncode, 0)
        self.assertEqual(self.gateway.consume(), before)

    def test_offset_end_and_timestamp(self):
        key = self.gateway.device("replay1")
        self.gateway.publish("-q", "1", "-t", "r", "-m", "one", device="replay1", key=key)
        time.sleep(0.05)
        middle = int(time.time() * 1000)
        time.sleep(0.05)
        self.gateway.publish("-q", "1", "-t", "r", "-m", "two", device="replay1", key=key)
        lines = [line for line in self.gateway.consume().splitlines() if " replay1|" in line]
        partition, offset = lines[0].split()[:2]
        later = self.gateway.consume("-p", partition, "-o", str(int(offset) + 2))
        self.assertNotIn("|one", later)
        from_time = self.gateway.consume("-p", partition, "-o", f"s@{middle}")
        self.assertNotIn("|one", from_time)
        self.assertIn("|two", from_time)
        self.assertEqual(self.gateway.consume("-p", partition, "-o", "end"), "")

    def test_tls_and_websocket(self):
        self.gateway.publish("-q", "1", "-t", "secure", "-m", "tls", "--cafile", self.gateway.CA_FILE,
                             port=self.gateway.MQTTS_PORT)
        self.assertTrue(self.events("secure"))
        acked = []
        client = paho.Client("ws", transport="websockets")
        client.tls_set(self.gateway.CA_FILE)
        client.ws_set_options(path="/mqtt")
        client.username_pw_set(self.gateway.MQTT_USER, self.gateway.DEVICE_KEY)
        client.on_publish = lambda *_: acked.append(1)
        port = int(self.gateway.HTTPS_URL.rsplit(":", 1)[1])
        client.connect("localhost", port, 30)
        client.loop_start()
        client.publish("over/websocket", "ws", qos=1).wait_for_publish(10)
        client.disconnect()
        client.loop_stop()
        self.assertTrue(self.events("over/websocket"))

    def test_kafka_over_tls(self):
        self.gateway.publish("-q", "1", "-t", "for/tls", "-m", "x")
        done = subprocess.run(
            ["kcat", "-b", f"localhost:{self.gateway.KAFKAS_PORT}", "-C", "-q", "-e", "-o", "beginning",
             "-t", self.gateway.TOPIC, "-X", "security.protocol=SASL_SSL", "-X", "sasl.mechanisms=PLAIN",
             "-X", f"ssl.ca.location={self.gateway.CA_FILE}",
             "-X", f"sasl.username={self.gateway.KAFKA_USER}",
             "-X", f"sasl.password={self.gateway.KAFKA_PASSWORD}", "-f", "%h\\n"],
            capture_output=True, text=True, timeout=60, check=True)
        self.assertIn("ce_specversion=1.0", done.stdout)

    def test_produce_and_other_topics_are_refused(self):
        done = subprocess.run(
            ["kcat", "-F", os.path.join(self.gateway.var, "kcat.conf"), "-P", "-t", self.gateway.TOPIC],
            input="produced-by-a-reader\n", capture_output=True, text=True, timeout=60, check=False)
        self.assertIn("authorization failed", (done.stdout + done.stderr).lower())
        self.assertNotIn("produced-by-a-reader", self.gateway.consume())
        self.gateway.api("PUT", "/v1/tenants/other", {})
        with self.assertRaises(AssertionError) as caught:
            self.gateway.consume(topic="other.events")
        self.assertIn("authorization", str(caught.exception).lower())

    def test_printed_lines_work_as_printed(self):
        lines = [line.strip() for line in self.gateway.output.splitlines()]
        commands = [line for line in lines if re.match(r"(mosquitto_pub|kcat|curl|\S*duragate tail)", line)]
        self.assertEqual(len(commands), 4)
        source = next(line for line in lines if line.startswith(". "))
        for command in commands:
            done = subprocess.run(["bash", "-c", f"{source}\n{command}"], capture_output=True,
                                  text=True, cwd=os.getcwd(), timeout=60, check=False)
            self.assertEqual(done.returncode, 0, (command, done.stdout, done.stderr))
            if "kcat" in command or "tail" in command:
                self.assertIn("celsius", done.stdout, command)

    def test_demo_env_is_private_and_complete(self):
        path = os.path.join(self.gateway.var, "demo.env")
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        for name in ("HOST MQTT_PORT MQTTS_PORT KAFKA_PORT KAFKAS_PORT HTTP_URL HTTPS_URL CA_FILE TENANT "
                     "API_KEY DEVICE DEVICE_KEY MQTT_USER KAFKA_USER KAFKA_PASSWORD TOPIC PID_FILE").split():
            self.assertIn("DURAGATE_" + name, self.gateway.env)

    def test_up_again_is_harmless(self):
        pid = self.gateway.pid()
        environment = dict(self.gateway.env)
        self.gateway.up()
        self.assertEqual(self.gateway.pid(), pid)
        self.assertEqual(self.gateway.env, environment)


class Restart(unittest.TestCase):
    def test_events_survive_stop_and_kill(self):
        gateway = Gateway()
        self.addCleanup(gateway.close)
        gateway.up()
        gateway.publish("-q", "1", "-t", "kept", "-m", "first")
        gateway.down()
        gateway.up()
        gateway.publish("-q", "1", "-t", "kept", "-m", "second")
        gateway.kill()
        gateway.up()
        values = [line.rsplit("|", 1)[1] for line in gateway.consume().splitlines()
                  if "ce_subject=kept," in line]
        self.assertEqual(values, ["first", "second"])


if __name__ == "__main__":
    unittest.main()
