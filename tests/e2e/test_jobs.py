"""Jobs: one command to many devices, at a rate, with what came of each device."""

import collections
import json
import os
import subprocess
import time
import unittest
from types import SimpleNamespace

from called_device import CalledDevice
from contract import Contract
from harness import BUILDS, Gateway, wait_until


class JobsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway(settings={"DURAGATE_CFG_SERVER__WORKERS": "2"}).up()
        cls.addClassCleanup(cls.gateway.close)
        cls.keys = {}
        cls.contract = Contract()
        cls.path = f"/v1/tenants/{cls.gateway.TENANT}/"

    def call(self, method, path, body=None, want=200, **more):
        status, answer, headers = self.gateway.api(method, self.path + path, body, **more)
        self.assertEqual(status, want, answer)
        self.contract.check(method, self.path + path.split("?")[0],
                            SimpleNamespace(status=status, body=answer, text=answer, headers=headers))
        return answer

    def devices(self, prefix, count, tags=None):
        names = [f"{prefix}{i}" for i in range(count)]
        for name in names:
            self.call("PUT", f"devices/{name}", {"tags": tags or {}}, 201)
        return names

    def device(self, name):
        if name not in self.keys:
            self.keys[name] = self.gateway.device(name)
        device = CalledDevice(self.gateway, name, key=self.keys[name], version=5, qos=1)
        self.addCleanup(device.socket.close)
        return device

    def start(self, name, want=201, **body):
        return self.call("PUT", f"jobs/{name}", {"command": {"name": "reboot", "payload": {"of": name}}, **body}, want)

    def job(self, name):
        return self.call("GET", f"jobs/{name}")

    def results(self, name, limit=1000):
        found, cursor = [], ""
        while cursor is not None:
            page = self.call("GET", f"jobs/{name}/results?limit={limit}{cursor and '&cursor=' + cursor}")
            found += page["items"]
            cursor = page["next_cursor"]
        return found

    def wait_for(self, name, state):
        wait_until(lambda: self.job(name)["state"] == state, 60)
        return self.job(name)

    def rows(self, name):
        """How many commands of the job each device has."""
        lines = self.gateway.sql("select d.device_id from command c join device d using (device_key)"
                                 f" join job j using (job_key) where j.name = '{name}'").splitlines()
        return collections.Counter(lines)

    def events(self, device):
        """The states of a device's commands, in the order of the stream."""
        lines = self.gateway.consume(topic=f"{self.gateway.TENANT}.commands", format="%k %s\\n").splitlines()
        return [json.loads(line.split(" ", 1)[1])["state"] for line in lines if line.split(" ", 1)[0] == device]


