"""Stock Kafka clients against the gateway: one script of acceptance for all of them."""

import re
import signal
import time
import unittest

import paho.mqtt.client as paho

from clients import CLIENTS, Member, Session, chosen, wait_for
from harness import Gateway, wait_until

MECHANISMS = ("PLAIN", "SCRAM-SHA-256")
PARTITIONS = 16
DEVICES = [f"dev{i}" for i in range(12)]


class Publisher:
    """One MQTT connection for each device, and what was acknowledged, in order."""

    def __init__(self, gateway):
        self.gateway, self.sent, self.count, self.clients = gateway, {}, 0, {}
        self.keys = {name: gateway.device(name) for name in DEVICES}

    def client(self, device):
        client = self.clients.get(device)
        if client is None:
            client = paho.Client(device)
            client.username_pw_set(f"{device}@{self.gateway.TENANT}", self.keys[device])
            client.connect("localhost", int(self.gateway.MQTT_PORT))
            client.loop_start()
            wait_until(client.is_connected, 20)
            self.clients[device] = client
        return client

    def send(self, device, payload):
        message = self.client(device).publish("interop", payload, qos=1)
        message.wait_for_publish(30)
        assert message.is_published()
        self.sent.setdefault(device, []).append(payload)
        return payload

    def spread(self, count):
        """So many values, each of them new, from all devices in turn."""
        self.count += count
        return [self.send(DEVICES[i % len(DEVICES)], b"m%d" % i) for i in range(self.count - count, self.count)]

    def close(self):
        for client in self.clients.values():
            client.disconnect()
            client.loop_stop()
        self.clients = {}

    def kill_gateway(self):
        self.close()
        self.gateway.kill(signal.SIGKILL)
        self.gateway.up()


def setUpModule():
    global gateway, publisher
    gateway = Gateway().up()
    publisher = Publisher(gateway)
    for payload in (b"", bytes(range(256)), "Größe 21 µm\n".encode(), b"x" * 200_000):
        publisher.send("dev0", payload)
    for _ in range(20):
        publisher.spread(len(DEVICES))
        time.sleep(0.003)  # so that not all records have one timestamp


def tearDownModule():
    publisher.close()
    gateway.close()


def by_partition(records):
    partitions = {}
    for record in records:
        partitions.setdefault(record.partition, []).append(record)
    return partitions


def in_order_without_gaps(records):
    return all([record.offset for record in partition] == list(range(len(partition)))
               for partition in by_partition(records).values())


