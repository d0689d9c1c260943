"""From the build of the commit before to this one, under load: no acknowledged event is lost, and back."""

import collections
import glob
import os
import shutil
import signal
import struct
import subprocess
import time
import unittest

from harness import BUILDS, ROOT, AckedPublisher, Gateway, wait_until
from test_durability import check_acknowledged

DEVICES = 8
LOAD_SECONDS = 15


def git(*arguments):
    return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, timeout=60, check=False)


def build_before():
    """(tree, build) of the commit before; compiled once per commit."""
    commit = git("rev-parse", "--verify", "--quiet", "HEAD~1^{commit}").stdout.strip()
    if not commit:
        raise unittest.SkipTest("no commit before this one is here (a shallow checkout?): nothing to upgrade from")
    place = os.path.join(BUILDS, "before-" + commit[:12])
    tree, build = os.path.join(place, "tree"), os.path.join(place, "build")
    if not os.path.exists(os.path.join(place, "done")):
        for old in glob.glob(os.path.join(BUILDS, "before-*")):
            shutil.rmtree(old)
        os.makedirs(tree)
        with subprocess.Popen(["git", "-C", ROOT, "archive", commit], stdout=subprocess.PIPE) as archive:
            subprocess.run(["tar", "-x", "-C", tree], stdin=archive.stdout, timeout=60, check=True)
        for command in (["meson", "setup", build, tree, "--buildtype=release", "-Dtests=disabled"],
                        ["ninja", "-j2", "-C", build, "duragate"]):
            done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
            if done.returncode != 0:
                raise AssertionError(f"the commit before does not build: {done.stdout[-3000:]}{done.stderr[-3000:]}")
        with open(os.path.join(place, "done"), "w", encoding="ascii"):
            pass
    return tree, build


def schema_of(tree):
    return len(glob.glob(os.path.join(tree, "schemas/0*.sql")))


