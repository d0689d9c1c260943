"""Consumer groups with stock clients: shared work, members that come and go, offsets that last."""

import contextlib
import os
import signal
import subprocess
import tempfile
import unittest

from harness import Gateway, wait_until


class Consumer:
    """kcat as a member of a group; its output goes to a file."""

    def __init__(self, gateway, group, *settings):
        self.output = tempfile.NamedTemporaryFile(dir=gateway.directory, delete=False)
        arguments = [part for setting in settings for part in ("-X", setting)]
        self.process = subprocess.Popen(
            ["kcat", "-F", os.path.join(gateway.var, "kcat.conf"), "-G", group, "-u", "-q", "-f", "%p %o %s\\n",
             "-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=6000", *arguments, gateway.TOPIC],
            stdout=self.output, stderr=subprocess.DEVNULL)

    def lines(self):
        """Whole ones: kcat may be in the middle of one."""
        with open(self.output.name, encoding="utf-8") as file:
            return file.read().rpartition("\n")[0].splitlines()

    def values(self):
        return [line.split(" ", 2)[2] for line in self.lines() if line.split(" ", 2)[2].startswith("m")]

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        self.process.wait(30)
        self.output.flush()


class Groups(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway().up()
        cls.devices = {f"dev{i}": None for i in range(12)}
        for device in cls.devices:
            cls.devices[device] = cls.gateway.device(device)
        cls.count = 0

    @classmethod
    def tearDownClass(cls):
        cls.gateway.close()

    def publish(self, count):
        """Returns the values published, spread over the devices and so over partitions."""
        values = []
        for _ in range(count):
            device = f"dev{type(self).count % len(self.devices)}"
            values.append(f"m{type(self).count}")
            type(self).count += 1
            self.gateway.publish("-q", "1", "-t", "t", "-m", values[-1], device=device, key=self.devices[device])
        return values

    def test_members_come_and_go(self):
        consumers = [Consumer(self.gateway, "coming-and-going")]
        try:
            sent = self.publish(24)
            wait_until(lambda: set(consumers[0].values()) >= set(sent), 30)
            consumers += [Consumer(self.gateway, "coming-and-going") for _ in range(2)]

            def all_values():
                return {value for consumer in consumers for value in consumer.values()}

            def shared():
                sent.extend(self.publish(12))
                return all(consumer.values() for consumer in consumers)

            wait_until(shared, 60)
            wait_until(lambda: all_values() >= set(sent), 60)
            consumers[1].stop(signal.SIGKILL)  # its session runs out
            consumers[2].stop()  # leaves
            sent += self.publish(24)
            wait_until(lambda: all_values() >= set(sent), 60)
            self.assertEqual(len(consumers[0].lines()), len(set(consumers[0].lines())), "one member got records twice")
        finally:
            for consumer in consumers:
                if consumer.process.poll() is None:
                    consumer.stop()

    def test_offsets_survive_clients_and_gateway(self):
        sent = self.publish(12)
        first = Consumer(self.gateway, "lasting")
        wait_until(lambda: set(first.values()) >= set(sent), 30)
        first.stop()  # commits
        self.gateway.kill(signal.SIGKILL)
        self.gateway.up()
        more = self.publish(6)
        second = Consumer(self.gateway, "lasting")
        wait_until(lambda: set(second.values()) >= set(more), 30)
        second.stop()
        self.assertFalse(set(second.values()) & set(sent))


class Retention(unittest.TestCase):
    def test_offsets_that_nobody_uses_are_forgotten(self):
        with contextlib.closing(Gateway(settings={"DURAGATE_CFG_KAFKA__OFFSETS_RETENTION": "5s"}).up()) as gateway:
            gateway.publish("-q", "1", "-t", "t", "-m", "m1")
            path = f"/v1/tenants/{gateway.TENANT}/consumer-groups/"
            staying, leaving = Consumer(gateway, "staying"), Consumer(gateway, "leaving")
            try:
                wait_until(lambda: staying.values() and leaving.values(), 30)
                leaving.stop()  # commits
                self.assertEqual(gateway.api("GET", path + "leaving")[0], 200)
                wait_until(lambda: gateway.api("GET", path + "leaving")[0] == 404, 30)
                self.assertIn("event=kafka.offsets_expired", gateway.log())
                gateway.kill(signal.SIGKILL)
                gateway.up()
                self.assertEqual(gateway.api("GET", path + "leaving")[0], 404)
                status, group, _ = gateway.api("GET", path + "staying")
                self.assertEqual(status, 200, group)
            finally:
                staying.stop()
                if leaving.process.poll() is None:
                    leaving.stop()


if __name__ == "__main__":
    unittest.main()
