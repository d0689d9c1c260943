"""Stock MQTT clients against the gateway: one list of cases for each client, version and transport. The rows are
those of the table in docs/clients.md."""

import concurrent.futures
import json
import unittest

from clients import chosen
from harness import Gateway, wait_until
from mqtt_clients import ROWS, Driver, Relay, port_of

MANY, LARGE_BYTES = 30, 200_000
ALLOWED = "$dg/commands/#"
BAD_CREDENTIALS = {4: ("4", "5"), 5: ("134", "135")}
REFUSED_FILTERS = (("room/1", "135"), ("#", "162"), ("$share/group/room", "158"))
TAKEN_OVER = {4: "-", 5: "142"}


class SideBySide(unittest.TestSuite):
    """The suites in it, each of one row, run in threads against one gateway: they mostly wait."""

    def run(self, result, debug=False):
        global gateway
        gateway = Gateway()
        try:
            gateway.up()
            with concurrent.futures.ThreadPoolExecutor(6) as pool:
                for own in pool.map(run_alone, self):
                    result.testsRun += own.testsRun
                    for kind in ("failures", "errors", "skipped"):
                        getattr(result, kind).extend(getattr(own, kind))
        finally:
            gateway.close()
        return result


def run_alone(suite):
    return suite.run(unittest.TestResult())


class Cases:
    """Subclasses name the row; each has a device of its own."""

    row = None

    @classmethod
    def setUpClass(cls):
        cls.device = cls.row.name
        cls.key = gateway.device(cls.device)

    def need_mqtt5(self):
        if self.row.version != 5:
            self.skipTest("MQTT 5 only")

    def topic(self, *words):
        return "/".join((self.row.name, self._testMethodName, *map(str, words)))

    def start(self, key=None, **more):
        driver = Driver(self.row, gateway, f"{self.device}@{gateway.TENANT}", key or self.key, **more)
        self.addCleanup(driver.kill)
        return driver

    def connect(self, **more):
        driver = self.start(**more)
        self.assertEqual(driver.ask("connect", answer="connected")[0], "connected", driver.said)
        return driver

    def publish(self, driver, topic, qos, count, size=1):
        self.assertEqual(driver.ask("publish", topic, qos, count, size, answer="published"), ["published", str(count)])

    def stored(self, topic):
        """(headers, size, payload) of each event of the topic, in their order."""
        lines = [line.split("|", 2) for line in gateway.consume(format="%h|%S|%s\n").splitlines()]
        return [line for line in lines if f"ce_subject={topic}," in line[0] + ","]

    def payloads(self, topic):
        return [payload for _, _, payload in self.stored(topic)]

    def wait_for_payloads(self, topic, expected):
        wait_until(lambda: self.payloads(topic) == expected, 20)

    def numbers(self, count, size=1):
        return [str(number).ljust(size, "x") for number in range(count)]

    def test_every_publish_is_stored_as_often_as_it_must(self):
        driver = self.connect()
        for qos in (0, 1, 2):
            self.publish(driver, self.topic(qos), qos, MANY, 10)
        for qos in (0, 1, 2):
            self.wait_for_payloads(self.topic(qos), self.numbers(MANY, 10))

    def test_large_payload(self):
        driver = self.connect()
        self.publish(driver, self.topic(), 1, 1, LARGE_BYTES)
        [[_, size, payload]] = self.stored(self.topic())
        self.assertEqual((int(size), payload), (LARGE_BYTES, self.numbers(1, LARGE_BYTES)[0]))

    def test_properties_are_kept(self):
        self.need_mqtt5()
        driver = self.connect()
        self.assertEqual(driver.ask("describe", self.topic(), answer="published"), ["published", "1"])
        [[headers, _, _]] = self.stored(self.topic())
        self.assertIn("content-type=text/plain", headers)
        self.assertIn("colour=blue", headers)

    def test_topic_alias(self):
        self.need_mqtt5()
        driver = self.connect()
        self.assertEqual(driver.ask("alias", self.topic(), 5, answer="published"), ["published", "5"])
        self.assertEqual(len(self.stored(self.topic())), 5)

    def test_a_session_is_found_again(self):
        driver = self.connect(clean=False)
        self.assertIn(driver.ask("subscribe", ALLOWED, answer="granted")[1], ("0", "1"))
        driver.kill()
        again = self.start(clean=False)
        self.assertEqual(again.ask("connect", answer="connected"), ["connected", "1"])
        again.kill()
        self.assertEqual(self.start().ask("connect", answer="connected"), ["connected", "0"])

    def test_what_was_in_flight_is_stored_once_over_a_lost_connection(self):
        relay = Relay(port_of(gateway, self.row.transport), 10_000)
        self.addCleanup(relay.close)
        driver = self.connect(port=relay.port, clean=False, reconnect=True)
        # Paho C does not call back for a message that was between PUBREL and PUBCOMP: what is stored counts.
        driver.tell("publish", self.topic(), 2, 100, 200)
        wait_until(lambda: len(self.payloads(self.topic())) >= 100, 25)
        self.assertTrue(relay.cut)
        self.assertEqual(sorted(self.payloads(self.topic())), sorted(self.numbers(100, 200)))

    def test_a_will_is_stored(self):
        driver = self.connect(will=self.topic())
        driver.kill()
        self.wait_for_payloads(self.topic(), ["gone"])
        driver = self.connect(will=self.topic("never"))
        driver.tell("disconnect")
        wait_until(lambda: self.presence()[-1:] == ["disconnected"], 20)
        self.assertEqual(self.stored(self.topic("never")), [])

    def presence(self):
        """What became of the device's connections, in their order."""
        lines = [line.split("|") for line in gateway.consume(format="%k|%h|%s\n").splitlines()]
        return ["connected" if json.loads(payload)["connected"] else "disconnected"
                for key, headers, payload in lines
                if key == self.device and "ce_type=duragate.device." in headers]

    def test_a_wrong_password_is_named(self):
        word, code = self.start(key="wrong").ask("connect", answer="connected")
        self.assertEqual(word, "refused")
        self.assertIn(code, BAD_CREDENTIALS[self.row.version])

    def test_a_take_over_is_told(self):
        first = self.connect()
        second = self.connect()
        self.assertEqual(first.hear("lost"), ["lost", TAKEN_OVER[self.row.version]])
        self.publish(second, self.topic(), 1, 1)

    def test_subscriptions(self):
        driver = self.connect()
        self.assertIn(driver.ask("subscribe", ALLOWED, answer="granted")[1], ("0", "1"))
        for name, code in REFUSED_FILTERS:
            self.assertEqual(driver.ask("subscribe", name, answer="granted"),
                             ["granted", code if self.row.version == 5 else "128"], name)
        self.publish(driver, self.topic(), 1, 1)  # refused is the filter, not the client


def load_tests(loader, standard, pattern):
    """One class for each row."""
    suites = [loader.loadTestsFromTestCase(type(row.name, (Cases, unittest.TestCase), {"row": row}))
              for row in ROWS if chosen(row.client.name)]
    return SideBySide(suites) if suites else unittest.TestSuite()


if __name__ == "__main__":
    unittest.main()
