"""Wills with a delay, over restarts and kills; and who leaves none."""

import signal
import subprocess
import time
import unittest

from harness import Gateway, wait_until
from raw_mqtt import CONNACK, DISCONNECT, Raw, connect, disconnect

HOUR = 3600


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway(settings={"DURAGATE_CFG_SERVER__WORKERS": "3"})
        cls.addClassCleanup(cls.gateway.close)
        cls.gateway.up()

    def setUp(self):
        self.keys = {}

    def connect(self, name, **more):
        """A device with a will, the payload of which is its name."""
        if name not in self.keys:
            self.keys[name] = self.gateway.device(name)
        raw = Raw(self.gateway.MQTT_PORT)
        self.addCleanup(raw.socket.close)
        more = {"will": ("wills/" + name, name), "expiry": HOUR, "clean": False, **more}
        first, body = raw.send(connect(f"{name}@{self.gateway.TENANT}", self.keys[name], **more)).read()
        self.assertEqual((first >> 4, body[1]), (CONNACK, 0), name)
        return raw

    def lose(self, name, **more):
        """Its connection is lost; the gateway has seen that."""
        self.connect(name, **more).socket.close()
        wait_until(lambda: self.events(name).count("connected") == self.events(name).count("disconnected"), 10)

    def events(self, name):
        """What the stream has of a device, in order: the will as "will", presence as its kind."""
        found = []
        for line in self.gateway.consume(format="%k %h|%s\\n").splitlines():
            key, rest = line.split(" ", 1)
            headers, payload = rest.rsplit("|", 1)
            if key != name:
                continue
            if "ce_subject=wills/" in headers:
                self.assertEqual(payload, name)
                found.append("will")
            elif "duragate.device.connected" in headers:
                found.append("connected")
            elif "duragate.device.disconnected" in headers:
                found.append("disconnected")
        return found

    def wills(self, *names):
        return {name: self.events(name).count("will") for name in names}

    def wait_for_will(self, name, seconds=20):
        wait_until(lambda: "will" in self.events(name), seconds)


