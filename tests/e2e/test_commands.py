"""Commands that back ends queue: delivered, replied to, and what the stream and HTTP say of them."""

import json
import os
import subprocess
import threading
import time
import unittest

from called_device import PUBREL, CalledDevice, Received, acknowledge
from harness import Gateway, wait_until
from raw_mqtt import PUBACK, PUBCOMP, PUBREC, Raw


class CommandsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway(settings={"DURAGATE_CFG_SERVER__WORKERS": "2"}).up()
        cls.addClassCleanup(cls.gateway.close)
        cls.keys = {}

    def device(self, name, **more):
        if name not in self.keys:
            self.keys[name] = self.gateway.device(name)
        device = CalledDevice(self.gateway, name, key=self.keys[name], **more)
        self.addCleanup(device.socket.close)
        return device

    def post(self, device, name="reboot", payload={"delay": 1}, **more):
        status, body, _ = self.gateway.api("POST", f"/v1/tenants/{self.gateway.TENANT}/devices/{device}/commands",
                                           json.dumps({"name": name, "payload": payload, **more}).encode(),
                                           {"Content-Type": "application/json"})
        self.assertEqual(status, 202, body)
        return body["command_id"]

    def events(self, device):
        """(command id, state) of a device's commands, in the order of the stream."""
        lines = self.gateway.consume(topic=f"{self.gateway.TENANT}.commands", format="%k %s\\n").splitlines()
        found = [json.loads(line.split(" ", 1)[1]) for line in lines if line.split(" ", 1)[0] == device]
        return [(event["command_id"], event["state"]) for event in found]

    def states(self, device, id):
        return [state for of, state in self.events(device) if of == id]


class Native(CommandsTest):
    def test_connected(self):
        for version in (4, 5):
            for qos in (0, 1, 2):
                with self.subTest(version=version, qos=qos):
                    device = self.device(f"c{qos}v{version}", version=version, qos=qos)
                    id = self.post(device.name)
                    received = device.called()
                    self.assertEqual(received.topic, f"$dg/commands/{id}/reboot")
                    self.assertEqual(json.loads(received.payload), {"delay": 1})
                    device.acknowledged(received)
                    self.assertEqual(device.reply(received, 200, b'{"done":1.5}', qos), 0)
                    want = ["queued", "sent", "delivered", "completed"]
                    wait_until(lambda: self.states(device.name, id) == want, 20)
                    wait_until(lambda: self.gateway.sql("select state, is_final, holder is null, delivery_count, reply_status, "
                                                        f"convert_from(reply, 'UTF8') from command where command_key = {id[1:]}")
                               == 'completed|t|t|1|200|{"done":1.5}', 20)
                    wait_until(lambda: self.gateway.sql("select count(*) from stream_outbox") == "0", 20)

    def test_offline_then_connected(self):
        self.keys["away"] = self.gateway.device("away")
        ids = [self.post("away", payload=i) for i in range(40)]
        device = self.device("away", version=5, qos=1)
        for number, id in enumerate(ids):
            received = device.called()
            self.assertEqual((received.id, received.payload), (id, b"%d" % number))
            device.acknowledged(received)
            device.reply(received, 400 if number % 2 else 204, b"", 0)
        for number, id in enumerate(ids):
            wait_until(lambda: self.states("away", id)[-1] == ("rejected" if number % 2 else "completed"), 20)

    def test_no_reply_wanted(self):
        device = self.device("mute", version=5, qos=1)
        id = self.post("mute", wants_reply=False)
        device.acknowledged(device.called())
        wait_until(lambda: self.states("mute", id) == ["queued", "sent", "delivered", "completed"], 20)

    def test_acknowledged_after_the_lease(self):
        """The gateway slept, and what it held is nobody's: what its device says then still counts."""
        device = self.device("slept", version=5, qos=1)
        id = self.post("slept")
        received = device.called()
        row = f"from command where command_key = {id[1:]}"
        wait_until(lambda: self.gateway.sql("select state " + row) == "sent", 20)
        self.gateway.sql(f"update command set holder = null where command_key = {id[1:]}")
        device.acknowledged(received)
        wait_until(lambda: self.gateway.sql("select state " + row) == "delivered", 20)
        self.assertEqual(device.reply(received), 0)
        wait_until(lambda: self.gateway.sql("select state " + row) == "completed", 20)

    def test_killed_before_the_reply(self):
        device = self.device("killed", version=5, qos=1)
        id, later = self.post("killed"), self.post("killed")
        received = device.called()
        device.acknowledged(received)
        wait_until(lambda: self.states("killed", id) == ["queued", "sent", "delivered"], 20)
        self.gateway.kill()
        self.gateway.up()
        device = self.device("killed", version=5, qos=1)
        again = device.called()
        self.assertEqual(again.id, later)
        self.assertEqual(device.reply(received, 200, b"1", 1), 0)
        wait_until(lambda: self.states("killed", id) == ["queued", "sent", "delivered", "completed"], 20)
        self.assertIn(self.states("killed", later), (["queued", "sent"], ["queued", "sent", "sent"]))


if __name__ == "__main__":
    unittest.main()
