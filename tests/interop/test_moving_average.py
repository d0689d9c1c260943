"""deploy/examples/flink-moving-average in Flink's own small cluster, against the gateway."""

import glob
import os
import signal
import subprocess
import unittest

from clients import ROOT, build_maven, chosen, prepare

import moving_average
from harness import Gateway, wait_until

PROCESSOR = "flink"


@unittest.skipUnless(chosen("flink"), "not chosen")
class FlinkMovingAverage(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = prepare(os.path.join(ROOT, "deploy/examples/flink-moving-average"), build_maven)
        cls.gateway = Gateway().up()
        cls.keys = {device: cls.gateway.device(device) for device in moving_average.SERIES}
        cls.key = cls.gateway.device(PROCESSOR)

    @classmethod
    def tearDownClass(cls):
        cls.gateway.close()

    def start(self, *arguments):
        checkpoints = os.path.join(self.gateway.directory, "checkpoints")
        return subprocess.Popen(
            ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dcheckpoints=" + checkpoints,
             "-cp", "target/classes:target/lib/*",
             "duragate.examples.MovingAverageJob", *arguments], cwd=self.directory,
            env={**os.environ, **self.gateway.env, "DURAGATE_PROCESSOR": PROCESSOR, "DURAGATE_PROCESSOR_KEY": self.key},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run_once(self):
        with self.start("--once") as process:
            output = process.communicate(timeout=120)[0]
            self.assertEqual(process.returncode, 0, output[-5000:])

    def seen(self):
        return moving_average.alerts(self.gateway, PROCESSOR)

    def checkpoints(self):
        found = glob.glob(os.path.join(self.gateway.directory, "checkpoints/*/chk-*/_metadata"))
        return sorted((os.path.dirname(path) for path in found), key=os.path.getmtime)

    def test_alerts_are_right_and_the_same_after_a_replay(self):
        start = moving_average.start_time()
        expected = moving_average.expected(start)
        moving_average.publish(self.gateway, start, self.keys)
        self.run_once()
        seen = self.seen()
        self.assertEqual(sorted(alert["id"] for _, _, alert in seen), expected)
        self.assertEqual({kind for kind, _, _ in seen}, {"duragate.event.v1"})
        for _, identity, alert in seen:
            self.assertEqual(identity, alert["id"])
            self.assertGreater(alert["average"], alert["threshold"])
        self.run_once()
        self.assertEqual(sorted(identity for _, identity, _ in self.seen()), sorted(expected * 2))

        with self.start() as job:  # a third time, and it is killed
            wait_until(lambda: len(self.seen()) == 3 * len(expected) and self.checkpoints(), 90)
            job.send_signal(signal.SIGKILL)
            job.communicate()
        later = start + moving_average.LENGTH
        moving_average.publish(self.gateway, later, self.keys)
        with self.start("--recover", self.checkpoints()[-1]) as job:
            wait_until(lambda: {i for _, i, _ in self.seen()} >= set(moving_average.expected(later)), 90)
            job.send_signal(signal.SIGKILL)
            job.communicate()
        self.assertEqual({identity for _, identity, _ in self.seen()},
                         {*expected, *moving_average.expected(later)})


if __name__ == "__main__":
    unittest.main()