class Load:
    """Devices that publish, and a consumer group that reads, while the gateway under them changes."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.publisher = AckedPublisher(gateway, [f"load{number}" for number in range(DEVICES)], LOAD_SECONDS)
        self.consumers = [self.consume("live")]

    def consume(self, group):
        path = os.path.join(self.gateway.directory, f"{group}-{time.monotonic_ns()}")
        with open(path, "wb") as output:
            process = subprocess.Popen(
                ["kcat", "-F", os.path.join(self.gateway.var, "kcat.conf"), "-G", group, "-E", "-u", "-q", "-f",
                 "%p %o %k %h|%s\\n", "-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=6000",
                 self.gateway.TOPIC], stdout=output, stderr=subprocess.DEVNULL)
        return process, path

    def close(self):
        for process, _ in self.consumers:
            process.kill()
            process.wait()
        self.publisher.close()


def events(lines):
    """device -> numbers in their order, of what kcat printed as "... DEVICE HEADERS|NUMBER"."""
    numbers = collections.defaultdict(list)
    for line in lines:
        if "ce_subject=load," in line:
            numbers[line.split("|")[0].split()[-2]].append(int(line.rsplit("|", 1)[1]))
    return numbers


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        return file.read().rpartition("\n")[0].splitlines()


def offsets(lines):
    """partition -> offsets."""
    found = collections.defaultdict(list)
    for line in lines:
        partition, offset = line.split()[:2]
        found[int(partition)].append(int(offset))
    return found


class Upgrade(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tree, cls.build = build_before()
        # The rule holds from the commit on that states it.
        cls.is_rolling = schema_of(ROOT) - schema_of(cls.tree) <= 1 and os.path.exists(
            os.path.join(cls.tree, "docs/upgrade.md"))

    def start_before(self):
        gateway = Gateway(self.build)
        gateway.root = self.tree
        self.addCleanup(gateway.close)
        return gateway.up()

    def change(self, gateway):
        gateway.build, gateway.root = os.path.join(BUILDS, "release"), ROOT
        return gateway.up()

    def migrate(self, gateway):
        """The new release's, beside the old gateway; without one of its own, as the next one will do."""
        password = os.path.join(gateway.var, "registry.password")
        done = subprocess.run([os.path.join(BUILDS, "release/duragate"), "migrate", "--config",
                               os.path.join(gateway.var, "duragate.yaml")], capture_output=True, text=True, timeout=60,
                              env=dict(os.environ, DURAGATE_CFG_REGISTRY__PASSWORD_FILE=password), check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        if schema_of(ROOT) == schema_of(self.tree):
            gateway.sql(f"alter table device add column later text not null default ''; "
                        f"insert into schema_migration values ({schema_of(ROOT) + 1}, 'later', 'x')")

    def commit_some(self, load):
        """A group that reads for a while and leaves; partition -> offset behind what it read."""
        process, path = load.consume("kept")
        load.consumers.append((process, path))
        wait_until(lambda: len(read_lines(path)) > 500, 30)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        return {partition: max(found) + 1 for partition, found in offsets(read_lines(path)).items()}

    def check_group(self, load, committed):
        """The group goes on where it had committed, behind the upgrade."""
        process, path = load.consume("kept")
        load.consumers.append((process, path))
        wait_until(lambda: set(offsets(read_lines(path))) >= set(committed), 30)
        first = {partition: min(found) for partition, found in offsets(read_lines(path)).items()}
        self.assertEqual({partition: first[partition] for partition in committed}, committed)

    def check_all(self, load):
        acknowledged = load.publisher.acknowledged()
        self.assertEqual(len(acknowledged), DEVICES)
        self.assertGreater(sum(map(len, acknowledged.values())), 1000)
        stored = events(load.gateway.consume(format="%k %h|%s\\n").splitlines())
        self.assertEqual(check_acknowledged(acknowledged, stored), [])
        live = load.consumers[0][1]
        wait_until(lambda: not check_read(acknowledged, events(read_lines(live))), 30)

    def wait_for_load(self, gateway):
        wait_until(lambda: gateway.metric("duragate_events_stored_total") > 500, 30)

    def run_upgrade(self, number):
        gateway = self.start_before()
        load = Load(gateway)
        self.addCleanup(load.close)
        self.wait_for_load(gateway)
        committed = self.commit_some(load)
        if self.is_rolling:
            self.migrate(gateway)
            gateway.device("made-meanwhile")  # the old gateway works on the new schema,
            gateway.kill(number)
            gateway.up()  # and starts on it
            self.wait_for_load(gateway)
        gateway.kill(number)
        self.change(gateway)
        self.wait_for_load(gateway)
        self.check_all(load)
        self.check_group(load, committed)

    def test_stop(self):
        self.run_upgrade(signal.SIGTERM)

    def test_kill_9(self):
        self.run_upgrade(signal.SIGKILL)

    def test_back(self):
        """The release before opens what this one has written, unless the format's number has changed."""
        gateway = self.start_before()
        made = format_of(gateway)
        gateway.kill(signal.SIGTERM)
        self.change(gateway)
        for number in range(20):
            gateway.publish("-q", "1", "-t", "load", "-m", str(number))
        is_same = format_of(gateway) == made
        gateway.kill(signal.SIGTERM)
        gateway.build, gateway.root = self.build, self.tree
        if not (is_same and self.is_rolling):
            with self.assertRaises(AssertionError):
                gateway.up()
            self.assertRegex(gateway.log(), "start the release that wrote it|install the newer release")
            return
        gateway.up()
        gateway.publish("-q", "1", "-t", "load", "-m", "20")
        stored = events(gateway.consume(format="%k %h|%s\\n").splitlines())
        self.assertEqual(stored[gateway.DEVICE], list(range(21)))


def check_read(acknowledged, read):
    """Acknowledged events that a consumer has not read."""
    return [device for device, numbers in acknowledged.items() if set(numbers) - set(read[device])]


def format_of(gateway):
    with open(os.path.join(gateway.var, "stream/format"), "rb") as file:
        return struct.unpack("<I", file.read(12)[8:])[0]


if __name__ == "__main__":
    unittest.main()
