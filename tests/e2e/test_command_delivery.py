"""How commands get to devices, whatever the protocol, the session and the administrator do meanwhile."""

import json
import struct
import time
import unittest

from called_device import FILTER, Call, CalledDevice, Received, acknowledge, subscribe
from harness import Gateway, wait_until
from raw_mqtt import PUBACK, PUBCOMP, PUBREC, SUBACK, publish, pubrel, text, unsubscribe

RECEIVE_MAXIMUM, MAXIMUM_PACKET_SIZE, MESSAGE_EXPIRY, CONTENT_TYPE = b"\x21", b"\x27", b"\x02", b"\x03"
HOUR = 3600


def expiry_of(received):
    return struct.unpack(">I", received.properties.split(MESSAGE_EXPIRY, 1)[1][:4])[0]


class DeliveryTest(unittest.TestCase):
    SETTINGS = {"DURAGATE_CFG_SERVER__WORKERS": "2"}

    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway(settings=cls.SETTINGS)
        cls.addClassCleanup(cls.gateway.close)
        cls.gateway.up()
        cls.keys = {}

    def device(self, name, **more):
        if name not in self.keys:
            self.keys[name] = self.gateway.device(name)
        device = CalledDevice(self.gateway, name, key=self.keys[name], **more)
        self.addCleanup(device.socket.close)
        return device

    def path(self, device):
        return f"/v1/tenants/{self.gateway.TENANT}/devices/{device}"

    def post(self, device, payload=1, name="reboot", **more):
        status, body, _ = self.gateway.api("POST", self.path(device) + "/commands",
                                           {"name": name, "payload": payload, **more})
        self.assertEqual(status, 202, body)
        return body["command_id"]

    def row(self, id, columns="state"):
        return self.gateway.sql(f"select {columns} from command where command_key = {id[1:]}")

    def becomes(self, id, state, columns="state"):
        wait_until(lambda: self.row(id, columns) == state, 20)

    def soon_over(self, id, seconds=1):
        """Less than an hour is left of it, as if it had been made with so short a time to live."""
        self.gateway.sql(f"update command set expires_at = now() + interval '{seconds} s' where command_key = {id[1:]}")

    def events(self, device):
        lines = self.gateway.consume(topic=f"{self.gateway.TENANT}.commands", format="%k %s\\n").splitlines()
        found = [json.loads(line.split(" ", 1)[1]) for line in lines if line.split(" ", 1)[0] == device]
        return [(event["command_id"], event["state"]) for event in found]

    def states(self, device, id):
        return [state for of, state in self.events(device) if of == id]

    def is_alive(self):
        self.assertEqual(self.gateway.api("GET", f"/v1/tenants/{self.gateway.TENANT}")[0], 200)


