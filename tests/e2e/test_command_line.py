"""What the command line says to who is new to it: of refusals, of what is not there, of names from outside."""

import json
import os
import shutil
import subprocess
import time
import unittest

from harness import Gateway, BUILDS
from raw_mqtt import Raw

CONTROL = "\x1b[2J"


class Words(unittest.TestCase):
    """What needs no gateway."""

    def run_duragate(self, *arguments, code, output="", error=""):
        done = subprocess.run([os.path.join(BUILDS, "asan", "duragate"), *arguments],
                              env={"PATH": os.environ["PATH"]}, capture_output=True, text=True,
                              timeout=60, check=False)
        self.assertEqual(done.returncode, code, (arguments, done.stdout, done.stderr))
        self.assertIn(output, done.stdout)
        self.assertIn(error, done.stderr)
        return done.stdout

    def test_a_group_lists_its_commands(self):
        for group, command in (("stream", "stream delete-group GROUP"), ("storage", "storage verify"),
                               ("tenant", "tenant list"), ("device", "device simulate"),
                               ("credential", "credential create"), ("job", "job start JOB"), ("admin", "admin create-key")):
            self.run_duragate(group, "--help", code=0, output=command)
            self.run_duragate(group, code=64, error=command)
            self.run_duragate(group, "nonsense", code=64, error=f"no command '{group} nonsense'")
        self.run_duragate("nonsense", code=64, error="see duragate --help")

    def test_help(self):
        self.assertEqual(self.run_duragate("completion", "--help", code=0).count("--help"), 1)
        text = self.run_duragate("tail", "--help", code=0, output="DURAGATE_KAFKAS_PORT")
        self.assertNotIn("DURAGATE_MQTTS_PORT", text)
        self.assertNotIn("DURAGATE_DEVICE", text)
        self.run_duragate("device", "simulate", "--help", code=0, output="DURAGATE_MQTTS_PORT")

    def test_settings(self):
        self.run_duragate("stream", "topics", "--env", "/tmp", code=64, error="/tmp: Is a directory")
        self.run_duragate("stream", "reset", "g", "--to", "--env", "x", code=64, error="--to needs a value")
        self.run_duragate("stream", "topics", "--url", "http://127.0.0.1:1", code=69,
                          error="is the gateway running?")

    def test_names_without_a_path(self):
        for name, why in (("a/b", "contains '/'"), ("a\\b", "contains '\\'"), ("..", "means a directory"),
                          ("", "is empty"), (CONTROL, "'\\x1b[2J' contains a control character")):
            self.run_duragate("stream", "group", name, code=64, error=why)
            self.run_duragate("device", "show", name, code=64, error=why)
            self.run_duragate("device", "why", name, code=64, error=why)
        self.run_duragate("stream", "lag", "a/b", code=64, error="use a Kafka admin client")
        self.run_duragate("credential", "show", "d", "a/b", code=64, error="NAME 'a/b' contains '/'")
        self.run_duragate("device", "list", "--tenant", "a/b", code=64, error="tenant 'a/b' contains '/'")