class Delay(Case):
    def test_after_the_delay_and_once(self):
        self.lose("delayed", will_delay=2)
        self.wait_for_will("delayed")
        self.assertEqual(self.events("delayed"), ["connected", "disconnected", "will"])

    def test_without_delay_at_once(self):
        self.lose("prompt")
        self.assertEqual(self.events("prompt"), ["connected", "will", "disconnected"])

    def test_the_sessions_end_comes_first(self):
        self.lose("ended", will_delay=HOUR, expiry=2)
        self.wait_for_will("ended")
        wait_until(lambda: self.gateway.metric("duragate_wills_waiting") == 0, 10)

    def test_nothing_outlives_a_session_that_ends_with_its_connection(self):
        self.lose("short", will_delay=HOUR, expiry=0)
        self.wait_for_will("short")

    def test_resumed_in_time_there_is_none(self):
        self.lose("resumed", will_delay=HOUR)
        self.assertGreater(self.gateway.metric("duragate_wills_waiting"), 0)
        self.connect("resumed", will=None).socket.close()
        wait_until(lambda: self.gateway.metric("duragate_wills_waiting") == 0, 20)
        self.assertEqual(self.wills("resumed"), {"resumed": 0})

    def test_clean_start_ends_the_session_and_leaves_it_at_once(self):
        self.lose("cleaned", will_delay=HOUR)
        self.connect("cleaned", clean=True, will=None)
        self.assertEqual(self.events("cleaned"), ["connected", "disconnected", "will", "connected"])

    def test_taken_over(self):
        """With a delay the session goes on; without one the will is of the connection (MQTT5 3.1.4-3)."""
        first, second = self.connect("over", will_delay=HOUR), self.connect("over", will_delay=0)
        self.connect("over", will=None)
        self.assertEqual(self.events("over"),
                         ["connected", "disconnected", "connected", "will", "disconnected", "connected"])
        for raw in (first, second):
            self.assertEqual(raw.until_closed()[-1][0] >> 4, DISCONNECT)

    def test_goodbye(self):
        for name, packet, wills in (("bye", disconnect(), 0), ("bye4", disconnect(reason=4), 1),
                                    ("bye4later", disconnect(reason=4, expiry=1), 1)):
            self.connect(name, will_delay=1).send(packet).until_closed()
            if wills:
                self.wait_for_will(name)
        self.assertEqual(self.wills("bye"), {"bye": 0})

    def test_mqtt311_has_no_delay(self):
        self.lose("old", version=4)
        self.assertEqual(self.events("old"), ["connected", "will", "disconnected"])

    def test_who_is_disabled_or_revoked_meanwhile_leaves_none(self):
        base = f"/v1/tenants/{self.gateway.TENANT}/devices/"
        names = ("disabled", "revoked", "deleted", "fine")
        lost = [self.connect(name, will_delay=15) for name in names]
        for raw in lost:
            raw.socket.close()
        wait_until(lambda: self.gateway.metric("duragate_wills_waiting") >= len(names), 10)
        self.assertEqual(self.gateway.api("PUT", base + "disabled", {"enabled": False})[0], 200)
        self.assertEqual(self.gateway.api("DELETE", base + "revoked/credentials/key")[0], 204)
        self.assertEqual(self.gateway.api("DELETE", base + "deleted")[0], 204)
        self.wait_for_will("fine", 40)
        wait_until(lambda: self.gateway.metric("duragate_wills_waiting") == 0, 20)
        self.assertEqual(self.wills("disabled", "revoked", "deleted"),
                         {"disabled": 0, "revoked": 0, "deleted": 0})

    def test_while_the_registry_does_not_answer_it_waits(self):
        raw = self.connect("patient", will_delay=1)
        with self.gateway.locked("credential"):
            raw.socket.close()
            time.sleep(4)
            self.assertEqual(self.wills("patient"), {"patient": 0})
        self.wait_for_will("patient", 30)

    def test_what_the_tenant_asks_of_payloads_holds(self):
        """Also of a will that is stored when there is no session: by the rules of that moment."""
        self.lose("later", will=("quarantined/later", "no JSON"), will_delay=2)
        status, body, _ = self.gateway.api("PATCH", f"/v1/tenants/{self.gateway.TENANT}/policy", {
            "quarantine": [{"pattern": "quarantined/#", "require": "json"}]})
        self.assertEqual(status, 200, body)
        self.lose("now", will=("quarantined/now", "no JSON"))
        topic = self.gateway.TENANT + ".quarantine"
        for name in ("now", "later"):
            wait_until(lambda: f"ce_subject=quarantined/{name}" in self.gateway.consume(topic=topic), 20)
        self.assertNotIn("ce_subject=quarantined", self.gateway.consume())

    def test_with_a_client_of_the_trade(self):
        """mosquitto_sub, killed: its will has QoS 2, retain, a delay and properties."""
        key = self.gateway.device("trade")
        process = subprocess.Popen(
            ["mosquitto_sub", "-p", self.gateway.MQTT_PORT, "-u", f"trade@{self.gateway.TENANT}", "-P", key,
             "-V", "5", "-t", "$dg/commands/#", "--will-topic", "wills/trade", "--will-payload", "trade",
             "--will-qos", "2", "--will-retain", "-c", "-i", "trade", "-x", str(HOUR),
             "-D", "will", "will-delay-interval", "2", "-D", "will", "payload-format-indicator", "1",
             "-D", "will", "content-type", "text/plain", "-D", "will", "user-property", "why", "lost"])
        self.addCleanup(process.wait)
        wait_until(lambda: "connected" in self.events("trade"), 20)
        process.kill()
        self.wait_for_will("trade")
        line = next(line for line in self.gateway.consume().splitlines() if "ce_subject=wills/trade" in line)
        for header in ("ce_qos=2", "ce_retain=true", "content-type=text/plain", "ce_payloadformat=utf-8",
                       "why=lost", "ce_protocol=mqtt5"):
            self.assertIn(header, line)


class Restarts(Case):
    def test_killed_and_stopped(self):
        """What waits goes on waiting, over both; who was connected leaves one too, unless the session was not to
        outlive the connection."""
        for number, rounds in ((signal.SIGKILL, "k"), (signal.SIGTERM, "t")):
            with self.subTest(signal=number):
                names = {kind: f"{kind}-{rounds}" for kind in ("waits", "overdue", "back", "open", "later", "bye")}
                self.lose(names["waits"], will_delay=8)
                self.lose(names["overdue"], will_delay=8, expiry=1)
                self.lose(names["back"], will_delay=HOUR)
                self.connect(names["bye"], will_delay=1).send(disconnect()).until_closed()
                opened = self.connect(names["open"], will_delay=0)
                later = self.connect(names["later"], will_delay=1)
                self.gateway.kill(number)
                self.gateway.up()
                for raw in (opened, later):
                    raw.socket.close()
                kept = self.connect(names["back"], will=None)
                for kind in ("open", "later", "overdue", "waits"):
                    self.wait_for_will(names[kind], 30)
                kept.socket.close()
                self.gateway.kill(number)  # nothing is stored a second time
                self.gateway.up()
                self.lose("last-" + rounds, will_delay=1)
                self.wait_for_will("last-" + rounds)
                self.assertEqual(self.gateway.metric("duragate_wills_waiting"), 0)
                self.assertEqual(self.wills(*names.values()), {
                    name: 0 if kind in ("back", "bye") else 1 for kind, name in names.items()})


if __name__ == "__main__":
    unittest.main()