class Protocol(DeliveryTest):
    def test_one_at_a_time(self):
        """A receive maximum of 1: the next one leaves when the one before is acknowledged, in order."""
        for qos in (1, 2):
            with self.subTest(qos=qos):
                device = self.device(f"one{qos}", qos=qos, properties=RECEIVE_MAXIMUM + b"\0\1")
                ids = [self.post(device.name, i, wants_reply=False) for i in range(20)]
                for id in ids:
                    received = device.called()
                    self.assertEqual(received.id, id)
                    device.socket.settimeout(0.05)
                    with self.assertRaises(TimeoutError):
                        device.exactly(1)
                    device.socket.settimeout(30)
                    device.acknowledged(received)
                self.becomes(ids[-1], "completed")

    def test_redelivered_on_the_session(self):
        """What was not acknowledged comes again as a duplicate, before what is new, and is one delivery."""
        for qos in (1, 2):
            with self.subTest(qos=qos):
                name = f"dup{qos}"
                device = self.device(name, qos=qos, clean=False, expiry=HOUR)
                first, second = self.post(name), self.post(name)
                packet_ids = [device.called().packet_id, device.called().packet_id]
                self.becomes(second, "sent")
                device.socket.close()
                third = self.post(name)
                device = self.device(name, qos=None, clean=False, expiry=HOUR)
                self.assertTrue(device.present)
                again = [device.called() for _ in range(3)]
                self.assertEqual([r.id for r in again], [first, second, third])
                self.assertEqual([r.dup for r in again], [True, True, False])
                self.assertEqual([r.packet_id for r in again[:2]], packet_ids)
                for received in again:
                    device.acknowledged(received)
                    self.assertEqual(device.reply(received), 0)
                self.becomes(first, "completed|1", "state, delivery_count")
                self.becomes(third, "completed|1", "state, delivery_count")

    def test_delivered_again_after_a_clean_session(self):
        device = self.device("clean", qos=1)
        ids = [self.post("clean", i) for i in range(24)]
        for id in ids[:16]:
            self.assertEqual(device.called().id, id)
        self.becomes(ids[15], "sent|1", "state, delivery_count")
        device.socket.close()
        device = self.device("clean", qos=1)
        for id in ids:
            received = device.called()
            self.assertEqual((received.id, received.dup), (id, False))
            device.acknowledged(received)
            device.reply(received, qos=0)
        self.becomes(ids[0], "completed|2", "state, delivery_count")
        self.becomes(ids[-1], "completed|1", "state, delivery_count")

    def test_more_than_one_answer_of_postgresql_carries(self):
        for name in ("big1", "big2"):
            self.keys[name] = self.gateway.device(name)
        ids = {name: [self.post(name, "x" * 60000, wants_reply=False) for _ in range(20)] for name in ("big1", "big2")}
        devices = {name: self.device(name, qos=1) for name in ids}
        for name, device in devices.items():
            for id in ids[name]:
                received = device.called()
                self.assertEqual(received.id, id)
                device.acknowledged(received)
        self.becomes(ids["big2"][-1], "completed")

    def test_taken_over_again_and_again(self):
        """The order holds over take-overs, whichever worker has the device."""
        device = self.device("taken", qos=1)
        ids = [self.post("taken", i, wants_reply=False) for i in range(40)]
        got = []
        while len(got) < len(ids):
            for _ in range(3):
                received = device.called()
                self.assertEqual(received.id, ids[len(got)])
                got.append(received.id)
                device.acknowledged(received)
                if len(got) == len(ids):
                    break
                self.becomes(received.id, "completed")
            device = self.device("taken", qos=1)
        self.becomes(ids[-1], "completed")

    def test_delivered_too_often(self):
        self.device("often", qos=None).socket.close()
        id = self.post("often", wants_reply=False)
        for count in range(1, 11):
            device = self.device("often", qos=1)
            self.assertEqual(device.called().id, id)
            self.becomes(id, str(count), "delivery_count")
            device.socket.close()
        self.becomes(id, "dead_lettered|10|delivered too often without an acknowledgement",
                     "state, delivery_count, reason")
        later = self.post("often")
        self.assertEqual(self.device("often", qos=1).called().id, later)
        wait_until(lambda: self.states("often", id) == ["queued"] + ["sent"] * 10 + ["dead_lettered"], 20)

    def test_expiry_is_counted_down(self):
        self.device("down", qos=None).socket.close()
        id = self.post("down")
        self.soon_over(id, 600)
        device = self.device("down", qos=1, clean=False, expiry=HOUR)
        self.assertIn(expiry_of(device.called()), range(570, 601))
        device.socket.close()
        self.becomes(id, "sent")
        time.sleep(1.1)
        device = self.device("down", qos=None, clean=False, expiry=HOUR)
        again = device.called()
        self.assertTrue(again.dup)
        self.assertIn(expiry_of(again), range(560, 600))

    def test_expires_while_away(self):
        """On a session that is kept, sent or not."""
        device = self.device("away", qos=1, clean=False, expiry=HOUR, properties=RECEIVE_MAXIMUM + b"\0\1")
        device.socket.close()
        sent, waiting, stays = (self.post("away", i) for i in range(3))
        for id in (sent, waiting):
            self.soon_over(id, 3)
        device = self.device("away", qos=None, clean=False, expiry=HOUR, properties=RECEIVE_MAXIMUM + b"\0\1")
        self.assertEqual(device.called().id, sent)
        self.becomes(sent, "sent")
        device.socket.close()
        for id in (sent, waiting):
            self.becomes(id, "expired|its time to live was over", "state, reason")
        device = self.device("away", qos=None, clean=False, expiry=HOUR)
        self.assertEqual(device.called().id, stays)
        self.assertEqual(self.states("away", sent), ["queued", "sent", "expired"])
        self.assertEqual(self.states("away", waiting), ["queued", "expired"])

    def test_expires_behind_a_window(self):
        device = self.device("window", qos=None, properties=RECEIVE_MAXIMUM + b"\0\1")
        first, second, third = (self.post("window", i) for i in range(3))
        self.soon_over(second, 2)
        device.send(subscribe(1, 5))
        self.assertEqual(device.read()[0] >> 4, SUBACK)
        received = device.called()
        self.assertEqual(received.id, first)
        self.becomes(second, "expired")
        device.acknowledged(received)
        self.assertEqual(device.called().id, third)
        self.assertEqual(self.states("window", second), ["queued", "expired"])

    def test_unsubscribed_and_subscribed(self):
        device = self.device("filter", qos=1)
        device.send(unsubscribe(FILTER))
        device.read()
        ids = [self.post("filter", i) for i in range(3)]
        self.becomes(ids[0], "queued|t", "state, holder is null")
        device.send(subscribe(1, 5))
        self.assertEqual(device.read()[0] >> 4, SUBACK)
        for id in ids:
            self.assertEqual(device.called().id, id)

    def test_unsubscribed_while_they_wait(self):
        """What is behind the window was on its way already; what comes later waits."""
        device = self.device("leaves", qos=1, properties=RECEIVE_MAXIMUM + b"\0\1")
        ids = [self.post("leaves", i) for i in range(3)]
        received = device.called()
        device.send(unsubscribe(FILTER))
        device.read()
        later = self.post("leaves", 3)
        self.becomes(later, "queued|t", "state, holder is null")
        device.acknowledged(received)
        self.assertEqual(device.called().id, ids[1])

    def test_refused(self):
        for qos, kind in ((1, PUBACK), (2, PUBREC)):
            device = self.device(f"refuses{qos}", qos=qos)
            id, later = self.post(device.name), self.post(device.name)
            device.send(acknowledge(kind, device.called().packet_id, 0x83))
            self.becomes(id, "rejected|the device has refused it in its acknowledgement", "state, reason")
            self.assertEqual(device.called().id, later)

    def test_too_large_for_the_device(self):
        device = self.device("small", qos=1, properties=MAXIMUM_PACKET_SIZE + struct.pack(">I", 300))
        id, later = self.post("small", "x" * 300), self.post("small", "y")
        self.becomes(id, "dead_lettered|the device does not take packets so large", "state, reason")
        self.assertEqual(device.called().id, later)

    def test_reply_that_is_hostile(self):
        """A content type that grows when it is written down; a reply that is not quite JSON; none at all."""
        device = self.device("hostile", qos=1)
        for payload, properties, want in (
                (b"1", CONTENT_TYPE + text('"' * 16000), 0x83),
                (b"x" * 33000, b"", 0x83),
                (b"1", CONTENT_TYPE + text('"' * 256), 0),
                (b"1", CONTENT_TYPE + text('"' * 257), 0x83),
                (b'{"a":0.1,"b":[1e400]}', b"", 0), (b'"\\u0000"', b"", 0), (b"\xff", b"", 0), (b"", b"", 0),
                (b"[" * 3000 + b"]" * 3000, b"", 0)):
            id = self.post("hostile")
            received = device.called()
            device.acknowledged(received)
            device.send(publish(f"$dg/replies/{id}/200", payload, 1, 9, 5, properties))
            first, body = device.read()
            self.assertEqual(first >> 4, PUBACK)
            self.assertEqual(body[2] if len(body) > 2 else 0, want, (payload[:20], properties[:20]))
            self.becomes(id, "completed" if want == 0 else "delivered")
        self.is_alive()

    def test_reply_stands_as_it_was_written(self):
        device = self.device("verbatim", qos=1)
        id = self.post("verbatim")
        received = device.called()
        device.acknowledged(received)
        device.reply(received, 200, b'{ "t": 0.1, "n": 12345678901234567890 }')
        self.becomes(id, "completed")
        wait_until(lambda: '{ "t": 0.1, "n": 12345678901234567890 }' in
                   self.gateway.consume(topic=f"{self.gateway.TENANT}.commands", format="%s\\n"), 20)

    def test_replied_before_the_acknowledgement(self):
        for qos in (1, 2):
            device = self.device(f"early{qos}", qos=qos)
            id, later = self.post(device.name), self.post(device.name)
            received = device.called()
            self.assertEqual(device.called().id, later)
            self.assertEqual(device.reply(received), 0)
            device.acknowledged(received)
            self.becomes(id, "completed")
            self.assertEqual(self.states(device.name, id), ["queued", "sent", "delivered", "completed"])

    def test_replied_before_it_is_sent_again(self):
        """To the delivery of an earlier session: nothing is said after the reply."""
        device = self.device("again", qos=1)
        first, second = self.post("again", 1), self.post("again", 2)
        self.assertEqual([device.called().id, device.called().id], [first, second])
        self.becomes(second, "sent")
        device.socket.close()
        device = self.device("again", qos=1, properties=RECEIVE_MAXIMUM + b"\0\1")
        received = device.called()
        self.assertEqual(received.id, first)
        device.send(publish(f"$dg/replies/{second}/200", b"1", 1, 5) + acknowledge(PUBACK, received.packet_id))
        self.becomes(second, "completed")
        wait_until(lambda: self.states("again", second)[-1:] == ["completed"], 20)
        self.assertEqual(self.states("again", second), ["queued", "sent", "delivered", "completed"])

    def test_replied_twice(self):
        device = self.device("twice", qos=1)
        self.post("twice")
        received = device.called()
        device.acknowledged(received)
        self.assertEqual(device.reply(received, 200), 0)
        self.assertEqual(device.reply(received, 500), 0)
        self.becomes(received.id, "completed|200", "state, reply_status")

    def test_reply_of_another_device(self):
        device, other = self.device("mine", qos=1), self.device("other", qos=1)
        self.post("mine")
        received = device.called()
        device.acknowledged(received)
        self.assertNotEqual(other.reply(received, 200), 0)
        self.becomes(received.id, "delivered")

    def test_reply_at_qos_0_delivery(self):
        device = self.device("qos0", qos=0)
        id = self.post("qos0", wants_reply=False)
        device.called()
        self.becomes(id, "sent|t", "state, is_final")
        self.assertEqual(self.states("qos0", id), ["queued", "sent"])