class Running(JobsTest):
    def test_listed_devices(self):
        names = self.devices("listed", 7)
        there = self.device("listed-good"), self.device("listed-bad")
        listed = [*names[:3], "nobody", there[0].name, *names[3:], there[1].name]
        job = self.start("listed", devices=listed, rate=1000)
        self.assertEqual((job["total"], job["rate"], job["command"]["name"]), (10, 1000, "reboot"))
        for device, status in zip(there, (200, 404)):
            received = device.called()
            self.assertEqual(json.loads(received.payload), {"of": "listed"})
            self.assertTrue(received.topic.endswith("/reboot"), received.topic)
            device.acknowledged(received)
            self.assertEqual(device.reply(received, status), 0)
        wait_until(lambda: self.job("listed")["commands"] == {"completed": 1, "queued": 7, "rejected": 1}, 30)
        job = self.wait_for("listed", "waiting")
        self.assertEqual((job["reached"], job["refused"]), (10, 1))
        results = self.results("listed", limit=3)
        self.assertEqual([result["device_id"] for result in results], listed)
        by_name = {result["device_id"]: result for result in results}
        self.assertEqual(by_name["nobody"], {"device_id": "nobody", "state": "refused", "reason": "there was no such device"})
        self.assertEqual((by_name["listed-good"]["state"], by_name["listed-good"]["reply_status"]), ("completed", 200))
        self.assertEqual((by_name["listed-bad"]["state"], by_name["listed-bad"]["reply_status"]), ("rejected", 404))
        self.assertEqual(by_name["listed0"]["state"], "queued")
        wait_until(lambda: self.events("listed-good") == ["queued", "sent", "delivered", "completed"], 20)
        wait_until(lambda: self.events("listed0") == ["queued"], 20)
        self.assertEqual(self.call("DELETE", "jobs/listed", want=409)["status"], 409)

    def test_devices_of_a_query(self):
        wanted = self.devices("tagged", 5, {"site": "north", "ring": "1"})
        self.devices("untagged", 2, {"site": "south"})
        self.call("PATCH", "devices/tagged3", {"enabled": False})
        self.start("north", query={"tags": {"site": "north"}, "enabled": True})
        job = self.wait_for("north", "waiting")
        self.assertEqual((job["total"], job["query"]), (4, {"tags": {"site": "north"}, "enabled": True}))
        wanted.remove("tagged3")
        self.assertEqual([result["device_id"] for result in self.results("north")], wanted)
        job = self.start("nowhere", query={"tags": {"site": "west"}})
        self.assertEqual((job["total"], job["state"]), (0, "completed"))
        self.assertEqual(self.results("nowhere"), [])

    def test_the_same_again(self):
        self.devices("again", 1)
        self.start("again", devices=["again0"])
        self.wait_for("again", "waiting")
        self.assertEqual(self.start("again", 200, devices=["again0"], rate=100)["name"], "again")
        self.start("again", 409, devices=["again0"], rate=99)
        self.assertEqual(self.rows("again"), {"again0": 1})
        self.assertIn("again", [job["name"] for job in self.call("GET", "jobs?limit=1000")["items"]])

    def test_aborted(self):
        names = self.devices("abort", 40)
        device = self.device("abort-there")
        self.start("abort", devices=[device.name, *names], rate=1)
        received = device.called()
        device.acknowledged(received)
        wait_until(lambda: self.events(device.name) == ["queued", "sent", "delivered"], 20)
        wait_until(lambda: self.job("abort")["reached"] > 2, 30)
        self.assertEqual(self.call("POST", "jobs/abort/abort")["state"], "aborted")
        reached = self.job("abort")["reached"]
        self.assertLess(reached, 41)
        wait_until(lambda: self.job("abort")["commands"] == {"cancelled": reached - 1, "delivered": 1}, 20)
        self.assertEqual(self.call("POST", "jobs/abort/abort")["state"], "aborted")
        self.call("DELETE", "jobs/abort", want=409)
        self.assertEqual(device.reply(received, 200), 0)
        wait_until(lambda: self.job("abort")["commands"] == {"cancelled": reached - 1, "completed": 1}, 20)
        states = [result["state"] for result in self.results("abort")]
        self.assertEqual(states, ["completed", *["cancelled"] * (reached - 1), *["skipped"] * (41 - reached)])
        wait_until(lambda: self.events("abort0") == ["queued", "cancelled"], 20)
        self.assertEqual(self.events("abort39"), [])
        self.call("DELETE", "jobs/abort", want=204)
        self.call("GET", "jobs/abort", want=404)
        self.call("GET", "jobs/abort/results", want=404)
        self.call("POST", "jobs/abort/abort", want=404)

    def test_nothing_left_to_abort(self):
        self.start("ended", devices=["nobody"])
        self.wait_for("ended", "completed")
        self.call("POST", "jobs/ended/abort", want=409)
        self.call("DELETE", "jobs/ended", want=204)

    def test_a_device_with_too_many(self):
        self.devices("full", 1)
        self.gateway.sql("insert into command (tenant_key, device_key, name, payload, wants_reply, expires_at) select"
                         " tenant_key, device_key, 'x', '', true, now() + interval '1 d' from device,"
                         " generate_series(1, 1000) where device_id = 'full0'")
        self.start("full", devices=["full0"])
        self.assertEqual(self.wait_for("full", "completed")["refused"], 1)
        self.assertEqual(self.results("full")[0]["state"], "refused")

    def test_a_device_deleted(self):
        self.devices("deleted", 2)
        self.start("deleted", devices=["deleted0", "deleted1"])
        self.wait_for("deleted", "waiting")
        self.call("DELETE", "devices/deleted0", want=204)
        self.assertEqual([result["state"] for result in self.results("deleted")], ["gone", "queued"])

    def test_retention(self):
        """What came of it goes with the job, and not before."""
        self.devices("kept", 1)
        self.start("kept", devices=["kept0", "nobody"])
        self.wait_for("kept", "waiting")
        self.call("POST", "jobs/kept/abort")
        wait_until(lambda: self.job("kept")["commands"] == {"cancelled": 1}, 20)
        self.gateway.sql("update command set finished_at = now() - interval '2 d' where name = 'reboot' and finished_at is not null")
        self.gateway.sql("update job set finished_at = now() - interval '2 d' where name = 'kept'")
        wait_until(lambda: self.gateway.api("GET", self.path + "jobs/kept")[0] == 404, 90)

    def test_refused(self):
        command = {"name": "reboot"}
        for body, pointer in (
                ({}, "/command"), ({"command": {}, "devices": []}, "/command/name"), ({"command": 1, "devices": []}, "/command"),
                ({"command": command}, "/devices"), ({"command": command, "devices": [], "query": {}}, "/devices"),
                ({"command": command, "devices": ["a", "b", "a"]}, "/devices/2"),
                ({"command": command, "devices": [1]}, "/devices/0"), ({"command": command, "devices": ["x" * 129]}, "/devices/0"),
                ({"command": command, "devices": [""]}, "/devices/0"),
                ({"command": command, "devices": [str(i) for i in range(10001)]}, "/devices"),
                ({"command": command, "query": {"tags": {"a": 1}}}, "/query/tags/a"),
                ({"command": command, "query": {"site": "a"}}, "/query/site"),
                ({"command": command, "query": []}, "/query"),
                ({"command": command, "query": {}, "rate": 0}, "/rate"), ({"command": command, "query": {}, "rate": 1001}, "/rate"),
                ({"command": command, "query": {}, "speed": 1}, "/speed"),
                ({"command": {**command, "ttl_s": 0}, "query": {}}, "/command/ttl_s")):
            with self.subTest(pointer=pointer):
                answer = self.call("PUT", "jobs/refused", body, 422)
                self.assertTrue(answer["detail"].startswith(pointer + ":"), answer)
        self.call("PUT", "jobs/refused", {"command": {"name": "x", "payload": "y" * 70000}, "query": {}}, 413)
        self.call("PUT", "jobs/not%20a%20name", {"command": command, "query": {}}, 422)
        self.call("GET", "jobs/refused", want=404)
        for method, path in (("PUT", "jobs/of"), ("GET", "jobs/of"), ("GET", "jobs"), ("POST", "jobs/of/abort"),
                             ("GET", "jobs/of/results"), ("DELETE", "jobs/of")):
            body = {"command": command, "query": {}} if method == "PUT" else None
            self.assertEqual(self.gateway.api(method, "/v1/tenants/nobody/" + path, body)[0], 404)


