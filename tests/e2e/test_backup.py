"""duragate backup: what interrupts it leaves no half backup and a gateway that goes on."""

import json
import os
import signal
import subprocess
import tempfile
import unittest

from harness import Gateway, wait_until


class Backup(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway("release").up()
        with tempfile.NamedTemporaryFile(dir=cls.gateway.directory) as payload:
            payload.write(os.urandom(250_000))
            payload.flush()
            for _ in range(12):
                cls.gateway.publish("-q", "1", "-t", "t", "-f", payload.name)

    @classmethod
    def tearDownClass(cls):
        cls.gateway.close()

    def setUp(self):
        self.directory = tempfile.mkdtemp(dir=self.gateway.directory)

    def start(self, *arguments, directory=None):
        return subprocess.Popen(
            [os.path.join(self.gateway.build, "duragate"), "backup", "--config",
             os.path.join(self.gateway.var, "duragate.yaml"), *arguments, directory or self.directory],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def backup(self, *arguments, code=0, directory=None):
        process = self.start(*arguments, directory=directory)
        output, errors = process.communicate(timeout=120)
        self.assertEqual(process.returncode, code, output + errors)
        return output + errors

    def expect_healthy(self):
        self.assertEqual(self.gateway.publish("-q", "1", "-t", "t", "-m", "still").returncode, 0)

    def test_killed_in_the_middle(self):
        process = self.start("--mib-per-second", "1")
        wait_until(lambda: any(name.endswith(".log") for _, _, names in os.walk(self.directory) for name in names), 30)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        left = os.listdir(self.directory)
        self.assertTrue(left and left[0].endswith(".partial"), left)
        self.expect_healthy()
        done = json.loads(self.backup("--json"))
        self.assertEqual(os.listdir(self.directory), [os.path.basename(done["backup"])])
        self.assertGreater(done["copied_bytes"], 3_000_000)
        self.assertTrue(os.path.exists(os.path.join(done["backup"], "manifest.json")))

    def test_only_the_newest_are_kept(self):
        made = []
        for _ in range(3):
            made.append(json.loads(self.backup("--json", "--no-registry", "--keep", "2"))["backup"])
        self.assertEqual(sorted(os.listdir(self.directory)), [os.path.basename(name) for name in made[1:]])

    def test_not_into_the_store(self):
        store = os.path.join(self.gateway.var, "stream")
        before = sorted(os.listdir(store))
        for directory in (store, os.path.join(store, "backups")):
            self.assertIn("lies in the store itself", self.backup("--no-registry", code=69, directory=directory))
        self.assertEqual(sorted(os.listdir(store)), before)

    def test_the_one_just_made_is_kept(self):
        """Also beside one of a day on which the clock was wrong."""
        os.mkdir(os.path.join(self.directory, "20991231T000000Z"))
        done = json.loads(self.backup("--json", "--keep", "1"))
        self.assertTrue(os.path.exists(os.path.join(done["backup"], "manifest.json")))

    def test_without_postgresql_there_is_none(self):
        environment = "DURAGATE_CFG_REGISTRY__CONNINFO"
        os.environ[environment] = "host=/nowhere dbname=duragate"
        try:
            self.assertIn("--no-registry", self.backup(code=1))
        finally:
            del os.environ[environment]
        self.assertEqual(os.listdir(self.directory), [])
        self.expect_healthy()

    @unittest.skipUnless(os.geteuid() == 0, "mounts a small file system")
    def test_full_disk(self):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", self.directory], check=True)
        self.addCleanup(subprocess.run, ["umount", self.directory], check=True)
        self.assertIn("No space left", self.backup("--set", "storage.reserve=0", code=1))
        self.assertEqual(os.listdir(self.directory), [], "what fills the disk is gone")
        self.expect_healthy()

    @unittest.skipUnless(os.geteuid() == 0, "changes an owner")
    def test_another_users_store_is_left_alone(self):
        store = os.path.join(self.directory, "stream")
        os.mkdir(store)
        os.chown(store, 65534, 65534)
        made = json.loads(self.backup("--json", "--no-registry"))["backup"]
        for command in (["storage", "repair", "--apply", store],
                        ["restore", "--no-registry", "--set", f"storage.directory={store}", made]):
            done = subprocess.run([os.path.join(self.gateway.build, "duragate"), *command], capture_output=True,
                                  text=True, timeout=60, check=False)
            self.assertEqual(done.returncode, 77, done.stdout + done.stderr)
            self.assertIn("belongs to user 65534", done.stderr)
        self.assertEqual(os.listdir(store), [])

    def test_one_at_a_time(self):
        process = self.start("--mib-per-second", "1")
        wait_until(lambda: os.listdir(self.directory), 30)
        self.assertIn("another backup", self.backup(code=69))
        output, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, output + errors)


if __name__ == "__main__":
    unittest.main()
