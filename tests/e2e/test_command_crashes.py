"""Commands while the gateway is killed and PostgreSQL freezes, dies and comes back: what is said is true."""

import collections
import itertools
import json
import os
import random
import signal
import threading
import time
import unittest

from called_device import CalledDevice, Received, acknowledge, subscribe
from harness import Gateway, wait_until
from raw_mqtt import PUBACK, publish
from test_registry import postgres_pids

SECONDS = float(os.environ.get("DURAGATE_CRASH_SECONDS", "30"))
DEVICES = 6
# What may come after what, in the stream. Again "sent": delivered once more.
NEXT = {None: {"queued"}, "queued": {"sent", "expired"}, "sent": {"sent", "delivered", "expired"},
        "delivered": {"completed", "expired"}}


class Worker(threading.Thread):
    """A device that acknowledges and replies, and remembers what it has done. Half of them keep their session."""

    def __init__(self, gateway, name, key, ended):
        super().__init__(daemon=True)
        self.gateway, self.name, self.key, self.ended = gateway, name, key, ended
        self.received, self.acknowledged, self.replied, self.confirmed = (collections.Counter() for _ in range(4))
        self.packets = {}
        self.numbers = itertools.cycle(range(1, 60000))
        self.start()

    def run(self):
        while not self.ended.is_set():
            try:
                self.session()
            except (OSError, EOFError, AssertionError):  # an answer that is no CONNACK with 0, among them
                time.sleep(0.05)

    def session(self):
        clean = self.name.endswith(("0", "2", "4"))
        device = CalledDevice(self.gateway, self.name, qos=None, key=self.key, clean=clean, expiry=3600)
        self.packets = {}
        with device.socket:
            device.send(subscribe(1, 5))
            for id in [id for id in self.replied if not self.confirmed[id]]:
                self.reply(device, id)  # as MQTT asks of a client whose session goes on
            device.socket.settimeout(1)
            while not self.ended.is_set():
                try:
                    first = device.exactly(1)[0]
                except TimeoutError:
                    device.send(b"\xc0\0")  # PINGREQ: it may have gone without a word
                    continue
                device.socket.settimeout(10)
                self.take(device, first, device_body(device))
                device.socket.settimeout(1)

    def take(self, device, first, body):
        if first >> 4 == PUBACK:
            if len(body) < 3 or body[2] < 0x80:
                self.confirmed[self.packets[body[:2]]] += 1
            else:  # later it may be taken
                self.reply(device, self.packets[body[:2]])
                time.sleep(0.1)
            return
        if first >> 4 != 3:
            return
        received = Received(first, body, 5)
        self.received[received.id] += 1
        if random.random() < 0.02:
            raise EOFError  # gone without an acknowledgement
        self.acknowledged[received.id] += 1
        device.send(acknowledge(PUBACK, received.packet_id))
        self.reply(device, received.id)

    def reply(self, device, id):
        number = next(self.numbers)
        self.packets[number.to_bytes(2, "big")] = id
        self.replied[id] += 1
        device.send(publish(f"$dg/replies/{id}/200", b'{"by":"%s"}' % self.name.encode(), 1, number))