class Desired(JobsTest):
    def test_changed(self):
        names = self.devices("twin", 5)
        self.gateway.sql("insert into desired_state select device_key, 7, jsonb_build_object('big', repeat('x', 32000)), '{}', '[]'"
                         " from device where device_id = 'twin2'")
        for name, desired in (("first", {"a": {"b": 1}, "more": "y" * 3000}), ("second", {"a": {"c": 2}, "big": None, "more": None})):
            job = self.call("PUT", f"jobs/{name}", {"desired": desired, "devices": [*names, "nobody"]}, 201)
            self.assertEqual(job["desired"], desired)
            self.wait_for(name, "completed")
        self.assertEqual([(result["state"], result.get("desired_version")) for result in self.results("first")],
                         [*[("changed", 2)] * 2, ("refused", None), *[("changed", 2)] * 2, ("refused", None)])
        self.assertEqual([(result["state"], result.get("desired_version")) for result in self.results("second")],
                         [*[("changed", 3)] * 2, ("changed", 8), *[("changed", 3)] * 2, ("refused", None)])
        self.assertEqual(self.call("GET", "devices/twin4/twin")["desired"], {"a": {"b": 1, "c": 2}})
        self.call("PUT", "jobs/third", {"desired": {"a.b": 1}, "query": {}}, 422)
        lines = lambda: self.gateway.consume(topic=f"{self.gateway.TENANT}.commands", format="%k %s\\n").splitlines()
        wait_until(lambda: [json.loads(line.split(" ", 1)[1])["version"] for line in lines() if line.startswith("twin4 ")]
                   == [2, 3], 30)


