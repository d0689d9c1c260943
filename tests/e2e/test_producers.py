"""Producer sequences: every number is in the stream exactly once with QoS 1, whatever happens to connection and
gateway, in sessions that end with their connection; and receipts."""

import collections
import os
import re
import signal
import struct
import time
import unittest

import yaml

from harness import ROOT, AckedPublisher, Gateway, wait_until
from raw_mqtt import PUBACK, PUBREC, Raw, publish, pubrel, user_property
from test_exactly_once import faults, restart

WAYS = ("property", "suffix-5", "suffix-4")  # how a device says its sequence, and in which version
STEPS = ("sent", "acknowledged", "reused")  # what happened last before it is interrupted
PRODUCER = "flash"
IMPLEMENTATION_SPECIFIC = 0x83
QUOTA_EXCEEDED = 0x97


def sequenced(way, number, packet_id, topic="once", epoch=1, qos=1, dup=False, payload=None):
    """The PUBLISH with sequence `number`."""
    text = f"{PRODUCER}:{epoch}:{number}"
    version = 4 if way == "suffix-4" else 5
    more = {"properties": user_property("dg-seq", text)} if way == "property" else {}
    name = topic if way == "property" else f"{topic}/$seq/{text}"
    return publish(name, str(number) if payload is None else payload, qos, packet_id, version, dup=dup, **more)


class Device:
    """Sends numbers with QoS 1 and remembers, as in its own flash, those that are not acknowledged."""

    IDENTIFIERS = 3  # used again and again, at once after a PUBACK

    def __init__(self, gateway, name, way):
        self.gateway, self.name, self.way = gateway, name, way
        self.version = 4 if way == "suffix-4" else 5
        self.user, self.key = f"{name}@{gateway.TENANT}", gateway.device(name)
        self.number = 0
        self.acknowledged = []
        self.open = collections.OrderedDict()  # packet identifier -> number
        self.raw = None

    def connect(self):
        """Sends again what was not acknowledged. An open connection is not closed first: it is taken over."""
        former, self.raw = self.raw, Raw(self.gateway.MQTT_PORT, timeout=30)
        present = self.raw.resumed(self.user, self.key, version=self.version)
        assert not present
        if former:
            former.socket.close()
        resend, self.open = list(self.open.values()), collections.OrderedDict()
        for index, number in enumerate(resend):
            self.send(number, dup=index % 2 == 0)  # under another identifier, if need be

    def drop(self):
        self.raw.socket.close()
        self.raw = None

    def send(self, number, dup=False):
        packet_id = next(i for i in range(1, self.IDENTIFIERS + 1) if i not in self.open)
        self.open[packet_id] = number
        self.raw.send(sequenced(self.way, number, packet_id, dup=dup))

    def send_new(self):
        self.number += 1
        self.send(self.number)

    def read_one(self):
        first, body = self.raw.read()
        packet_id = struct.unpack(">H", body[:2])[0]
        assert first >> 4 == PUBACK and (len(body) == 2 or body[2] == 0), (first, body)
        self.acknowledged.append(self.open.pop(packet_id))

    def advance_to(self, step):
        """A new number, as far as this step."""
        self.send_new()
        if step == "sent":
            return
        self.finish()
        if step == "reused":  # the identifier that was acknowledged a moment ago has another number
            self.send_new()
        else:
            self.raw.send(sequenced(self.way, self.number, 1, dup=True))  # as if the PUBACK had been lost
            first, body = self.raw.read()
            assert first >> 4 == PUBACK and (len(body) == 2 or body[2] == 0), (first, body)

    def finish(self):
        while self.open:
            self.read_one()


def stored_numbers(gateway, subject="once"):
    """device -> numbers; a ce_id that does not tell the sequence is a fault."""
    stored = collections.defaultdict(list)
    for line in gateway.consume(format="%k %h|%s\\n").splitlines():
        if f"ce_subject={subject}," not in line:
            continue
        identity = re.search(r"ce_id=([^,]*),", line)[1]
        number = line.rsplit("|", 1)[1]
        assert identity == f"{PRODUCER}:1:{number}", line
        stored[line.split()[0]].append(int(number))
    return stored


