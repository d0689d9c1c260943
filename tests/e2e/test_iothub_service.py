"""The service API for back ends written for Azure IoT Hub."""

import base64
import concurrent.futures
import subprocess
import time
import unittest

from called_device import CalledDevice
from certificates import Certificates
from harness import Gateway, wait_until
from iothub_service import HOST, RIGHTS, Service, token
from raw_mqtt import Raw

NEVER = "0001-01-01T00:00:00"


class ServiceTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway(settings={"DURAGATE_CFG_SERVER__WORKERS": "2",
                                        "DURAGATE_CFG_IOTHUB__HOSTS": f"other.test=other,{HOST}=demo"}).up()
        cls.addClassCleanup(cls.gateway.close)
        cls.service = Service(cls.gateway)
        cls.addClassCleanup(cls.service.close)

    def call(self, method, path, body=None, expect=None, **more):
        answer = self.service.call(method, path, body, **more)
        if expect is not None:
            self.assertEqual(answer.status, expect, answer.raw)
        return answer

    def refused(self, status, name, method, path, body=None, **more):
        answer = self.call(method, path, body, status, **more)
        self.assertEqual(answer.headers["iothub-errorcode"], name)
        self.assertEqual(answer.headers["Content-Type"], "application/json; charset=utf-8")
        self.assertEqual(set(answer.body), {"Message", "ExceptionMessage"})
        self.assertRegex(answer.body["Message"], f"^ErrorCode:{name};[^;]+$")
        self.assertRegex(answer.body["ExceptionMessage"],
                         r"^Tracking ID:[0-9a-f]{32}-G:0-TimeStamp:\d\d/\d\d/\d{4} \d\d:\d\d:\d\d$")
        return answer

    def device(self, name, body=None):
        return self.call("PUT", "/devices/" + name, body or {"deviceId": name}, 200).body


class Tokens(ServiceTest):
    def unauthorized(self, authorization, name="IotHubUnauthorized", path="/devices", **more):
        return self.refused(401, name, "GET", path, authorization=authorization, **more)

    def test_what_is_accepted(self):
        key, name = self.service.key, self.service.name
        for accepted in (token(key, name), token(self.service.secondary_key, name), token(key, name, encode=False),
                         token(key, name, HOST.upper()), token(key, name, HOST + ":443"),
                         token(key, name, HOST + "/devices"), token(key, name, expiry=time.time() - 200)):
            self.call("GET", "/devices", expect=200, authorization=accepted)
        self.call("GET", "/statistics/devices", expect=200, Request_Id="abc-1")

    def test_what_is_refused(self):
        key, name = self.service.key, self.service.name
        other = base64.b64encode(b"x" * 32).decode()
        for refused in ("", "Bearer " + self.gateway.API_KEY, token(other, name), token(key, "nobody"),
                        token(key, name, expiry=time.time() - 400), token(key, name, "unknown.test"),
                        token(key, name, "other.test"), token(key, name, HOST + "/devices/d1"),
                        token(key, name, HOST + "/dev"), token(key, name).replace("&skn=service", ""),
                        token(key, "a/b"), token(key, name) + "&se=1", token(key, name) + "&x=" + "x" * 4096):
            self.unauthorized(refused)

    def test_api_key_and_policy_are_not_the_same(self):
        status, _, _ = self.gateway.api("GET", "/v1/tenants", key=f"demo/service.{self.service.key}")
        self.assertEqual(status, 401)

    def test_rights(self):
        reader = Service(self.gateway, "reader", ["registry_read"])
        self.addCleanup(reader.close)
        self.assertEqual(reader.call("GET", "/devices").status, 200)
        answer = reader.call("PUT", "/devices/d1", {})
        self.assertEqual(answer.status, 401)
        self.assertEqual(answer.headers["iothub-errorcode"], "IotHubUnauthorizedAccess")
        self.assertIn("registry_write", answer.body["Message"])
        self.assertEqual(reader.call("POST", "/devices/query", {"query": "SELECT * FROM devices"}).status, 401)

    def test_a_policy_that_is_gone_or_has_other_keys(self):
        policy = Service(self.gateway, "changing")
        self.addCleanup(policy.close)
        path = f"/v1/tenants/{self.gateway.TENANT}/access-policies/changing"
        self.assertEqual(policy.call("GET", "/devices").status, 200)
        status, kept, _ = self.gateway.api("PUT", path, {"rights": RIGHTS})
        self.assertEqual((status, set(kept) & {"primary_key", "secondary_key"}), (200, set()))
        self.assertEqual(policy.call("GET", "/devices").status, 200)
        keys = {"primary_key": base64.b64encode(b"p" * 32).decode(), "secondary_key": policy.secondary_key}
        status, changed, _ = self.gateway.api("PUT", path, {"rights": RIGHTS, **keys})
        self.assertEqual((status, changed["primary_key"]), (200, keys["primary_key"]))
        wait_until(lambda: policy.call("GET", "/devices").status == 401, 10)
        policy.key = keys["primary_key"]
        self.assertEqual(policy.call("GET", "/devices").status, 200)
        self.assertEqual(self.gateway.api("DELETE", path)[0], 204)
        wait_until(lambda: policy.call("GET", "/devices").status == 401, 10)

    def test_policies_over_the_management_api(self):
        base = f"/v1/tenants/{self.gateway.TENANT}/access-policies"
        status, made, headers = self.gateway.api("PUT", base + "/one", {"rights": ["device_connect"]})
        self.assertEqual((status, made["rights"]), (201, ["device_connect"]))
        self.assertEqual(len(base64.b64decode(made["primary_key"])), 32)
        status, shown, _ = self.gateway.api("GET", base + "/one")
        self.assertEqual(set(shown), {"name", "rights", "version", "created_at", "updated_at"})
        names = [policy["name"] for policy in self.gateway.api("GET", base)[1]["items"]]
        self.assertIn("one", names)
        for body in ({}, {"rights": []}, {"rights": ["admin"]}, {"rights": RIGHTS, "primary_key": made["primary_key"]},
                     {"rights": RIGHTS, "primary_key": "A" * 44, "secondary_key": "!" * 44}):
            self.assertEqual(self.gateway.api("PUT", base + "/two", body)[0], 422, body)
        self.assertEqual(self.gateway.api("PUT", base + "/one", {"rights": RIGHTS}, {"If-Match": '"1"'})[0], 412)
        self.assertEqual(self.gateway.api("PATCH", base + "/two", {"rights": RIGHTS})[0], 404)
        status, changed, headers = self.gateway.api("PATCH", base + "/one", {"rights": ["registry_read"]})
        self.assertEqual((status, changed["rights"], set(changed)), (200, ["registry_read"], set(shown)))
        self.assertEqual(self.gateway.api("DELETE", base + "/one", None, {"If-Match": headers["ETag"]})[0], 204)
        self.assertEqual(self.gateway.api("GET", base + "/one")[0], 404)