class CommandLine(JobsTest):
    def duragate(self, *arguments, code=0):
        done = subprocess.run([os.path.join(BUILDS, "asan", "duragate"), *arguments, "--env",
                               os.path.join(self.gateway.var, "demo.env")], capture_output=True, text=True, timeout=60,
                              check=False)
        self.assertEqual(done.returncode, code, (arguments, done.stdout, done.stderr))
        return done.stdout if code == 0 else done.stderr

    def test_from_start_to_end(self):
        self.devices("line", 2)
        body = {"command": {"name": "reboot"}, "devices": ["line0", "nobody", "line1"]}
        with open(os.path.join(self.gateway.directory, "job.json"), "w", encoding="ascii") as file:
            json.dump(body, file)
        self.assertIn("running", self.duragate("job", "start", "line", "--data", "@" + file.name))
        self.wait_for("line", "waiting")
        self.duragate("job", "start", "line", "--data", json.dumps(body))
        self.assertIn("line", self.duragate("job", "list"))
        self.assertEqual(json.loads(self.duragate("job", "show", "line", "--json"))["refused"], 1)
        results = self.duragate("job", "results", "line").splitlines()
        self.assertEqual([line.split()[:2] for line in results[1:]],
                         [["line0", "queued"], ["nobody", "refused"], ["line1", "queued"]])
        self.assertIn("aborted", self.duragate("job", "abort", "line"))
        wait_until(lambda: self.job("line")["commands"] == {"cancelled": 2}, 20)
        self.duragate("job", "delete", "line")
        self.duragate("job", "show", "line", code=1)
        self.assertIn("--data", self.duragate("job", "start", "line", code=64))
        self.assertIn("cannot use /nowhere", self.duragate("job", "start", "line", "--data", "@/nowhere", code=64))


class Surviving(JobsTest):
    def test_killed_in_the_middle(self):
        names = self.devices("kill", 60)
        more = self.devices("other", 30)
        there = self.device(names[50])
        self.start("kill", devices=names, rate=20)
        self.start("other", devices=more, rate=10)
        for least in (5, 20, 35):
            wait_until(lambda: self.job("kill")["reached"] >= least, 60)
            self.gateway.kill()
            self.gateway.up()
        there = self.device(there.name)
        there.acknowledged(there.called())
        for name, devices in (("kill", names), ("other", more)):
            self.wait_for(name, "waiting")
            self.assertEqual(self.rows(name), {device: 1 for device in devices})
        wait_until(lambda: self.events(there.name)[-1] == "delivered", 20)
        wait_until(lambda: self.gateway.sql("select count(*) from stream_outbox") == "0", 30)
        self.assertEqual(self.gateway.sql("select count(*) from command where not is_announced"), "0")
        for device in names + more:
            if device != there.name:
                self.assertEqual(self.events(device), ["queued"], device)

    def test_a_step_without_an_answer(self):
        names = self.devices("mute", 50)
        self.start("mute", devices=names, rate=25)
        wait_until(lambda: self.job("mute")["reached"] >= 3, 60)
        with self.gateway.locked("stream_outbox"):
            time.sleep(4)  # beyond the statement's deadline
        self.wait_for("mute", "waiting")
        self.assertEqual(self.rows("mute"), {device: 1 for device in names})


if __name__ == "__main__":
    unittest.main()