class Acceptance:
    """The cases. Subclasses name the client; a case that the client has no call for is skipped."""

    client = None
    reference = {}  # what the first client read; for all of them alike

    def setUp(self):
        self.members = []
        self.session = Session(self.client, gateway)

    def tearDown(self):
        for member in self.members:
            member.kill()

    def need(self, *calls):
        for call in calls:
            if call in self.client.lacks:
                self.skipTest(f"{self.client} has no call for this: {call}")

    def group(self):
        return f"{self.client}-{self._testMethodName[5:]}"

    def join(self, instance=None, session=None, **environment):
        member = Member(session or self.session, self.group(), instance, **environment)
        self.members.append(member)
        return member

    def settle(self, members):
        """Until all partitions are shared by these members, none of them idle."""
        def settled():
            for member in members:
                assert not member.errors(), member.errors()
            owned = [partition for member in members for partition in member.partitions()]
            return sorted(owned) == list(range(PARTITIONS)) and all(m.partitions() for m in members)
        wait_until(settled, 60)

    def test_connects_plain_and_with_tls(self):
        for mechanism in MECHANISMS:
            for tls in (False, True):
                with self.subTest(mechanism=mechanism, tls=tls):
                    topics = Session(self.client, gateway, tls, mechanism).ask("topics")
                    self.assertIn(["topic", gateway.TOPIC, str(PARTITIONS)], topics)

    def test_wrong_password_is_said_to_be_one(self):
        for mechanism in MECHANISMS:
            _, error = Session(self.client, gateway, True, mechanism, "wrong").try_to("topics")
            self.assertRegex(error, re.compile("unknown user or wrong password|authentication", re.I))

    def test_whole_read_is_what_was_published(self):
        records = Session(self.client, gateway, tls=True).records("read")
        self.assertTrue(in_order_without_gaps(records))
        read = {}
        for record in records:
            if record.kind == "duragate.telemetry.v1":
                read.setdefault(record.key, []).append(record.value)
        self.assertEqual(sorted(read), sorted(publisher.sent))
        for device, values in read.items():
            self.assertEqual([value[:64] for value in values], [value[:64] for value in publisher.sent[device]])
            self.assertEqual(values, publisher.sent[device])
        self.assertEqual(len({(record.key, record.identity) for record in records}), len(records))
        for record in records:
            self.assertEqual(self.reference.setdefault(record.place, record), record)

    def test_seeks_by_offset(self):
        partition, records = max(by_partition(self.session.records("read")).items(), key=lambda item: len(item[1]))
        self.assertGreater(len(records), 20)
        for first in (0, 7, len(records) // 2, len(records) - 3):
            self.assertEqual(self.session.records("seek", partition, first, 3), records[first:first + 3])

    def test_finds_the_first_record_of_a_time(self):
        partitions = by_partition(self.session.records("read"))
        longest = max(partitions.values(), key=len)
        times = {longest[len(longest) // 2].timestamp, longest[len(longest) // 3].timestamp + 1}
        self.assertGreater(len({record.timestamp for record in longest}), 5)
        for timestamp in sorted(times):
            found = {int(p): int(offset) for _, p, offset in self.session.ask("times", timestamp)}
            for partition, records in partitions.items():
                first = next((r.offset for r in records if r.timestamp >= timestamp), None)
                # Some clients say "none", others the end.
                self.assertIn(found[partition], (-1, len(records)) if first is None else (first,))

    def check_come_and_go(self, **environment):
        first = self.join(**environment)
        self.settle([first])
        sent = publisher.spread(24)
        wait_for(first, sent)
        others = [self.join(**environment), self.join(**environment)]
        sent += publisher.spread(24)  # while they join
        self.settle([first, *others])
        stable = publisher.spread(48)
        wait_until(lambda: set(stable) <= {value for m in self.members for value in m.values()}, 60)
        delivered = [value for member in self.members for value in member.values()]
        self.assertEqual([delivered.count(value) for value in stable], [1] * len(stable))
        self.assertTrue(all(set(member.values()) & set(stable) for member in self.members))
        others[0].leave()
        others[1].kill()
        sent += stable + publisher.spread(24)
        self.settle([first])
        alone = publisher.spread(24)
        wait_for(first, alone)
        everything = {value for member in self.members for value in member.values()}
        self.assertEqual(set(sent) - everything, set())
        self.assertEqual([first.values().count(value) for value in alone], [1] * len(alone))
        self.assert_no_duplicates_within_an_assignment()

    def assert_no_duplicates_within_an_assignment(self):
        for member in self.members:
            last = {}
            for words in member.lines:
                if words[0] == "assigned":
                    last = {}
                elif words[0] == "record":
                    self.assertGreater(int(words[2]), last.get(words[1], -1))
                    last[words[1]] = int(words[2])

    def test_members_come_and_go_without_loss(self):
        self.check_come_and_go(DG_SESSION_MS="3000")

    def test_members_come_and_go_cooperatively(self):
        if not self.client.cooperative:
            self.skipTest("the assignor is not chosen here")
        self.check_come_and_go(DG_SESSION_MS="3000", DG_STRATEGY=self.client.cooperative)

    def test_static_member_restarts_without_movement(self):
        self.need("static")
        settings = {"DG_SESSION_MS": "20000"}
        stays, restarts = self.join("stays", **settings), self.join("restarts", **settings)
        self.settle([stays, restarts])
        before, changes = restarts.partitions(), len(stays.assignments())
        restarts.kill()
        again = self.join("restarts", **settings)
        wait_until(lambda: again.partitions(), 60)
        sent = publisher.spread(24)
        wait_until(lambda: set(sent) <= {*stays.values(), *again.values()}, 60)
        self.assertEqual(again.partitions(), before)
        self.assertEqual(len(stays.assignments()), changes)

    def read_in_group(self, expected):
        """A member that comes, sees these values and no others, and goes."""
        member = self.join()
        wait_for(member, expected)
        member.leave()
        return sorted(member.values())

    def test_commits_survive_client_and_gateway(self):
        member = self.join()
        wait_for(member, [value for values in publisher.sent.values() for value in values])
        member.leave()
        sent = publisher.spread(24)
        self.assertEqual(self.read_in_group(sent), sorted(sent))
        publisher.kill_gateway()
        sent = publisher.spread(24)
        self.assertEqual(self.read_in_group(sent), sorted(sent))

    def test_member_lives_through_a_restart_of_the_gateway(self):
        member = self.join()
        wait_for(member, publisher.spread(24))
        publisher.kill_gateway()
        wait_for(member, publisher.spread(24))

    def test_produce_is_refused_for_good(self):
        before = gateway.metric("duragate_kafka_requests_total")
        lines = self.session.ask("produce")
        for line, expected in zip(lines, self.client.produce, strict=True):
            self.assertRegex(" ".join(line), "^" + expected)
        self.assertLess(gateway.metric("duragate_kafka_requests_total") - before, 25, "tried again and again")

    def states(self):
        return {words[1]: words[2].lower() for words in self.session.ask("groups")}

    def test_groups_are_listed_described_and_deleted(self):
        self.need("groups", "describe", "delete")
        member = self.join(DG_SESSION_MS="20000")
        self.settle([member])
        wait_for(member, publisher.spread(24))  # an empty group without offsets is none
        group, *members = self.session.ask("describe", self.group())
        self.assertEqual([word.lower() for word in group], ["group", self.group(), "stable"])
        self.assertEqual([words[3] for words in members], [",".join(map(str, range(PARTITIONS)))])
        self.assertEqual(self.states()[self.group()], "stable")
        self.assertRegex(self.session.try_to("delete", self.group())[1], re.compile("not empty|non.?empty", re.I))
        member.leave()
        self.assertEqual(self.states()[self.group()], "empty")
        self.session.ask("delete", self.group())
        self.assertNotIn(self.group(), self.states())

    def test_offsets_of_an_empty_group_are_reset(self):
        self.need("reset")
        everything = sorted(value for values in publisher.sent.values() for value in values)
        self.assertEqual(self.read_in_group(everything), everything)
        self.session.ask("reset", self.group(), 0)
        self.assertEqual(self.read_in_group(everything), everything)


def load_tests(loader, standard, pattern):
    """One class for each client."""
    suite = unittest.TestSuite()
    for client in CLIENTS:
        if chosen(client.name):
            name = client.name.replace("-", "_")
            suite.addTests(loader.loadTestsFromTestCase(
                type(name, (Acceptance, unittest.TestCase), {"client": client})))
    return suite


if __name__ == "__main__":
    unittest.main()
