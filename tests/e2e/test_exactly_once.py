"""QoS 2: every message is in the stream exactly once, whatever happens to connection and gateway; and the
sessions that this rests on."""

import collections
import random
import signal
import struct
import time
import unittest

from harness import AckedPublisher, Gateway, wait_until
from raw_mqtt import PUBCOMP, PUBREC, SUBACK, UNSUBACK, Raw, disconnect, publish, pubrel, subscribe, unsubscribe

HOUR = 3600
STEPS = ("published", "received", "released", "completed")  # what the device has last before it is interrupted


def faults(sent, stored):
    """What is wrong: device -> numbers that were completed, device -> numbers in the stream."""
    found = []
    for device, numbers in sent.items():
        counts = collections.Counter(stored.get(device, ()))
        found += [f"{device}: {number} {counts[number]} times" for number in numbers if counts[number] != 1]
        found += [f"{device}: {number} was never sent" for number in counts.keys() - set(numbers)]
    return found


class Checker(unittest.TestCase):
    """The checker itself must be able to fail."""

    def test_loss_and_doubles_are_noticed(self):
        self.assertFalse(faults({"d": [0, 1]}, {"d": [1, 0]}))
        self.assertTrue(faults({"d": [0, 1]}, {"d": [0]}))
        self.assertTrue(faults({"d": [0, 1]}, {"d": [0, 1, 1]}))
        self.assertTrue(faults({"d": [0]}, {"d": [0, 1]}))


class Device:
    """Sends numbers with QoS 2 and remembers, as in its own flash, how far each is."""

    IDENTIFIERS = 4  # used again and again

    def __init__(self, gateway, name, version):
        self.gateway, self.name, self.version = gateway, name, version
        self.user, self.key = f"{name}@{gateway.TENANT}", gateway.device(name)
        self.number = 0
        self.completed = []
        self.open = collections.OrderedDict()  # packet identifier -> [number, step]
        self.raw = None

    def connect(self):
        """Goes on where it was. An open connection is not closed first: it is taken over."""
        former, self.raw = self.raw, Raw(self.gateway.MQTT_PORT, timeout=30)
        present = self.raw.resumed(self.user, self.key, client_id=f"{self.name}-{self.number}",
                                   version=self.version, clean=False, expiry=HOUR)
        if former:
            former.socket.close()
        for packet_id, entry in self.open.items():
            number, step = entry
            if step == "released" or (step == "received" and number % 2):
                entry[1] = "released"
                self.raw.send(pubrel(packet_id))
            else:  # also of a PUBREC that did not reach the flash
                entry[1] = "published"
                self.raw.send(publish("once", str(number), 2, packet_id, self.version, dup=True))
        return present

    def drop(self):
        self.raw.socket.close()
        self.raw = None

    def advance_to(self, step):
        """A new message, as far as this step."""
        packet_id = next(i for i in range(1, self.IDENTIFIERS + 1) if i not in self.open)
        self.open[packet_id] = [self.number, "published"]
        self.raw.send(publish("once", str(self.number), 2, packet_id, self.version))
        self.number += 1
        if step != "published":
            self.read_until(lambda: self.open[packet_id][1] != "published", hold={packet_id})
        if step in ("released", "completed"):
            self.open[packet_id][1] = "released"
            self.raw.send(pubrel(packet_id))
        if step == "completed":  # the next message has the same identifier
            self.finish()

    def read_until(self, condition, hold=()):
        while not condition():
            first, body = self.raw.read()
            packet_id = struct.unpack(">H", body[:2])[0]
            if first >> 4 == PUBREC:
                self.open[packet_id][1] = "received"
                if packet_id not in hold:
                    self.open[packet_id][1] = "released"
                    self.raw.send(pubrel(packet_id))
            elif first >> 4 == PUBCOMP:
                self.completed.append(self.open.pop(packet_id)[0])
            else:
                raise AssertionError((first, body))

    def finish(self):
        self.read_until(lambda: not self.open)


def stored_numbers(gateway, subject):
    stored = collections.defaultdict(list)
    for line in gateway.consume(format="%k %h|%s\\n").splitlines():
        if f"ce_subject={subject}," in line and "ce_qos=2" in line:
            stored[line.split()[0]].append(int(line.rsplit("|", 1)[1]))
    return stored


def restart(gateway, number):
    gateway.kill(number)
    gateway.up()


