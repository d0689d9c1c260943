"""azure-iot-device with azure-iot-device-mqtt, unmodified, against the gateway: the same cases over TLS and WebSocket."""

import json
import unittest

from hub import Driver, Hub, wait_until

from called_device import Call
from certificates import Certificates
from iothub_device import HubDevice


def setUpModule():
    global hub
    hub = Hub().up()
    unittest.addModuleCleanup(hub.close)


class Cases:
    """Subclasses name the transport."""

    transport = None

    def start(self, connection_string, **environment):
        driver = Driver(hub, "device.js", DG_CONNECTION_STRING=connection_string, DG_TRANSPORT=self.transport,
                        **environment)
        self.addCleanup(driver.close)
        return driver

    def device(self, name, **environment):
        """A new device; its driver, which is connected."""
        device = HubDevice.make(hub, f"{name}-{self.transport}")
        driver = self.start(f"HostName={device.host};DeviceId={device.name};SharedAccessKey={device.key}",
                            **environment)
        driver.ask("open", answer="opened")
        return device.name, driver

    def events(self, device):
        """Headers and payloads of what is stored of a device's telemetry."""
        found = []
        for line in hub.consume(format="%k\t%h\t%s\n").splitlines():
            key, headers, payload = line.split("\t", 2)
            headers = dict(header.split("=", 1) for header in headers.split(","))
            if key == device and headers["ce_type"] == "duragate.telemetry.v1":
                found.append((headers, payload))
        return found

    def test_telemetry(self):
        name, driver = self.device("telemetry")
        for number in range(3):
            driver.ask("send", {"payload": f'{{"n":{number}}}', "messageId": f"m{number}", "correlationId": "c/1",
                                "contentType": "application/json", "contentEncoding": "utf-8",
                                "properties": {"alarm": "very high", "a/b&c": "d=e+f", "empty": ""}}, answer="sent")
        events = self.events(name)
        self.assertEqual([payload for _, payload in events], ['{"n":0}', '{"n":1}', '{"n":2}'])
        headers = events[0][0]
        for header, value in (("content-type", "application/json"), ("ce_iothubmessageid", "m0"),
                              ("ce_iothubcorrelationid", "c/1"), ("ce_iothubencoding", "utf-8"),
                              ("ce_iothubauthmethod", "sas"), ("alarm", "very high"), ("a/b&c", "d=e+f"),
                              ("empty", "")):
            self.assertEqual(headers[header], value, header)

    def test_methods(self):
        name, driver = self.device("methods")
        driver.ask("answer", "reboot", "207", answer="answering")
        status, body = Call(hub, name, query="?connect_timeout=20").result()
        self.assertEqual(driver.hear("method"), 'reboot {"delay":1}')
        self.assertEqual((status, body), (200, {"status": 207, "payload": {"did": "reboot"}}))

    def command(self, device, **body):
        """The id of a new command."""
        status, body, _ = hub.api("POST", f"/v1/tenants/{hub.TENANT}/devices/{device}/commands", {"name": "blink", **body})
        self.assertEqual(status, 202, body)
        return body["command_id"]

    def states(self, id):
        lines = hub.consume(topic=f"{hub.TENANT}.commands", format="%s\n").splitlines()
        return [event["state"] for event in map(json.loads, lines) if event.get("command_id") == id]

    def test_messages_from_the_cloud(self):
        name, driver = self.device("cloud")
        waiting = self.command(name, payload={"n": 1}, wants_reply=False)
        driver.ask("listen", answer="listening")
        for number in (1, 2):
            id = waiting if number == 1 else self.command(name, payload={"n": 2}, wants_reply=False)
            message = json.loads(driver.hear("message"))
            self.assertEqual(json.loads(message["payload"]), {"n": number})
            self.assertEqual((message["id"], message["to"], message["contentType"]),
                             (id, f"/devices/{name}/messages/devicebound", "application/json"))
            self.assertEqual(message["properties"]["duragate-name"], "blink")
            self.assertEqual(driver.hear("completed"), id)
            wait_until(lambda: self.states(id) == ["queued", "sent", "delivered", "completed"], 20)

    def test_command_with_a_reply(self):
        name, driver = self.device("command")
        driver.ask("answer", "blink", "200", answer="answering")
        id = self.command(name, payload={"n": 1})
        self.assertEqual(driver.hear("method"), 'blink {"n":1}')
        wait_until(lambda: self.states(id) == ["queued", "sent", "delivered", "completed"], 20)

    def test_twin(self):
        name, driver = self.device("twin")
        path = f"/v1/tenants/{hub.TENANT}/devices/{name}/twin"
        self.assertEqual(hub.api("PATCH", path, {"desired": {"target": {"low": 18, "high": 21}}})[0], 200)
        twin = json.loads(driver.ask("twin", answer="twin"))
        self.assertEqual(twin, {"desired": {"target": {"low": 18, "high": 21}, "$version": 2},
                                "reported": {"$version": 1}})
        # The SDK says what it has as the first change.
        self.assertEqual(json.loads(driver.hear("desired")), twin["desired"])
        for number in range(3):
            driver.ask("report", {"firmware": f"1.{number}", "gone": None}, answer="reported")
        self.assertTrue(driver.ask("report", {"not.allowed": 1}, answer="error"))
        self.assertEqual(hub.api("PATCH", path, {"desired": {"target": {"low": None, "high": 22}}})[0], 200)
        self.assertEqual(json.loads(driver.hear("desired")), {"target": {"low": None, "high": 22}, "$version": 3})
        wait_until(lambda: hub.api("GET", path)[1]["reported"] == {"firmware": "1.2"}, 20)

    def test_token_is_renewed(self):
        """The SDK connects anew with another token, and does not subscribe again."""
        name, driver = self.device("renews", DG_TOKEN_SECONDS="8")
        driver.ask("answer", "reboot", "200", answer="answering")
        self.assertEqual(Call(hub, name, query="?connect_timeout=20").result()[0], 200)
        path = f"/v1/tenants/{hub.TENANT}/devices/{name}"
        began = hub.api("GET", path)[1]["connection"]["since"]
        wait_until(lambda: hub.api("GET", path)[1]["connection"].get("since", began) != began, 60)
        self.assertEqual(Call(hub, name, query="?connect_timeout=20").result()[0], 200)
        driver.ask("send", {"payload": "still here"}, answer="sent")

    def test_wrong_key(self):
        device = HubDevice.make(hub, f"wrong-{self.transport}")
        other = HubDevice.make(hub, f"other-{self.transport}")
        driver = self.start(f"HostName={device.host};DeviceId={device.name};SharedAccessKey={other.key}")
        self.assertTrue(driver.ask("open", answer="error").startswith("UnauthorizedError"), driver.lines)

    def test_certificate(self):
        certificates, name = Certificates(hub.directory), f"x509-{self.transport}"
        certificates.self_signed(name)
        path = f"/v1/tenants/{hub.TENANT}/devices/{name}"
        hub.api("PUT", path, {})
        hub.api("POST", path + "/credentials", {"kind": "x509", "thumbprint": certificates.fingerprint(name, "sha1")})
        driver = self.start(f"HostName={hub.IOTHUB_HOST};DeviceId={name};x509=true",
                            DG_CERTIFICATE=certificates.path(name + ".pem"), DG_KEY=certificates.path(name + ".key"))
        driver.ask("open", answer="opened")
        driver.ask("send", {"payload": "x"}, answer="sent")
        self.assertEqual(self.events(name)[0][0]["ce_iothubauthmethod"], "x509")


class OverTls(Cases, unittest.TestCase):
    transport = "mqtt"


class OverWebSocket(Cases, unittest.TestCase):
    transport = "ws"


if __name__ == "__main__":
    unittest.main()