class CommandLine(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway().up()

    @classmethod
    def tearDownClass(cls):
        cls.gateway.close()

    def run_duragate(self, *arguments, code=0, error="", **environment):
        done = subprocess.run([os.path.join(self.gateway.build, "duragate"), *arguments],
                              env={**os.environ, **self.gateway.env, **environment}, capture_output=True,
                              text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, code, (arguments, done.stdout, done.stderr))
        self.assertIn(error, done.stderr)
        return done.stdout

    def test_simulate_over_a_quota(self):
        tenant, key = f"/v1/tenants/{self.gateway.TENANT}", self.gateway.device("second")
        device = Raw(self.gateway.MQTT_PORT)
        self.addCleanup(device.socket.close)
        device.resumed(self.gateway.MQTT_USER, self.gateway.DEVICE_KEY, client_id="first", version=5)
        self.assertEqual(self.gateway.api("PATCH", tenant, {"quota": {"connections": 1}})[0], 200)
        self.addCleanup(self.gateway.api, "PATCH", tenant, {"quota": None})
        time.sleep(1)
        self.run_duragate("device", "simulate", "--device", "second", "--count", "1", code=69,
                          error="busy, or a quota", DURAGATE_DEVICE_KEY=key)

    def test_create_leaves_what_is_there(self):
        self.run_duragate("device", "create", "twice", "--data", '{"tags":{"floor":"2"}}')
        self.run_duragate("device", "disable", "twice")
        self.run_duragate("device", "create", "twice", code=1, error="device 'twice' is there already; `duragate device update`")
        shown = json.loads(self.run_duragate("device", "show", "twice", "--json"))
        self.assertEqual((shown["enabled"], shown["tags"]), (False, {"floor": "2"}))
        self.run_duragate("tenant", "create", self.gateway.TENANT, code=1, error="is there already")

    def test_tail_says_what_is_wrong(self):
        self.run_duragate("tail", code=77, error=f"the user '{self.gateway.KAFKA_USER}'",
                          DURAGATE_KAFKA_PASSWORD="wrong")
        self.run_duragate("tail", "--user", "nobody", code=77, error="the user 'nobody'")
        for broker in ("localhost:1", "nowhere.invalid:9092"):
            self.run_duragate("tail", "--broker", broker, code=69,
                              error=f"cannot reach {broker}: is the gateway running?")

    def test_tail_beyond_the_end(self):
        self.gateway.publish("-q", "1", "-t", "here", "-m", "x")
        [line] = self.run_duragate("tail", "--from", "beginning", "--no-follow", "--device",
                                   self.gateway.DEVICE).splitlines()[-1:]
        partition, offset = line.split()[1].split(":")
        end = int(offset) + 1
        self.run_duragate("tail", "--from", f"{partition}:{end + 1}", "--no-follow", code=64,
                          error=f"partition {partition} ends at {end}")
        self.assertEqual(self.run_duragate("tail", "--from", f"{partition}:{end}", "--no-follow"), "")
        self.assertEqual(self.run_duragate("tail", "--from", f"{partition}:{offset}", "--no-follow"), line + "\n")
        for unusable in ("12:-5", "999:0", "nonsense"):
            self.run_duragate("tail", "--from", unusable, code=64)

    def test_payloads_give_terminals_no_orders(self):
        self.gateway.publish("-q", "1", "-t", "orders", "-m", CONTROL + "\n2026 forged")
        output = self.run_duragate("tail", "--from", "beginning", "--no-follow")
        self.assertNotIn("\x1b", output)
        self.assertIn("orders \\x1b[2J\\n2026 forged\n", output)

    def test_streams_have_the_number_that_storage_names(self):
        topics = json.loads(self.run_duragate("stream", "topics", "--json"))
        self.gateway.publish("-q", "1", "-t", "here", "-m", "x")
        store = os.path.join(self.gateway.var, "stream")
        numbers = {name for name in os.listdir(store) if name.isdigit()}
        self.assertIn(topics[0]["stream_id"], numbers)

    def test_what_is_no_store(self):
        nothing = os.path.join(self.gateway.directory, "nothing")
        os.makedirs(nothing)
        backup = os.path.join(self.gateway.directory, "backup")
        os.makedirs(os.path.join(backup, "stream"))
        with open(os.path.join(backup, "manifest.json"), "w", encoding="ascii"):
            pass
        shutil.copy(os.path.join(self.gateway.var, "stream", "format"), os.path.join(backup, "stream"))
        for command in ("verify", "dump", "repair"):
            self.run_duragate("storage", command, nothing, code=64, error="is no store")
            self.run_duragate("storage", command, backup, code=64, error="is a backup")
            self.run_duragate("storage", command, os.path.join(backup, "stream"), code=64, error="is a backup")

    def test_backup_without_a_configuration(self):
        done = subprocess.run([os.path.join(self.gateway.build, "duragate"), "backup", "--no-registry",
                               "--set", "storage.directory=/nowhere",
                               os.path.join(self.gateway.directory, "backups")],
                              env={"PATH": os.environ["PATH"]}, capture_output=True, text=True,
                              timeout=60, check=False)
        self.assertIn("no --config was given", done.stderr)


if __name__ == "__main__":
    unittest.main()