class EachStep(unittest.TestCase):
    """A number is interrupted after each of its steps, in each way to say it, by each kind of interruption."""

    def setUp(self):
        self.gateway = Gateway()
        self.addCleanup(self.gateway.close)
        self.gateway.up()
        self.devices = [(Device(self.gateway, f"{step}-{way}", way), step) for step in STEPS for way in WAYS]
        for device, _ in self.devices:
            device.connect()
        self.addCleanup(lambda: [device.drop() for device, _ in self.devices if device.raw])

    def check(self, rounds, interrupt):
        for number in range(rounds):
            for device, step in self.devices:
                device.advance_to(step)
            time.sleep(0.002 * (number % 4))  # of a PUBLISH that nobody answered
            interrupt()
            for device, _ in self.devices:
                device.connect()
            for device, _ in self.devices:
                device.finish()
        sent = {device.name: device.acknowledged for device, _ in self.devices}
        self.assertEqual({len(set(numbers)) for numbers in sent.values()}, {rounds, 2 * rounds})
        self.assertEqual(faults(sent, stored_numbers(self.gateway)), [])
        self.assertGreaterEqual(self.gateway.metric("duragate_producer_sequences_repeated_total"), len(WAYS))

    def test_connection_lost(self):
        self.check(20, lambda: [device.drop() for device, _ in self.devices])

    def test_taken_over(self):
        self.check(20, lambda: None)

    def test_stopped(self):
        self.check(3, lambda: restart(self.gateway, signal.SIGTERM))

    def test_killed(self):
        self.check(8, lambda: restart(self.gateway, signal.SIGKILL))


class Load(unittest.TestCase):
    def test_libmosquitto_over_kills_and_stops(self):
        gateway = Gateway("release")
        self.addCleanup(gateway.close)
        gateway.up()
        publisher = AckedPublisher(gateway, [f"load{number}" for number in range(4)], 12, qos="sequence")
        self.addCleanup(publisher.close)
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
            wait_until(lambda: gateway.metric("duragate_events_stored_total") > 500, 30)
            restart(gateway, number)
        sent = publisher.acknowledged()
        self.assertGreater(min(map(len, sent.values())), 500)
        self.assertEqual(faults(sent, stored_numbers(gateway, "load")), [])


