"""kill -9 and stop under load: everything acknowledged is in the stream, in order per device."""

import collections
import signal
import unittest

from harness import AckedPublisher, Gateway, wait_until


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
        publisher = AckedPublisher(gateway, [f"load{number}" for number in range(self.DEVICES)], seconds)
        self.addCleanup(publisher.close)
        for _ in range(3):
            wait_until(lambda: gateway.metric("duragate_events_stored_total") > 500, 30)
            look(gateway)
            interrupt(gateway)
            gateway.up()
        acknowledged = publisher.acknowledged()
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
