"""kill -9 and stop under load: everything acknowledged is in the stream, in order per device."""

import collections
import os
import signal
import subprocess
import tempfile
import unittest

from harness import Gateway, wait_until


def check_acknowledged(acknowledged, stored):
    """What is wrong: acknowledged numbers that are not stored, or first copies out of order."""
    faults = []
    for device, numbers in acknowledged.items():
        missing = set(numbers) - set(stored[device])
        if missing:
            faults.append(f"{device}: {len(missing)} acknowledged and not stored, e.g. {min(missing)}")
        first = list(dict.fromkeys(stored[device]))
        if first != sorted(first):
            faults.append(f"{device}: out of order")
    return faults


class Checker(unittest.TestCase):
    """The checker itself must be able to fail."""

    def test_loss_and_disorder_are_noticed(self):
        self.assertFalse(check_acknowledged({"d": [0, 1]}, {"d": [0, 1, 1, 2]}))
        self.assertTrue(check_acknowledged({"d": [0, 1]}, {"d": [0]}))
        self.assertTrue(check_acknowledged({"d": [0, 1]}, {"d": [1, 0]}))


class Load(unittest.TestCase):
    DEVICES = 8

    def run_load(self, interrupt, look=lambda gateway: None, seconds=15):
        gateway = Gateway("release")
        self.addCleanup(gateway.close)
        gateway.up()
        arguments = []
        for number in range(self.DEVICES):
            name = f"load{number}"
            arguments += [f"{name}@{gateway.TENANT}", gateway.device(name)]
        # Not a pipe: nobody reads while the gateway is being killed, and a full one stops the load.
        with tempfile.TemporaryFile("w+") as lines:
            publisher = subprocess.Popen(
                [os.path.join(os.path.dirname(gateway.build), "asan/tests/e2e/acked_publisher"),
                 gateway.MQTT_PORT, str(seconds), *arguments], stdout=lines, stderr=subprocess.PIPE, text=True)
            for _ in range(3):
                wait_until(lambda: gateway.metric("duragate_events_stored_total") > 500, 30)
                look(gateway)
                interrupt(gateway)
                gateway.up()
            _, states = publisher.communicate(timeout=120)
            lines.seek(0)
            output = lines.read()
        self.assertEqual(publisher.returncode, 0,
                         "not everything was acknowledged in the end:\n" + states + gateway.log()[-6000:])
        acknowledged = collections.defaultdict(list)
        for line in output.splitlines():
            user, number = line.split()
            acknowledged[user.split("@")[0]].append(int(number))
        stored = collections.defaultdict(list)
        for line in gateway.consume(format="%k %h|%s\\n").splitlines():
            if "ce_subject=load," in line:
                stored[line.split()[0]].append(int(line.rsplit("|", 1)[1]))
        self.assertEqual(len(acknowledged), self.DEVICES)
        self.assertGreater(sum(map(len, acknowledged.values())), 1000)
        self.assertEqual(check_acknowledged(acknowledged, stored), [])

    def test_kill_9(self):
        self.run_load(lambda gateway: gateway.kill(signal.SIGKILL))

    def test_stop_and_start_with_another_compression(self):
        """Batches of all codecs side by side in one store; a stock consumer reads them."""
        codecs = ["lz4", "zstd", "none"]
        compressed = []

        def interrupt(gateway):
            gateway.kill(signal.SIGTERM)
            gateway.environment["DURAGATE_CFG_STORAGE__COMPRESSION"] = codecs.pop(0)

        def look(gateway):
            compressed.append(gateway.metric('duragate_compression_bytes_total{direction="in"}'))

        self.run_load(interrupt, look)
        self.assertTrue(compressed[0] == 0 < min(compressed[1:]), compressed)


if __name__ == "__main__":
    unittest.main()