class Administration(DeliveryTest):
    def test_disabled_with_commands_in_flight(self):
        device = self.device("off", qos=1, properties=RECEIVE_MAXIMUM + b"\0\1")
        sent, waiting = self.post("off", 1), self.post("off", 2)
        self.assertEqual(device.called().id, sent)
        self.becomes(sent, "sent")
        patch = {"Content-Type": "application/merge-patch+json"}
        self.assertEqual(self.gateway.api("PATCH", self.path("off"), {"enabled": False}, patch)[0], 200)
        device.until_closed()
        wait_until(lambda: self.row(waiting, "state, holder is null") == "queued|t", 20)
        self.assertEqual(self.gateway.api("PATCH", self.path("off"), {"enabled": True}, patch)[0], 200)
        device = None

        def connects():
            nonlocal device
            try:
                device = self.device("off", qos=1)
            except AssertionError:
                return False
            return True

        wait_until(connects, 10)
        for id in (sent, waiting):
            again = device.called()
            self.assertEqual(again.id, id)
            device.acknowledged(again)

    def test_deleted_with_commands_in_flight(self):
        device = self.device("gone", qos=1, clean=False, expiry=HOUR)
        ids = [self.post("gone", i) for i in range(20)]
        received = [device.called() for _ in range(3)]
        device.acknowledged(received[0])
        self.assertIn(self.gateway.api("DELETE", self.path("gone"))[0], (200, 204))
        device.until_closed()
        self.assertEqual(self.gateway.sql(f"select count(*) from command where command_key >= {ids[0][1:]}"
                                          f" and command_key <= {ids[-1][1:]}"), "0")
        del self.keys["gone"]
        again = self.device("gone", qos=1)
        new = self.post("gone")
        self.assertEqual(again.called().id, new)
        wait_until(lambda: self.gateway.sql("select count(*) from stream_outbox") == "0", 20)

    def test_tenant_deleted_with_commands_in_flight(self):
        self.assertIn(self.gateway.api("PUT", "/v1/tenants/shortlived", {})[0], (200, 201))
        key = self.gateway.device("d", "shortlived")
        status, body, _ = self.gateway.api("POST", "/v1/tenants/shortlived/devices/d/commands",
                                           {"name": "a", "payload": 1})
        self.assertEqual(status, 202, body)
        device = CalledDevice.__new__(CalledDevice)
        from raw_mqtt import Raw
        Raw.__init__(device, self.gateway.MQTT_PORT, timeout=30)
        device.version = 5
        device.resumed("d@shortlived", key, client_id="d")
        device.send(subscribe(1, 5))
        device.read()
        self.assertEqual(device.called().id, body["command_id"])
        self.assertIn(self.gateway.api("DELETE", "/v1/tenants/shortlived/devices/d")[0], (200, 204))
        self.assertIn(self.gateway.api("DELETE", "/v1/tenants/shortlived")[0], (200, 204))
        device.until_closed()
        self.is_alive()
        wait_until(lambda: self.gateway.sql("select count(*) from stream_outbox") == "0", 20)


