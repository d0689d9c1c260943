"""azure-iothub, unmodified, against the service API: registry, twins, queries, direct methods."""

import base64
import json
import unittest

from hub import Driver, Hub

from called_device import CalledDevice


def setUpModule():
    global hub
    hub = Hub().up()
    unittest.addModuleCleanup(hub.close)


class Service(unittest.TestCase):
    def setUp(self):
        self.driver = self.start(hub.IOTHUB_CONNECTION_STRING)

    def start(self, text):
        driver = Driver(hub, "service.js", DG_CONNECTION_STRING=text)
        self.addCleanup(driver.close)
        return driver

    def ask(self, *words):
        return json.loads(self.driver.ask(*words, answer="result"))

    def registry(self, method, *arguments):
        answer = self.ask("registry", method, list(arguments))
        return answer["status"], answer["body"]

    def refused(self, error, *words):
        failed = json.loads(self.driver.ask(*words, answer="failed"))
        self.assertEqual(failed["name"], error, failed)
        return failed["message"]

    def test_one_device(self):
        status, device = self.registry("create", {"deviceId": "one"})
        self.assertEqual((status, device["deviceId"], device["status"], device["authentication"]["type"]),
                         (200, "one", "enabled", "sas"))
        keys = device["authentication"]["symmetricKey"]
        self.assertEqual([len(base64.b64decode(key)) for key in keys.values()], [32, 32])
        self.refused("DeviceAlreadyExistsError", "registry", "create", [{"deviceId": "one"}])
        self.assertEqual(self.registry("get", "one"), (200, device))
        status, changed = self.registry("update", {"deviceId": "one", "status": "disabled"})
        self.assertEqual((status, changed["status"], changed["authentication"]["symmetricKey"]),
                         (200, "disabled", keys))
        self.assertIn("one", [item["deviceId"] for item in self.registry("list")[1]])
        self.assertEqual(self.registry("delete", "one"), (204, ""))
        self.refused("DeviceNotFoundError", "registry", "get", ["one"])
        self.refused("DeviceNotFoundError", "registry", "update", [{"deviceId": "one"}])

    def test_etags(self):
        device = self.registry("create", {"deviceId": "tagged"})[1]
        wanted = {"deviceId": "tagged", "etag": device["etag"], "statusReason": "x"}
        self.assertTrue(self.registry("updateDevices", [wanted], False)[1]["isSuccessful"])
        self.assertEqual(self.registry("get", "tagged")[1]["statusReason"], "x")
        self.refused("ArgumentError", "registry", "updateDevices", [[wanted], False])

    def test_certificates(self):
        made = self.registry("create", {"deviceId": "pinned", "authentication": {
            "x509Thumbprint": {"primaryThumbprint": "A" * 40, "secondaryThumbprint": None}}})[1]
        self.assertEqual(made["authentication"]["type"], "selfSigned")
        authority = self.registry("create", {"deviceId": "authority",
                                             "authentication": {"type": "certificateAuthority"}})[1]
        self.assertEqual(authority["authentication"]["type"], "certificateAuthority")

    def test_bulk(self):
        devices = [{"deviceId": f"bulk{i}"} for i in range(3)]
        status, done = self.registry("addDevices", devices)
        self.assertEqual((status, done["isSuccessful"], done["errors"]), (200, True, []))
        done = self.registry("updateDevices", [{**device, "status": "disabled"} for device in devices], True)[1]
        self.assertTrue(done["isSuccessful"])
        self.assertEqual(self.registry("get", "bulk2")[1]["status"], "disabled")
        self.refused("ArgumentError", "registry", "addDevices", [devices])
        self.assertTrue(self.registry("removeDevices", devices, True)[1]["isSuccessful"])
        self.refused("DeviceNotFoundError", "registry", "get", ["bulk0"])

    def test_statistics(self):
        before = self.registry("getRegistryStatistics")[1]
        self.registry("create", {"deviceId": "counted"})
        after = self.registry("getRegistryStatistics")[1]
        self.assertEqual(after["totalDeviceCount"], before["totalDeviceCount"] + 1)
        self.assertEqual(set(after), {"totalDeviceCount", "enabledDeviceCount", "disabledDeviceCount"})

    def test_twins(self):
        self.registry("create", {"deviceId": "twin"})
        twin = self.ask("twin", "twin", {"tags": {"floor": 3}, "properties": {"desired": {"rate": 5}}})["body"]
        self.assertEqual((twin["tags"], twin["properties"]["desired"]["rate"]), ({"floor": 3}, 5))
        etag = self.registry("getTwin", "twin")[1]["etag"]
        self.registry("updateTwin", "twin", {"tags": {"floor": 4}}, etag)
        self.refused("InvalidEtagError", "registry", "updateTwin", ["twin", {"tags": {"floor": 5}}, etag])
        self.assertEqual(self.registry("getTwin", "twin")[1]["tags"], {"floor": 4})
        self.refused("DeviceNotFoundError", "registry", "getTwin", ["nobody"])

    def test_queries(self):
        self.registry("addDevices", [{"deviceId": f"asked{i}"} for i in range(5)])
        self.registry("updateTwin", "asked3", {"tags": {"colour": "red"}}, "*")
        where = "SELECT * FROM devices WHERE STARTSWITH(deviceId, 'asked')"
        self.assertEqual(self.ask("query", "2", {"query": where})["body"],
                         [["asked0", "asked1"], ["asked2", "asked3"], ["asked4"]])
        where = "SELECT * FROM devices WHERE tags.colour = 'red' AND status = 'enabled'"
        self.assertEqual(self.ask("query", "100", {"query": where})["body"], [["asked3"]])
        self.refused("ArgumentError", "query", "100", {"query": "SELECT nothing"})

    def test_methods(self):
        self.registry("create", {"deviceId": "called"})
        device = CalledDevice(hub, "called", key=hub.device("called"))
        self.addCleanup(device.socket.close)
        self.driver.tell("method", "called", {"methodName": "reboot", "payload": {"delay": 1},
                                              "responseTimeoutInSeconds": 20})
        received = device.called()
        self.assertEqual((received.topic.split("/")[-1], received.payload), ("reboot", b'{"delay":1}'))
        device.acknowledged(received)
        device.reply(received, 207, b'{"done":true}')
        self.assertEqual(json.loads(self.driver.hear("result"))["body"], {"status": 207, "payload": {"done": True}})
        self.registry("create", {"deviceId": "offline"})
        for name in ("offline", "nobody"):
            self.driver.ask("method", name, {"methodName": "reboot", "responseTimeoutInSeconds": 5}, answer="failed")

    def test_wrong_key(self):
        start, _, _ = hub.IOTHUB_CONNECTION_STRING.rpartition("SharedAccessKey=")
        wrong = base64.b64encode(b"x" * 32).decode()
        self.driver = self.start(f"{start}SharedAccessKey={wrong}")
        self.refused("UnauthorizedError", "registry", "list", [])


if __name__ == "__main__":
    unittest.main()