class Refusals(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway(settings={"DURAGATE_CFG_STORAGE__SEGMENT_SIZE": "1MiB"})
        cls.addClassCleanup(cls.gateway.close)
        cls.gateway.up()

    def connected(self, name, **more):
        key = self.gateway.device(name)
        raw = Raw(self.gateway.MQTT_PORT, timeout=20)
        self.addCleanup(raw.socket.close)
        self.assertEqual(raw.log_in(f"{name}@{self.gateway.TENANT}", key, **more), 0)
        return raw

    def reserve(self, size):
        path = os.path.join(self.gateway.var, "duragate.yaml")
        with open(path, encoding="utf-8") as file:
            text = file.read()
        text = re.sub(r"^  reserve: .*\n", "", text, flags=re.M)
        with open(path, "w", encoding="utf-8") as file:
            file.write(re.sub(r"^storage:$", f"storage:\n  reserve: {size}", text, flags=re.M))
        row = 'duragate_config_reloads_total{result="ok"}'
        before = self.gateway.metric(row)
        os.kill(self.gateway.pid(), signal.SIGHUP)
        wait_until(lambda: self.gateway.metric(row) > before, 10)

    def test_a_refused_sequence_is_stored_when_it_comes_again(self):
        raw = self.connected("refused")
        self.reserve("9000000000000000")
        number, code, refused = 0, 0, []
        while code == 0 or len(refused) < 5:
            number += 1
            first, body = raw.send(sequenced("property", number, 1, payload=f"{number:08}" + "x" * 16000)).read()
            self.assertEqual(first >> 4, PUBACK)
            code = body[2] if len(body) > 2 else 0
            self.assertIn(code, (0, QUOTA_EXCEEDED))
            if code:
                refused.append(number)
            self.assertLess(number, 4000)
        restart(self.gateway, signal.SIGKILL)
        self.reserve("1MiB")
        raw = Raw(self.gateway.MQTT_PORT, timeout=20)
        self.addCleanup(raw.socket.close)
        _, key, _ = self.gateway.api("POST", f"/v1/tenants/{self.gateway.TENANT}/devices/refused/credentials",
                                     {"kind": "key"})
        raw.log_in(f"refused@{self.gateway.TENANT}", key["key"])
        for again in range(max(1, number - 100), number + 1):  # those that were stored too
            raw.send(sequenced("property", again, 1, payload=f"{again:08}" + "x" * 16000))
            first, body = raw.read()
            self.assertEqual((first >> 4, body[2:3]), (PUBACK, b""))
        stored = [int(line[:8]) for line in self.gateway.consume(format="%s\\n").splitlines() if line.endswith("xxx")]
        self.assertEqual(sorted(stored), list(range(1, number + 1)))

    def test_what_mqtt5_is_told(self):
        raw = self.connected("told")
        for text, reason, words in (("flash:1:500", 0, ""), ("flash:1:1", IMPLEMENTATION_SPECIFIC, "too far below"),
                                    ("flash:0:501", IMPLEMENTATION_SPECIFIC, "later epoch"),
                                    ("flash:1:x", IMPLEMENTATION_SPECIFIC, "<producer>:<epoch>:<sequence>"),
                                    ("b:1:1", 0, ""), ("c:1:1", 0, ""), ("d:1:1", 0, ""),
                                    ("e:1:1", QUOTA_EXCEEDED, "four producers"), ("flash:2:1", 0, "")):
            _, body = raw.send(publish("told", "x", 1, 1, properties=user_property("dg-seq", text))).read()
            self.assertEqual(body[2] if len(body) > 2 else 0, reason, text)
            self.assertIn(words, body.decode(errors="replace"), text)

    def test_examples_of_the_description(self):
        with open(os.path.join(ROOT, "schemas/asyncapi.yaml"), encoding="utf-8") as file:
            examples = yaml.safe_load(file)["x-examples"]
        for number, example in enumerate(examples):
            version = 5 if example["mqtt"] == 5 else 4
            properties = b"".join(user_property(*pair) for pair in example["user_properties"].items())
            raw = self.connected(f"example{number}", version=version)
            raw.send(publish(example["topic"], "x", 1, 1, version, properties)).read()
        headers = self.gateway.consume(format="%k %h,\\n").splitlines()
        for number, example in enumerate(examples):
            found = [line for line in headers if line.startswith(f"example{number} ") and "ce_qos" in line]
            self.assertEqual(len(found), 1)
            self.assertIn(f",ce_id={example['id']},", found[0])
            self.assertIn(f",ce_subject={example['subject']},", found[0])

    def test_what_mqtt3_sees(self):
        raw = self.connected("seen", version=4)
        self.assertEqual(raw.send(sequenced("suffix-4", 500, 1)).read()[0] >> 4, PUBACK)
        self.assertEqual(raw.send(sequenced("suffix-4", 1, 2)).until_closed(), [])
        self.assertIn("too far below", self.gateway.log())


class Receipts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()
        cls.addClassCleanup(cls.gateway.close)
        cls.gateway.up()
        cls.key = cls.gateway.device("asker")

    def connected(self, **more):
        raw = Raw(self.gateway.MQTT_PORT, timeout=20)
        self.addCleanup(raw.socket.close)
        raw.resumed(f"asker@{self.gateway.TENANT}", self.key, clean=False, expiry=3600,
                    properties=user_property("dg-receipts", "1"), **more)
        return raw

    def receipt(self, body):
        """(partition, offset), None: there is none."""
        found = re.search(rb"\x26\x00\x0cdg-partition\x00.(\d+)\x26\x00\x09dg-offset\x00.(\d+)$", body)
        return found and (int(found[1]), int(found[2]))

    def test_the_event_is_where_the_receipt_says(self):
        raw = self.connected()
        receipts = {}
        for number in range(20):
            qos = 1 + number % 2
            first, body = raw.send(publish("receipt", str(number), qos, number + 1)).read()
            self.assertEqual(first >> 4, PUBREC if qos == 2 else PUBACK)
            receipts[number] = self.receipt(body)
        stored = {}
        for line in self.gateway.consume(format="%p %o %h|%s\\n").splitlines():
            if "ce_subject=receipt," in line:
                partition, offset, _ = line.split(" ", 2)
                stored[int(line.rsplit("|", 1)[1])] = (int(partition), int(offset))
        self.assertEqual(receipts, stored)

    def test_of_a_repeated_message_of_qos_2(self):
        raw = self.connected()
        _, body = raw.send(publish("again", "x", 2, 77)).read()
        receipt = self.receipt(body)
        self.assertTrue(receipt)
        restart(self.gateway, signal.SIGKILL)
        raw = self.connected()
        first, body = raw.send(publish("again", "x", 2, 77, dup=True)).read()
        self.assertEqual((first >> 4, self.receipt(body)), (PUBREC, receipt))
        raw.send(pubrel(77)).read()

    def test_none_for_a_repeated_sequence(self):
        raw = self.connected()
        self.assertTrue(self.receipt(raw.send(sequenced("property", 1, 1)).read()[1]))
        self.assertEqual(raw.send(sequenced("property", 1, 1)).read()[1], b"\0\1")


if __name__ == "__main__":
    unittest.main()
