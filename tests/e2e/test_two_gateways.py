"""Two gateways with streams of their own on one registry: a command reaches its device wherever that is."""

import json
import unittest

from called_device import CalledDevice, subscribe
from harness import Gateway, SecondGateway, wait_until

HOUR = 3600


class TwoGatewaysTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.a = Gateway(settings={"DURAGATE_CFG_SERVER__WORKERS": "2"})
        cls.addClassCleanup(cls.a.close)
        cls.a.up()
        cls.b = SecondGateway(cls.a)
        cls.addClassCleanup(cls.b.close)
        cls.b.up()
        cls.keys = {}

    def device(self, gateway, name, **more):
        if name not in self.keys:
            self.keys[name] = self.a.device(name)
        device = CalledDevice(gateway, name, key=self.keys[name], **more)
        self.addCleanup(device.socket.close)
        return device

    def post(self, gateway, device, payload=1, **more):
        status, body, _ = gateway.api("POST", f"/v1/tenants/{gateway.TENANT}/devices/{device}/commands",
                                      {"name": "reboot", "payload": payload, **more})
        self.assertEqual(status, 202, body)
        return body["command_id"]

    def becomes(self, id, want, columns="state", seconds=20):
        wait_until(lambda: self.a.sql(f"select {columns} from command where command_key = {id[1:]}") == want, seconds)

    def states(self, gateway, id):
        lines = gateway.consume(topic=f"{gateway.TENANT}.commands", format="%s\\n").splitlines()
        return [event["state"] for event in map(json.loads, lines) if event["command_id"] == id]

    def said(self, gateway, id, *states):
        wait_until(lambda: self.states(gateway, id) == list(states), 20)


class Moving(TwoGatewaysTest):
    def test_reaches_a_device_elsewhere(self):
        """Whoever causes something says it: each state is in one of the two streams."""
        device = self.device(self.b, "there")
        id = self.post(self.a, "there")
        received = device.called()
        self.assertEqual(received.id, id)
        device.acknowledged(received)
        self.becomes(id, "delivered")
        self.assertEqual(device.reply(received, 201, b"1"), 0)
        self.becomes(id, "completed|201|t", "state, reply_status, holder is null")
        self.said(self.a, id, "queued")
        self.said(self.b, id, "sent", "delivered", "completed")

    def test_order_of_many(self):
        device = self.device(self.b, "many")
        ids = [self.post((self.a, self.b)[i % 2], "many", i, wants_reply=False) for i in range(40)]
        for id in ids:
            received = device.called()
            self.assertEqual(received.id, id)
            device.acknowledged(received)
        self.becomes(ids[-1], "completed")

    def test_moves_with_what_it_has_not_acknowledged(self):
        for clean in (True, False):
            name = f"moves{clean}"
            device = self.device(self.a, name, clean=clean, expiry=HOUR)
            ids = [self.post(self.a, name, i) for i in range(30)]
            self.assertEqual(device.called().id, ids[0])
            self.becomes(ids[0], "sent")
            device.socket.close()
            device = self.device(self.b, name)
            for id in ids:
                received = device.called()
                self.assertEqual((received.id, received.dup), (id, False))
                device.acknowledged(received)
                self.assertEqual(device.reply(received, qos=0), 0)
            for id in (ids[0], ids[-1]):
                self.becomes(id, "completed")
            device.socket.close()

    def test_moves_between_delivery_and_reply(self):
        device = self.device(self.a, "between")
        id = self.post(self.b, "between")
        received = device.called()
        device.acknowledged(received)
        self.becomes(id, "delivered")
        device.socket.close()
        device = self.device(self.b, "between")
        self.assertEqual(device.reply(received, 200), 0)
        self.becomes(id, "completed|t", "state, holder is null")
        self.said(self.b, id, "queued", "completed")

    def test_child_moves_with_its_gateway_device(self):
        status, body, _ = self.a.api("PUT", f"/v1/tenants/{self.a.TENANT}/devices/sensor", {"via": ["hub"]})
        self.assertIn(status, (200, 201), body)
        device = self.device(self.a, "hub", qos=None, clean=False, expiry=HOUR)
        device.send(subscribe(1, 5, to="$dg/via/sensor/commands/#")).read()
        ids = [self.post(self.a, "sensor", i) for i in range(3)]
        device.called()
        self.becomes(ids[0], "sent")
        device.socket.close()
        device = self.device(self.b, "hub", qos=None)
        device.send(subscribe(1, 5, to="$dg/via/sensor/commands/#")).read()
        for id in ids:
            received = device.called()
            self.assertEqual(received.topic.split("/")[4], id)
            device.acknowledged(received)
            self.becomes(id, "delivered")

    def test_notices_are_lost(self):
        device = self.device(self.b, "deaf")
        self.a.sql("select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'listen%'")
        id = self.post(self.a, "deaf")
        received = device.called()
        self.assertEqual(received.id, id)
        device.acknowledged(received)


class OneDies(TwoGatewaysTest):
    def test_killed_with_commands_in_hand(self):
        """What it held is taken over when its lease is over, what it had to say is said by another."""
        device = self.device(self.a, "left", clean=False, expiry=HOUR)
        ids = [self.post(self.a, "left", i) for i in range(5)]
        received = device.called()
        self.becomes(ids[0], "sent")
        device.acknowledged(received)
        self.becomes(ids[0], "delivered")
        a = self.a.sql(f"select holder from command where command_key = {ids[0][1:]}")
        self.a.kill()
        device = self.device(self.b, "left")
        device.socket.settimeout(1)
        with self.assertRaises(TimeoutError):
            device.exactly(1)
        device.socket.settimeout(30)
        self.a.sql(f"update gateway_instance set lease_until = now() - interval '10 minutes' where instance = '{a}'")
        self.a.sql("insert into stream_outbox (instance, tenant_key, device_key, kind, command_key) select "
                   f"'{a}', tenant_key, device_key, 'command.queued', command_key from command where command_key = {ids[4][1:]}")
        for id in ids[1:]:
            again = device.called()
            self.assertEqual(again.id, id)
            device.acknowledged(again)
        self.assertEqual(device.reply(received, 200), 0)
        self.becomes(ids[0], "completed")
        wait_until(lambda: self.states(self.b, ids[4])[-3:].count("queued") == 1, 30)
        wait_until(lambda: self.b.sql("select count(*) from stream_outbox") == "0", 30)
        self.a.up()
        self.post(self.a, "left")


if __name__ == "__main__":
    unittest.main()