class Devices(ServiceTest):
    def test_general_rules(self):
        answer = self.call("GET", "/devices/", expect=200, Request_Id="abc-1")
        self.assertEqual(answer.headers["Request-Id"], "abc-1")
        self.assertEqual(answer.headers["Content-Type"], "application/json; charset=utf-8")
        self.refused(400, "InvalidProtocolVersion", "GET", "/devices", version=None)
        self.refused(404, "DeviceNotFound", "GET", "/devices/nobody", Request_Id="x")

    def test_create_and_show(self):
        made = self.call("PUT", "/devices/d1", {"deviceId": "d1"}, 200)
        device = made.body
        self.assertEqual(made.headers["ETag"], f'"{device["etag"]}"')
        self.assertEqual(len(base64.b64decode(device["etag"])), 8)
        self.assertRegex(device["generationId"], r"^\d{18}$")
        keys = device["authentication"].pop("symmetricKey")
        self.assertEqual([len(base64.b64decode(keys[name])) for name in ("primaryKey", "secondaryKey")], [32, 32])
        self.assertEqual(device["authentication"],
                         {"x509Thumbprint": {"primaryThumbprint": None, "secondaryThumbprint": None}, "type": "sas"})
        self.assertEqual({name: device[name] for name in
                          ("deviceId", "connectionState", "status", "statusReason", "connectionStateUpdatedTime",
                           "lastActivityTime", "cloudToDeviceMessageCount", "capabilities")},
                         {"deviceId": "d1", "connectionState": "Disconnected", "status": "enabled",
                          "statusReason": None, "connectionStateUpdatedTime": NEVER, "lastActivityTime": NEVER,
                          "cloudToDeviceMessageCount": 0, "capabilities": {"iotEdge": False}})
        shown = self.call("GET", "/devices/d1", expect=200)
        device["authentication"]["symmetricKey"] = keys
        self.assertEqual(shown.body, device)
        self.assertEqual(shown.headers["ETag"], made.headers["ETag"])
        self.refused(409, "DeviceAlreadyExists", "PUT", "/devices/d1", {"deviceId": "d1"})

    def test_update(self):
        device = self.device("changing")
        keys = device["authentication"]["symmetricKey"]
        path = "/devices/changing"
        empty = {"symmetricKey": {"primaryKey": "", "secondaryKey": ""}}
        for tag in ("*", '"*"', '"{}"', "{}"):
            tag = tag.format(device["etag"])
            changed = self.call("PUT", path, {"deviceId": "changing", "status": "disabled", "statusReason": "loan",
                                              "authentication": empty}, 200, If_Match=tag).body
            self.assertEqual((changed["status"], changed["statusReason"]), ("disabled", "loan"))
            self.assertEqual(changed["authentication"]["symmetricKey"], keys)
            self.assertNotEqual(changed["etag"], device["etag"])
            self.assertNotEqual(changed["statusUpdatedTime"], NEVER)
            device = changed
        self.refused(412, "PreconditionFailed", "PUT", path, {}, If_Match='"AAAAAAAAAAE="')
        self.refused(412, "PreconditionFailed", "PUT", path, {}, If_Match="nonsense")
        self.refused(404, "DeviceNotFound", "PUT", "/devices/nobody", {}, If_Match="*")
        kept = self.call("PUT", path, {}, 200, If_Match="W/" + f'"{device["etag"]}"').body
        self.assertEqual((kept["status"], kept["statusReason"]), ("disabled", None))
        self.assertEqual(kept["authentication"]["symmetricKey"], keys)
        own = base64.b64encode(b"k" * 16).decode()
        one = self.call("PUT", path, {"authentication": {"type": "sas", "symmetricKey": {"primaryKey": own}}}, 200,
                        If_Match="*").body["authentication"]["symmetricKey"]
        self.assertEqual(one, {"primaryKey": own, "secondaryKey": keys["secondaryKey"]})
        self.assertEqual(self.call("GET", path, expect=200).body["authentication"]["symmetricKey"], one)

    def test_certificates(self):
        sha1, sha256 = "AB" * 20, "cd" * 32
        made = self.device("pinned", {"authentication": {"x509Thumbprint": {"primaryThumbprint": sha1,
                                                                            "secondaryThumbprint": sha256}}})
        self.assertEqual(made["authentication"],
                         {"type": "selfSigned", "symmetricKey": {"primaryKey": None, "secondaryKey": None},
                          "x509Thumbprint": {"primaryThumbprint": sha1.lower(), "secondaryThumbprint": sha256}})
        base = f"/v1/tenants/{self.gateway.TENANT}/devices/pinned/credentials"
        kinds = [item["kind"] for item in self.gateway.api("GET", base)[1]["items"]]
        self.assertEqual(kinds, ["x509", "x509"])
        for kind, count in (("certificateAuthority", 0), ("sas", 1), ("none", 0)):
            changed = self.call("PUT", "/devices/pinned", {"authentication": {"type": kind}}, 200, If_Match="*").body
            self.assertEqual(changed["authentication"]["type"], kind)
            self.assertEqual(changed["authentication"]["x509Thumbprint"]["primaryThumbprint"], None)
            self.assertEqual(len(self.gateway.api("GET", base)[1]["items"]), count, kind)

    def test_of_the_native_api(self):
        """Devices that were made there are shown; what only that API knows stays."""
        path = f"/v1/tenants/{self.gateway.TENANT}/devices/native"
        self.assertEqual(self.gateway.api("PUT", path, {"group": "g", "metadata": {"a": 1}})[0], 201)
        self.assertEqual(self.call("GET", "/devices/native", expect=200).body["authentication"]["type"],
                         "certificateAuthority")
        keys = self.gateway.api("POST", path + "/credentials", {"kind": "sas"})[1]
        shown = self.call("GET", "/devices/native", expect=200).body["authentication"]
        self.assertEqual(shown["symmetricKey"],
                         {"primaryKey": keys["primary_key"], "secondaryKey": keys["secondary_key"]})
        self.call("PUT", "/devices/native", {"status": "disabled"}, 200, If_Match="*")
        native = self.gateway.api("GET", path)[1]
        self.assertEqual((native["enabled"], native["group"], native["metadata"]), (False, "g", {"a": 1}))
        self.assertEqual(len(self.gateway.api("GET", path + "/credentials")[1]["items"]), 1)

    def test_wrong_devices(self):
        for body in ({"deviceId": "other"}, {"deviceId": 1}, {"status": "on"}, {"statusReason": "x" * 129},
                     {"authentication": []}, {"authentication": {"type": "tpm"}},
                     {"authentication": {"symmetricKey": {"primaryKey": "AAAA"}}},
                     {"authentication": {"x509Thumbprint": {"primaryThumbprint": "12"}}},
                     {"authentication": {"type": "selfSigned"}}, {"capabilities": {"iotEdge": True}},
                     [], b"{", b'{"a":1,"a":2}'):
            self.refused(400, "ArgumentInvalid", "PUT", "/devices/wrong", body)
        self.refused(404, "DeviceNotFound", "GET", "/devices/wrong")
        self.refused(400, "ArgumentInvalid", "PUT", "/devices/sp%20ace", {})
        made = self.device("%23x%25%2B(y)%3F", {"deviceId": "#x%+(y)?"})
        self.assertEqual(made["deviceId"], "#x%+(y)?")
        self.call("GET", "/devices/%23x%25%2B(y)%3F", expect=200)

    def test_delete(self):
        first = self.device("gone")
        self.refused(412, "PreconditionFailed", "DELETE", "/devices/gone", If_Match='"AAAAAAAAAAE="')
        self.call("DELETE", "/devices/gone", expect=204, If_Match=f'"{first["etag"]}"')
        self.refused(404, "DeviceNotFound", "DELETE", "/devices/gone")
        again = self.device("gone")
        self.assertNotEqual(again["generationId"], first["generationId"])
        self.call("DELETE", "/devices/gone", expect=204)

    def test_list_and_statistics(self):
        before = self.call("GET", "/statistics/devices", expect=200).body
        for i in range(3):
            self.device(f"listed{i}", {"status": "disabled"} if i else None)
        after = self.call("GET", "/statistics/devices", expect=200).body
        self.assertEqual([after[name] - before[name] for name in
                          ("totalDeviceCount", "enabledDeviceCount", "disabledDeviceCount")], [3, 1, 2])
        names = [device["deviceId"] for device in self.call("GET", "/devices", expect=200).body]
        self.assertLessEqual({"listed0", "listed1", "listed2"}, set(names))
        self.assertEqual(len(self.call("GET", "/devices/?top=2", expect=200).body), 2)
        for top in ("0", "1001", "x", ""):
            self.refused(400, "ArgumentInvalid", "GET", "/devices?top=" + top)

    def test_bulk(self):
        names = [f"bulk{i}" for i in range(100)]
        done = self.call("POST", "/devices", [{"id": name, "importMode": "create"} for name in names], 200).body
        self.assertEqual(done, {"isSuccessful": True, "errors": [], "warnings": []})
        etag = self.call("GET", "/devices/bulk0", expect=200).body["etag"]
        done = self.call("POST", "/devices", [
            {"id": "bulk0", "importMode": "updateIfMatchETag", "eTag": etag, "status": "disabled"},
            {"id": "bulk1", "importMode": "updateIfMatchETag", "eTag": etag},
            {"id": "bulk2", "importMode": "create"}, {"id": "bulk-none", "importMode": "Update"},
            {"id": "bulk-new", "importMode": "createOrUpdate", "status": "disabled"}], 400).body
        self.assertFalse(done["isSuccessful"])
        self.assertEqual([(error["deviceId"], error["errorCode"]) for error in done["errors"]],
                         [("bulk1", 412001), ("bulk2", 409001), ("bulk-none", 404001)])
        for name in ("bulk0", "bulk-new"):
            self.assertEqual(self.call("GET", "/devices/" + name, expect=200).body["status"], "disabled")
        self.refused(400, "DeviceDefinedMultipleTimes", "POST", "/devices", [{"id": "a"}, {"id": "a"}])
        for body in ([], [{"id": "a"}] * 101, {}, [{"id": "a", "importMode": "x"}], [{}], [1]):
            self.refused(400, "ArgumentInvalid", "POST", "/devices", body)
        self.refused(404, "DeviceNotFound", "GET", "/devices/a")
        # what is not served is done neither to the device itself nor in silence
        for more in ({"moduleId": "m", "importMode": "delete"}, {"tags": {"floor": 1}, "importMode": "update"},
                     {"properties": {"desired": {"on": True}}, "importMode": "update"}):
            self.refused(400, "ArgumentInvalid", "POST", "/devices", [{"id": "bulk0", **more}])
        done = self.call("POST", "/devices", [{"id": "bulk0", "importMode": "deleteIfMatchETag"}], 400).body
        self.assertEqual(done["errors"][0]["errorCode"], 412001)
        self.call("POST", "/devices", [{"id": name, "importMode": "Delete"} for name in names], 200)
        self.refused(404, "DeviceNotFound", "GET", "/devices/bulk0")

    def test_connected(self):
        device = self.device("live")
        before = self.call("GET", "/statistics/service", expect=200).body["connectedDeviceCount"]
        # natively, with a token of the device's own key
        password = token(device["authentication"]["symmetricKey"]["primaryKey"], "x", "any/devices/live")
        raw = Raw(self.gateway.MQTT_PORT)
        self.addCleanup(raw.socket.close)
        raw.resumed("live@demo", password.replace("&skn=x", ""), client_id="live")
        shown = self.call("GET", "/devices/live", expect=200).body
        self.assertEqual(shown["connectionState"], "Connected")
        self.assertRegex(shown["lastActivityTime"], r"^20\d\d-.*Z$")
        self.assertRegex(shown["connectionStateUpdatedTime"], r"^20\d\d-.*Z$")
        listed = {item["deviceId"]: item["connectionState"] for item in self.call("GET", "/devices").body}
        self.assertEqual(listed["live"], "Connected")
        self.assertEqual(self.call("GET", "/statistics/service", expect=200).body["connectedDeviceCount"], before + 1)
        self.call("PUT", "/devices/live", {}, 200, If_Match="*")  # nothing said of keys: it stays
        self.assertEqual(self.call("GET", "/devices/live").body["connectionState"], "Connected")
        self.call("PUT", "/devices/live", {"status": "disabled"}, 200, If_Match="*")
        wait_until(lambda: self.call("GET", "/devices/live").body["connectionState"] == "Disconnected", 10)

    def test_other_credentials(self):
        """A device that is not to log in by tokens has no key left that signs them, whatever its name; what is no
        token's and no thumbprint's is not this API's."""
        path = f"/v1/tenants/{self.gateway.TENANT}/devices/mixed/credentials"
        self.device("mixed")
        for body in ({"name": "second", "kind": "sas"}, {"name": "iothub-primary", "kind": "key"}):
            self.assertEqual(self.gateway.api("POST", path, body)[0], 201)
        self.call("PUT", "/devices/mixed", {"authentication": {"type": "sas"}}, 200, If_Match="*")
        self.assertEqual(self.credentials("mixed"), ["iothub", "iothub-primary", "second"])
        self.call("PUT", "/devices/mixed", {"authentication": {"type": "none"}}, 200, If_Match="*")
        self.assertEqual(self.credentials("mixed"), ["iothub-primary"])

    def credentials(self, device):
        return self.gateway.sql("select c.name from credential c join device using (device_key)"
                                f" where device_id = '{device}' order by 1").split()

    def test_who_trusts_an_authority(self):
        """A device of another kind than certificateAuthority has to show a certificate of its own."""
        certificates = Certificates(self.gateway.directory)
        certificates.authority("hub-ca")
        certificates.signed("vouched", certificates.path("hub-ca"), "vouched")
        code = self.gateway.api("GET", f"/v1/tenants/{self.gateway.TENANT}")[1]["registration_code"]
        body = {"certificate": certificates.pem("hub-ca"), "proof": certificates.proof("hub-ca", code)}
        status, answer, _ = self.gateway.api(
            "PUT", f"/v1/tenants/{self.gateway.TENANT}/certificate-authorities/hub", body)
        self.assertEqual(status, 201, answer)
        self.device("vouched", {"authentication": {"type": "certificateAuthority"}})
        for kind, accepted in ((None, True), ("sas", False), ("none", False), ("certificateAuthority", True)):
            if kind:
                self.call("PUT", "/devices/vouched", {"authentication": {"type": kind}}, 200, If_Match="*")
            wait_until(lambda: self.logs_in("vouched") == accepted, 10)

    def logs_in(self, name):
        directory = self.gateway.directory
        done = subprocess.run(
            ["mosquitto_pub", "-h", "localhost", "-p", self.gateway.MQTTS_PORT, "--cafile", self.gateway.CA_FILE,
             "--cert", f"{directory}/{name}.pem", "--key", f"{directory}/{name}.key", "-q", "1", "-t", "x", "-m", "x"],
            capture_output=True, timeout=30, check=False)
        return done.returncode == 0

    def test_purge(self):
        """What waits for a device as a message is cancelled; what wants a reply comes to it as a method."""
        self.device("full")
        self.gateway.sql("insert into command (tenant_key, device_key, name, payload, dialect, wants_reply, expires_at)"
                         " select tenant_key, device_key, '', 'x', kind, reply, now() + interval '1 h' from device,"
                         " (values ('iothub', false), ('native', false), ('native', true)) x (kind, reply)"
                         " where device_id = 'full'")
        self.assertEqual(self.call("GET", "/devices/full").body["cloudToDeviceMessageCount"], 2)
        self.assertEqual(self.call("GET", "/twins/full").body["cloudToDeviceMessageCount"], 2)
        purged = self.call("DELETE", "/devices/full/commands", expect=200).body
        self.assertEqual(purged, {"totalMessagesPurged": 2, "deviceId": "full", "moduleId": None})
        self.assertEqual(self.call("GET", "/devices/full").body["cloudToDeviceMessageCount"], 0)
        states = self.gateway.sql("select dialect, state from command order by command_key").split()
        self.assertEqual(states, ["iothub|cancelled", "native|cancelled", "native|queued"])
        wait_until(lambda: self.gateway.sql("select count(*) from stream_outbox") == "0", 20)
        said = self.gateway.consume(topic="demo.commands", format="%k|%h\n")
        self.assertEqual(said.count("ce_type=duragate.command.cancelled.v1"), 2, said)
        self.refused(404, "DeviceNotFound", "DELETE", "/devices/nobody/commands")

    def test_not_served(self):
        for status, name, method, path in (
                (404, "ModuleNotFound", "GET", "/devices/d1/modules"), (404, "JobNotFound", "GET", "/jobs/1"),
                (400, "ArgumentInvalid", "PUT", "/jobs/v2/1"), (404, "ConfigurationNotFound", "GET", "/configurations/c"),
                (404, "DeviceNotFound", "GET", "/digitaltwins/d1")):
            self.refused(status, name, method, path, {} if method == "PUT" else None)