def device_body(device):
    length, shift = 0, 0
    while True:
        byte = device.exactly(1)[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return device.exactly(length)


class Crashes(unittest.TestCase):
    def setUp(self):
        random.seed(int(os.environ.get("DURAGATE_CRASH_SEED", random.randrange(10000))))
        self.gateway = Gateway(settings={"DURAGATE_CFG_SERVER__WORKERS": "2"})
        self.addCleanup(self.gateway.close)
        self.gateway.up()
        self.ended, self.quiet, self.accepted = threading.Event(), threading.Event(), []
        self.addCleanup(self.ended.set)

    def post_until_quiet(self):
        while not self.quiet.is_set() and not self.ended.is_set():
            device = f"w{random.randrange(DEVICES)}"
            try:
                status, body, _ = self.gateway.api(
                    "POST", f"/v1/tenants/{self.gateway.TENANT}/devices/{device}/commands",
                    {"name": "work", "payload": {"n": random.random()}})
            except OSError:
                time.sleep(0.05)
                continue
            if status == 202:
                self.accepted.append((device, body["command_id"]))
            time.sleep(0.02)

    def disturb(self):
        """One of what may happen to a machine."""
        kind = random.choice(("kill", "kill", "freeze", "postgres"))
        pids = postgres_pids(self.gateway)
        if kind == "freeze":
            for pid in pids:
                self.signal(pid, signal.SIGSTOP)
            time.sleep(random.uniform(0.2, 3))
            if random.random() < 0.5:
                self.gateway.kill()
            for pid in pids:
                self.signal(pid, signal.SIGCONT)
        elif kind == "postgres":
            self.signal(pids[0], signal.SIGKILL)
            time.sleep(random.uniform(0.1, 1))
            if random.random() < 0.5:
                self.gateway.kill()
        else:
            self.gateway.kill()
        self.gateway.up()

    @staticmethod
    def signal(pid, number):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass

    def events(self):
        """device, ce_id, and event of everything in the stream, in order."""
        lines = self.gateway.consume(topic=f"{self.gateway.TENANT}.commands", format="%k|%h|%s\\n").splitlines()
        for line in lines:
            device, headers, value = line.split("|", 2)
            id = next(pair[6:] for pair in headers.split(",") if pair.startswith("ce_id="))
            yield device, id, json.loads(value)

    def test_truth(self):
        workers = [Worker(self.gateway, f"w{i}", self.gateway.device(f"w{i}"), self.ended) for i in range(DEVICES)]
        posters = [threading.Thread(target=self.post_until_quiet, daemon=True) for _ in range(3)]
        for poster in posters:
            poster.start()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            time.sleep(random.uniform(0.1, 2.5))
            self.disturb()
        self.quiet.set()
        for poster in posters:
            poster.join(30)
        self.assertGreater(len(self.accepted), 50)
        self.rests()
        rows = self.rows()
        self.check_rows(rows, workers)
        self.check_stream(rows, {worker.name: worker for worker in workers})
        self.ended.set()
        self.gateway.kill()
        self.gateway.up()
        self.rests()
        self.assertEqual(self.rows(), rows, "nothing is left that a start would say")

    def rests(self):
        """All came to its end, and PostgreSQL and the stream say so."""
        wait_until(lambda: self.gateway.sql("select count(*) from command where not is_final or holder is not null") == "0", 120)
        wait_until(lambda: self.gateway.sql("select count(*) from stream_outbox") == "0", 60)
        for name in ("projections_waiting", "outbox_waiting", "commands_held"):
            wait_until(lambda: self.gateway.metric("duragate_" + name) == 0, 60)

    def rows(self):
        text = self.gateway.sql("select 'c' || command_key, state, delivery_count, device_id from command"
                                " join device using (device_key) order by command_key")
        return {id: (state, int(count), device) for id, state, count, device in (line.split("|") for line in text.splitlines())}

    def check_rows(self, rows, workers):
        for device, id in self.accepted:
            self.assertEqual((rows[id][0], rows[id][2]), ("completed", device), id)

    def check_stream(self, rows, workers):
        states, ids, sent = {}, set(), collections.Counter()
        for device, ce_id, event in self.events():
            self.assertNotIn(ce_id, ids, "written once")
            ids.add(ce_id)
            id, state, worker = event["command_id"], event["state"], workers[device]
            self.assertIn(state, NEXT.get(states.get(id), ()), (id, states.get(id)))
            states[id] = state
            sent[id] += state == "sent"
            if state == "delivered":
                self.assertGreater(worker.received[id], 0, "not ahead of what happened")
            if state == "completed":
                self.assertGreater(worker.replied[id], 0, "not ahead of what happened")
                self.assertEqual(event["reply"], {"by": device})
        self.assertEqual(states, {id: state for id, (state, _, _) in rows.items()})
        self.assertEqual(dict(sent), {id: count for id, (_, count, _) in rows.items()})
        for worker in workers.values():
            for id in worker.confirmed:
                self.assertEqual(states[id], "completed", "a reply's acknowledgement means that it is stored")


if __name__ == "__main__":
    unittest.main()