class EachStep(unittest.TestCase):
    """A message is interrupted after each of its steps, in both versions, in each way."""

    def setUp(self):
        self.gateway = Gateway()
        self.addCleanup(self.gateway.close)
        self.gateway.up()
        self.devices = [(Device(self.gateway, f"{step}-{version}", version), step)
                        for step in STEPS for version in (4, 5)]
        for device, _ in self.devices:
            self.assertFalse(device.connect())
        self.addCleanup(lambda: [device.drop() for device, _ in self.devices if device.raw])

    def check(self, rounds, interrupt):
        for number in range(rounds):
            for device, step in self.devices:
                device.advance_to(step)
            time.sleep(random.random() * 0.01 if number % 2 else 0)  # of a PUBLISH that nobody answered
            interrupt()
            for device, _ in self.devices:
                self.assertTrue(device.connect(), f"{device.name} in round {number}")
            for device, _ in self.devices:
                device.finish()
        sent = {device.name: device.completed for device, _ in self.devices}
        self.assertEqual({len(numbers) for numbers in sent.values()}, {rounds})
        self.assertEqual(faults(sent, stored_numbers(self.gateway, "once")), [])

    def test_connection_lost(self):
        self.check(20, lambda: [device.drop() for device, _ in self.devices])

    def test_taken_over(self):
        self.check(20, lambda: None)

    def test_stopped(self):
        self.check(3, lambda: restart(self.gateway, signal.SIGTERM))

    def test_killed(self):
        self.check(6, lambda: restart(self.gateway, signal.SIGKILL))


class Load(unittest.TestCase):
    """libmosquitto with messages in flight all the time, over kills and stops. (Debian's paho sends PUBLISH again
    where PUBREL is due when its first attempt to connect again fails: no gateway could tell.)"""

    def test_every_message_is_stored_once(self):
        gateway = Gateway("release")
        self.addCleanup(gateway.close)
        gateway.up()
        publisher = AckedPublisher(gateway, [f"load{number}" for number in range(4)], 12, qos=2)
        self.addCleanup(publisher.close)
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
            wait_until(lambda: gateway.metric("duragate_events_stored_total") > 500, 30)
            restart(gateway, number)
        sent = publisher.acknowledged()
        self.assertGreater(min(map(len, sent.values())), 500)
        self.assertEqual(faults(sent, stored_numbers(gateway, "load")), [])


class Sessions(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()
        cls.addClassCleanup(cls.gateway.close)
        cls.gateway.up()

    def session(self, name):
        key = self.gateway.device(name)

        def connect(**more):
            raw = Raw(self.gateway.MQTT_PORT)
            self.addCleanup(raw.socket.close)
            more = {"version": 5, "clean": False, "expiry": HOUR, **more}
            return raw, raw.resumed(f"{name}@{self.gateway.TENANT}", key, **more)

        return connect

    def subscribed(self, raw):
        """Whether the session has the subscription that is removed by this."""
        first, body = raw.send(unsubscribe("$dg/commands/#")).read()
        self.assertEqual(first >> 4, UNSUBACK)
        return body[-1] == 0

    def test_subscriptions_survive_whatever_the_client_id(self):
        connect = self.session("subscriber")
        raw, present = connect(client_id="one")
        self.assertFalse(present)
        first, _ = raw.send(subscribe("$dg/commands/#")).read()
        self.assertEqual(first >> 4, SUBACK)
        for number in (signal.SIGKILL, signal.SIGTERM):
            restart(self.gateway, number)
            raw, present = connect(client_id=f"after {number}")
            self.assertTrue(present)
        self.assertTrue(self.subscribed(raw))
        restart(self.gateway, signal.SIGKILL)
        raw, present = connect()
        self.assertTrue(present)
        self.assertFalse(self.subscribed(raw), "the removal was durable too")

    def test_clean_start_ends_the_session(self):
        connect = self.session("cleaner")
        raw, _ = connect()
        raw.send(publish("once", "a", 2, 1)).read()
        raw, present = connect(clean=True)
        self.assertFalse(present)
        restart(self.gateway, signal.SIGKILL)
        raw, present = connect()
        self.assertTrue(present)
        stored = len(stored_values(self.gateway, "cleaner"))
        raw.send(publish("once", "b", 2, 1)).read()  # the identifier of a session that is over
        self.assertEqual(len(stored_values(self.gateway, "cleaner")), stored + 1)

    def test_expiry_goes_on_while_the_gateway_is_down(self):
        connect = self.session("expirer")
        raw, _ = connect(expiry=1)
        kept = self.gateway.metric("duragate_sessions_kept")
        raw.socket.close()
        wait_until(lambda: self.gateway.metric("duragate_sessions_kept") == kept + 1, 30)
        self.gateway.kill()
        time.sleep(1.5)
        self.gateway.up()
        _, present = connect()
        self.assertFalse(present)

    def test_disconnect_ends_it(self):
        connect = self.session("leaver")
        raw, _ = connect()
        raw.send(disconnect(expiry=0)).until_closed()
        _, present = connect()
        self.assertFalse(present)

    def test_expired_sessions_leave_the_disk(self):
        connect = self.session("sleeper")
        kept = self.gateway.metric("duragate_sessions_kept")
        raw, _ = connect(expiry=1)
        raw.send(publish("once", "x", 2, 1)).read()
        raw.socket.close()
        wait_until(lambda: self.gateway.metric("duragate_sessions_kept") == kept + 1, 30)
        wait_until(lambda: self.gateway.metric("duragate_sessions_kept") == kept, 60)
        _, present = connect()
        self.assertFalse(present)


def stored_values(gateway, device):
    return [line for line in gateway.consume(format="%k %h|%s\\n").splitlines()
            if line.startswith(device + " ") and "ce_subject=once," in line]


if __name__ == "__main__":
    unittest.main()