class Twins(ServiceTest):
    def test_get_patch_replace(self):
        device = self.device("twin")
        got = self.call("GET", "/twins/twin", expect=200)
        twin = got.body
        self.assertEqual(got.headers["ETag"], f'"{twin["etag"]}"')
        self.assertEqual({name: twin[name] for name in
                          ("deviceId", "deviceEtag", "status", "connectionState", "authenticationType", "modelId",
                           "tags", "cloudToDeviceMessageCount", "capabilities", "x509Thumbprint")},
                         {"deviceId": "twin", "deviceEtag": device["etag"], "status": "enabled",
                          "connectionState": "Disconnected", "authenticationType": "sas", "modelId": "", "tags": {},
                          "cloudToDeviceMessageCount": 0, "capabilities": {"iotEdge": False},
                          "x509Thumbprint": {"primaryThumbprint": None, "secondaryThumbprint": None}})
        for state in ("desired", "reported"):
            self.assertEqual(twin["properties"][state]["$version"], 1)
            self.assertIn("$lastUpdated", twin["properties"][state]["$metadata"])
        patched = self.call("PATCH", "/twins/twin",
                            {"tags": {"floor": {"number": 3}}, "properties": {"desired": {
                                "$version": 7, "$metadata": {}, "rate": {"s": 1.5}, "on": True}}}, 200).body
        self.assertEqual(patched["tags"], {"floor": {"number": 3}})
        desired = patched["properties"]["desired"]
        self.assertEqual((desired["rate"], desired["on"], desired["$version"]), ({"s": 1.5}, True, 2))
        self.assertEqual(desired["$metadata"]["on"]["$lastUpdatedVersion"], 2)
        self.assertGreater(patched["version"], twin["version"])
        again = self.call("PATCH", "/twins/twin", {"tags": {"floor": {"name": "x"}},
                                                   "properties": {"desired": {"on": None}}}, 200,
                          If_Match=f'"{patched["etag"]}"').body
        self.assertEqual(again["tags"], {"floor": {"number": 3, "name": "x"}})
        self.assertNotIn("on", again["properties"]["desired"])
        self.refused(412, "PreconditionFailed", "PATCH", "/twins/twin", {"tags": {}}, If_Match=patched["etag"])
        self.call("PATCH", "/twins/twin", {"tags": {}}, 200, If_Match='"*"')
        replaced = self.call("PUT", "/twins/twin", {"properties": {"desired": {"only": 1}}}, 200, If_Match="*").body
        self.assertEqual(replaced["tags"], {})
        self.assertEqual({name for name in replaced["properties"]["desired"] if name[0] != "$"}, {"only"})

    def test_wrong_twins(self):
        self.device("wrong-twin")
        path = "/twins/wrong-twin"
        for body in ({"tags": []}, {"tags": {"a.b": 1}}, {"tags": {"$a": 1}}, {"properties": {"desired": 1}},
                     {"properties": {"desired": {"n": 2 ** 53}}}, {"tags": {"s": "x" * 4097}}, [], b"x"):
            self.refused(400, "ArgumentInvalid", "PATCH", path, body)
        self.refused(413, "MessageTooLarge", "PATCH", path, {"tags": {str(i): "x" * 4000 for i in range(3)}})
        self.refused(413, "MessageTooLarge", "PATCH", path,
                     {"properties": {"desired": {str(i): "x" * 4000 for i in range(9)}}})
        self.refused(404, "DeviceNotFound", "GET", "/twins/nobody")
        self.refused(404, "DeviceNotFound", "PATCH", "/twins/nobody", {"tags": {}})

    def query(self, where, expect=200, **headers):
        query = "SELECT * FROM devices" + (" WHERE " + where if where else "")
        return self.call("POST", "/devices/query", {"query": query}, expect, **headers)

    def names(self, where):
        return [twin["deviceId"] for twin in self.query(where).body]

    def test_queries(self):
        tags = {"q0": {"n": 1, "s": "a"}, "q1": {"n": 2, "s": "b", "list": [1, 2]}, "q2": {"n": "1"},
                "q3": {"deep": {"t": True}}}
        for name, value in tags.items():
            self.device(name, {"status": "disabled"} if name == "q3" else None)
            self.call("PATCH", "/twins/" + name, {"tags": {"q": value}, "properties": {"desired": {"v": value.get("n")}}}
                      if "n" in value else {"tags": {"q": value}}, 200)
        for where, names in (("tags.q.n = 1", ["q0"]), ("tags.q.n != 1", ["q1"]), ("tags.q.n >= 1", ["q0", "q1"]),
                             ("tags.q.s > 'a'", ["q1"]), ("tags.q.n = '1'", ["q2"]),
                             ("tags.q.n IN [1, '1']", ["q0", "q2"]), ("tags.q.n NIN [1, '1']", ["q1"]),
                             ("IS_DEFINED(tags.q.n) AND NOT tags.q.n = 1", ["q1"]),
                             ("IS_DEFINED(tags.q) AND NOT IS_DEFINED(tags.q.n)", ["q3"]),
                             ("STARTSWITH(deviceId, 'q') AND tags.q['s'] <> 'b'", ["q0"]),
                             ("tags.q.deep.t = true AND status = 'disabled'", ["q3"]),
                             ("IS_STRING(tags.q.n)", ["q2"]), ("IS_ARRAY(tags.q.list)", ["q1"]),
                             ("IS_PRIMITIVE(tags.q.n) AND CONTAINS(deviceId, '0')", ["q0"]),
                             ("properties.desired.v = 2", ["q1"]), ("tags.q.list = 1", []),
                             ("(tags.q.n = 1 OR tags.q.n = 2) AND (tags.q.s = 'b')", ["q1"]),
                             ("deviceId = 'q0' AND properties.reported.$version = 1", ["q0"]),
                             ("deviceId = 'q0\" || 1 == 1'", []), ("tags['\"']= 1 OR deviceId = \"q'\"", [])):
            self.assertEqual(self.names(where), names, where)
        self.assertEqual(set(self.query("deviceId = 'q1'").body[0]),
                         set(self.call("GET", "/twins/q1").body))
        for where in ("tags.q.n", "lastActivityTime > '2026'", "tags.q.n = 1 GROUP BY status", "'"):
            self.refused(400, "ArgumentInvalid", "POST", "/devices/query",
                         {"query": "SELECT * FROM devices WHERE " + where})
        self.refused(400, "ArgumentInvalid", "POST", "/devices/query", {})

    def pages(self, query, size):
        pages, token = [], None
        while token is not None or not pages:
            answer = self.call("POST", "/devices/query", {"query": query}, 200, x_ms_max_item_count=str(size),
                               **({"x_ms_continuation": token} if token else {}))
            self.assertEqual(answer.headers["x-ms-item-type"], "Twin")
            pages.append([twin["deviceId"] for twin in answer.body])
            token = answer.headers["x-ms-continuation"]
        return pages

    def test_pages(self):
        names = [f"page{i}" for i in range(5)]
        self.call("POST", "/devices", [{"id": name, "importMode": "create"} for name in names], 200)
        where = "SELECT {}* FROM devices WHERE STARTSWITH(deviceId, 'page')"
        self.assertEqual(self.pages(where.format(""), 2), [names[:2], names[2:4], names[4:]])
        self.assertEqual(self.pages(where.format("TOP 3 "), 2), [names[:2], names[2:3]])
        self.assertEqual(self.pages(where.format("TOP 9 "), 5), [names])
        self.refused(400, "ArgumentInvalid", "POST", "/devices/query", {"query": where.format("")},
                     x_ms_continuation="!")
        self.refused(400, "ArgumentInvalid", "POST", "/devices/query", {"query": where.format("")},
                     x_ms_max_item_count="1001")

    def test_a_tenant_with_many_devices(self):
        """What is not found among the first so many is looked for behind them."""
        self.gateway.sql("insert into device (tenant_key, device_id, partition) select tenant_key, 'bulky' || "
                         "lpad(n::text, 5, '0'), 0 from tenant, generate_series(1, 2500) n where name = 'demo'")
        self.addCleanup(self.gateway.sql, "delete from device where device_id like 'bulky%'")
        pages = self.pages("SELECT * FROM devices WHERE deviceId IN ['bulky00001', 'bulky02500']", 10)
        self.assertEqual(sum(pages, []), ["bulky00001", "bulky02500"])
        self.assertGreater(len(pages), 1)

    def test_connection_state_in_a_query(self):
        keys = self.device("here")["authentication"]["symmetricKey"]
        self.device("away")
        raw = Raw(self.gateway.MQTT_PORT)
        self.addCleanup(raw.socket.close)
        password = token(keys["primaryKey"], "x", "any/devices/here").replace("&skn=x", "")
        raw.resumed("here@demo", password, client_id="here")
        where = "deviceId IN ['here', 'away'] AND "
        self.assertEqual(self.names(where + "connectionState = 'Connected'"), ["here"])
        self.assertEqual(self.names(where + "NOT connectionState = 'Connected'"), ["away"])
        self.assertEqual(self.query("deviceId = 'here'").body[0]["connectionState"], "Connected")