class Behind(DeliveryTest):
    """Devices behind gateway devices."""

    def child(self, name, *via):
        status, body, _ = self.gateway.api("PUT", self.path(name), {"via": list(via)})
        self.assertIn(status, (200, 201), body)

    def subscribes(self, device, *children, qos=1):
        for name in children:
            device.send(subscribe(qos, device.version, to=f"$dg/via/{name}/commands/#"))
            self.assertEqual(device.answer(SUBACK)[-1], qos)

    def replies(self, device, child, id, status=200, payload=b"1", qos=1):
        device.send(publish(f"$dg/via/{child}/$dg/replies/{id}/{status}", payload, qos, 11, device.version))
        first, body = device.read()
        self.assertEqual(first >> 4, PUBACK)
        return body[2] if len(body) > 2 else 0

    def test_every_qos_and_version(self):
        for version in (4, 5):
            for qos in (0, 1, 2):
                with self.subTest(version=version, qos=qos):
                    gw, child = f"gw{version}{qos}", f"ch{version}{qos}"
                    self.child(child, gw)
                    device = self.device(gw, version=version, qos=None)
                    self.subscribes(device, child, qos=qos)
                    id = self.post(child)
                    received = device.called()
                    self.assertEqual(received.topic, f"$dg/via/{child}/commands/{id}/reboot")
                    if version == 5:
                        self.assertIn(text(f"$dg/via/{child}/$dg/replies/{id}/200"), received.properties)
                        self.assertIn(b"\x09" + text(id), received.properties)
                    device.acknowledged(received)
                    self.assertEqual(self.replies(device, child, id), 0)
                    self.becomes(id, "completed")
                    self.assertEqual(self.states(child, id), ["queued", "sent", "delivered", "completed"])

    def test_waits_for_its_gateway_and_keeps_its_order(self):
        for name in ("w1", "w2"):
            self.child(name, "gww")
        ids = {name: [self.post(name, i) for i in range(10)] for name in ("w1", "w2")}
        device = self.device("gww", qos=None)
        self.subscribes(device, "w1", "w2")
        got = {"w1": [], "w2": []}
        for _ in range(20):
            received = device.called()
            name, id = received.topic.split("/")[2], received.topic.split("/")[4]
            got[name].append(id)
            device.acknowledged(received)
        self.assertEqual(got, ids)

    def test_session_goes_on(self):
        """The children of a session that is kept are asked for again, also after a restart."""
        self.child("kept1", "gwk")
        device = self.device("gwk", qos=None, clean=False, expiry=HOUR)
        self.subscribes(device, "kept1")
        device.socket.close()
        for restart in (False, True):
            id = self.post("kept1", restart)
            if restart:
                self.gateway.kill()
                self.gateway.up()
            device = self.device("gwk", qos=None, clean=False, expiry=HOUR)
            received = device.called()
            self.assertEqual(received.topic.split("/")[4], id)
            device.acknowledged(received)
            self.assertEqual(self.replies(device, "kept1", id), 0)
            self.becomes(id, "completed")
            device.socket.close()

    def test_not_acknowledged_before_the_connection_ended(self):
        self.child("cut1", "gwc")
        for clean in (True, False):
            device = self.device("gwc", qos=None, clean=clean, expiry=HOUR)
            self.subscribes(device, "cut1")
            id = self.post("cut1")
            device.called()
            self.becomes(id, "sent")
            device.socket.close()
            device = self.device("gwc", qos=None, clean=clean, expiry=HOUR)
            if clean:
                self.subscribes(device, "cut1")
            again = device.called()
            self.assertEqual((again.topic.split("/")[4], again.dup), (id, not clean))
            device.acknowledged(again)
            self.assertEqual(self.replies(device, "cut1", id), 0)
            self.becomes(id, f"completed|{2 if clean else 1}", "state, delivery_count")

    def test_newest_subscription_receives(self):
        self.child("shared", "gwa", "gwb")
        first = self.device("gwa", qos=None, properties=RECEIVE_MAXIMUM + b"\0\1")
        self.subscribes(first, "shared")
        ids = [self.post("shared", i) for i in range(3)]
        taken = first.called()
        self.assertEqual(taken.topic.split("/")[4], ids[0])
        self.becomes(ids[0], "sent")
        second = self.device("gwb", qos=None)
        self.subscribes(second, "shared")
        for id in ids:
            received = second.called()
            self.assertEqual(received.topic.split("/")[4], id)
            second.acknowledged(received)
        second.send(unsubscribe("$dg/via/shared/commands/#"))
        second.read()
        later = self.post("shared")
        self.becomes(later, "queued|t", "state, holder is null")
        self.subscribes(first, "shared")
        first.acknowledged(taken)  # its window was full
        self.assertEqual(first.called().topic.split("/")[4], later)

    def test_child_connects_itself_and_goes(self):
        self.child("roams", "gwr")
        status, body, _ = self.gateway.api("POST", self.path("roams") + "/credentials", {"name": "key", "kind": "key"})
        self.assertEqual(status, 201)
        self.keys["roams"] = body["key"]
        gateway = self.device("gwr", qos=None)
        self.subscribes(gateway, "roams")
        own = self.device("roams", qos=None)
        id = self.post("roams")
        received = gateway.called()
        self.assertEqual(received.topic.split("/")[4], id)
        gateway.acknowledged(received)
        own.send(subscribe(1, 5))
        own.read()
        later = self.post("roams")
        received = own.called()
        self.assertEqual(received.id, later)
        own.acknowledged(received)
        own.socket.close()
        last = self.post("roams")
        self.assertEqual(gateway.called().topic.split("/")[4], last)

    def test_what_is_taken_back_keeps_its_place_in_the_window(self):
        for qos in (1, 2):
            name = f"window{qos}"
            self.child(name, f"gw{name}")
            status, body, _ = self.gateway.api("POST", self.path(name) + "/credentials", {"name": "key", "kind": "key"})
            self.assertEqual(status, 201)
            self.keys[name] = body["key"]
            gateway = self.device(f"gw{name}", qos=1, properties=RECEIVE_MAXIMUM + b"\0\1")
            gateway.send(subscribe(qos, 5, to=f"$dg/via/{name}/commands/#"))
            gateway.read()
            id = self.post(name)
            taken = gateway.called()
            later = self.post(f"gw{name}")
            own = self.device(name, qos=1)
            self.assertEqual(own.called().id, id)
            gateway.socket.settimeout(1)
            with self.assertRaises(TimeoutError):
                gateway.exactly(1)
            gateway.socket.settimeout(30)
            gateway.acknowledged(taken)
            self.assertEqual(gateway.called().id, later)

    def test_may_not_be_spoken_for_any_more(self):
        self.child("lost", "gwl")
        device = self.device("gwl", qos=None, properties=RECEIVE_MAXIMUM + b"\0\1")
        self.subscribes(device, "lost")
        ids = [self.post("lost", i) for i in range(3)]
        received = device.called()
        self.becomes(ids[0], "sent")
        self.child("lost", "another")
        wait_until(lambda: device.published("$dg/via/lost/a") == 0x87, 10)
        device.acknowledged(received)
        self.becomes(ids[2], "queued|t", "state, holder is null")
        self.assertEqual(self.replies(device, "lost", ids[0]), 0x87)
        self.becomes(ids[0], "delivered")
        self.child("lost", "gwl")
        wait_until(lambda: device.published("$dg/via/lost/a") in (0, 0x10), 90)
        self.subscribes(device, "lost")
        self.assertEqual(device.called().topic.split("/")[4], ids[1])

    def test_method_of_a_child(self):
        self.child("called", "gwm")
        device = self.device("gwm", qos=None)
        self.subscribes(device, "called")
        call = Call(self.gateway, "called")
        received = device.called()
        id = received.topic.split("/")[4]
        self.assertEqual(received.topic, f"$dg/via/called/commands/{id}/reboot")
        self.assertIn(text(f"$dg/via/called/$dg/replies/{id}/200"), received.properties)
        device.acknowledged(received)
        device.send(publish(f"$dg/replies/{id}/200", b"1", 1, 3))
        self.assertNotEqual(device.read()[1][2:3], b"")
        self.assertEqual(self.replies(device, "called", id, 207, b'{"a":1}'), 0)
        self.assertEqual(call.result(), (200, {"status": 207, "payload": {"a": 1}}))

    def test_topic_map(self):
        path = f"/v1/tenants/{self.gateway.TENANT}/policy"
        rules = {"topic_map": {"in": [{"pattern": "nodes/{device}/done/{id}/{status}", "kind": "reply"}],
                               "out": {"via_command": "nodes/{device}/cmd/{id}/{name}"}}}
        self.assertEqual(self.gateway.api("PATCH", path, rules)[0], 200)
        self.addCleanup(self.gateway.api, "PATCH", path, {"topic_map": None})
        self.child("mapped", "gwt")
        device = self.device("gwt", qos=None)
        wait_until(lambda: device.send(subscribe(1, 5, to="nodes/mapped/cmd/#")).read()[1][-1] == 1, 10)
        id = self.post("mapped")
        received = device.called()
        self.assertEqual(received.topic, f"nodes/mapped/cmd/{id}/reboot")
        device.acknowledged(received)
        self.assertEqual(device.published(f"nodes/mapped/done/{id}/201", b"1"), 0)
        self.becomes(id, "completed|201", "state, reply_status")


if __name__ == "__main__":
    unittest.main()