class Methods(ServiceTest):
    def connect(self, name, **more):
        self.device(name)
        device = CalledDevice(self.gateway, name, key=self.gateway.device(name), **more)
        self.addCleanup(device.socket.close)
        return device

    def start(self, name, body):
        """Calls in the background."""
        service = Service.__new__(Service)
        service.__dict__.update(self.service.__dict__, connection=None)
        self.addCleanup(service.close)
        pool = concurrent.futures.ThreadPoolExecutor(1)
        self.addCleanup(pool.shutdown)
        return pool.submit(service.call, "POST", f"/twins/{name}/methods", body)

    def test_call(self):
        device = self.connect("called")
        call = self.start("called", {"methodName": "reboot", "payload": {"delay": 1.50}, "responseTimeoutInSeconds": 20})
        received = device.called()
        self.assertEqual((received.topic.split("/")[-1], received.payload), ("reboot", b'{"delay":1.5}'))
        device.acknowledged(received)
        device.reply(received, 207, b'{"done":true}')
        answer = call.result(60)
        self.assertEqual((answer.status, answer.body), (200, {"status": 207, "payload": {"done": True}}))
        call = self.start("called", {"methodName": "nothing"})
        received = device.called()
        self.assertEqual(received.payload, b"null")
        device.acknowledged(received)
        device.reply(received, 200, b"")
        self.assertEqual(call.result(60).body, {"status": 200, "payload": None})

    def test_failures(self):
        device = self.connect("failing")
        call = self.start("failing", {"methodName": "x", "responseTimeoutInSeconds": 5})
        received = device.called()
        device.acknowledged(received)
        device.reply(received, 200, b"\xff")
        self.assertEqual(call.result(60).status, 502)
        call = self.start("failing", {"methodName": "x", "responseTimeoutInSeconds": 5})
        device.acknowledged(device.called())
        self.assertEqual(call.result(60).status, 504)
        self.device("offline")
        self.refused(404, "DeviceNotOnline", "POST", "/twins/offline/methods", {"methodName": "x"})
        self.refused(404, "DeviceNotFound", "POST", "/twins/nobody/methods", {"methodName": "x"})
        for body in ({}, {"methodName": "a/b"}, {"methodName": ""}, {"methodName": "x", "responseTimeoutInSeconds": 4},
                     {"methodName": "x", "connectTimeoutInSeconds": 301}, {"methodName": "x", "payload": 1,
                                                                          "connectTimeoutInSeconds": "1"}):
            self.refused(400, "ArgumentInvalid", "POST", "/twins/offline/methods", body)
        self.refused(413, "MessageTooLarge", "POST", "/twins/offline/methods",
                     {"methodName": "x", "payload": "x" * (128 * 1024)})


if __name__ == "__main__":
    unittest.main()
