"""The HTTP API against its own description, and the logins that it makes possible."""

import base64
import hashlib
import hmac
import http.client
import json
import re
import subprocess
import threading
import time
import unittest
import urllib.parse

import paho.mqtt.client as paho

from called_device import CalledDevice
from certificates import Certificates
from contract import Contract
from harness import Gateway, wait_until
from test_groups import Consumer


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.text = response.read().decode()
        self.body = json.loads(self.text) if "json" in self.headers.get("Content-Type", "") else None

    @property
    def etag(self):
        return self.headers["ETag"]

    @property
    def detail(self):
        return self.body["detail"]


class ApiTest(unittest.TestCase):
    """One gateway for the class; call() checks each answer against the description."""

    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway().up()
        cls.contract = Contract()
        cls.host = urllib.parse.urlsplit(cls.gateway.HTTP_URL).netloc
        cls.names = 0

    @classmethod
    def tearDownClass(cls):
        cls.gateway.close()

    def call(self, method, path, body=None, expect=None, key=None, check=True, **headers):
        """body: an object, or bytes as they are. headers: If_Match='"1"'. key: '' for none."""
        connection = http.client.HTTPConnection(self.host, timeout=20)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key != "":
            sent.setdefault("Authorization", "Bearer " + (key or self.gateway.API_KEY))
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request(method, path, body, sent)
            answer = Answer(connection.getresponse())
        finally:
            connection.close()
        if check:
            self.contract.check(method, path.split("?")[0], answer)
        if expect is not None:
            self.assertEqual(answer.status, expect, (method, path, answer.text))
        return answer

    def refused(self, status, text, method, path, body=None, **more):
        """A problem whose detail holds text."""
        answer = self.call(method, path, body, status, **more)
        self.assertEqual(answer.headers["Content-Type"].split(";")[0], "application/problem+json")
        self.assertIn(text, answer.body.get("detail", ""), answer.text)
        return answer

    def name(self, kind):
        type(self).names += 1
        return f"{kind}{self.names}"

    def tenant(self, body=None):
        path = "/v1/tenants/" + self.name("tenant")
        self.call("PUT", path, body or {}, 201)
        return path

    def device(self, tenant=None, body=None):
        path = (tenant or self.tenant()) + "/devices/" + self.name("device")
        self.call("PUT", path, body or {}, 201)
        return path

    def api_key(self, tenant, *roles, **more):
        return self.call("POST", (tenant or "/v1") + "/api-keys", {"roles": list(roles), **more}, 201).body


class Operations(ApiTest):
    """Everything that openapi.yaml names is there and does what it says."""

    def test_every_operation(self):
        self.contract.seen.clear()
        certificates = Certificates(self.gateway.directory)
        certificates.authority("every-ca")
        certificates.authority("next-ca")
        self.walk("tenant", self.tenant(), {"tags": {"a": "b"}}, tags={"a": "b"})
        tenant = self.tenant()
        self.walk("device", self.device(tenant), {"metadata": {"x": 1}}, metadata={"x": 1})
        device = self.device(tenant)
        self.call("GET", device + "/recent", expect=200)
        self.call("GET", device + "/twin", expect=200)
        self.call("PATCH", device + "/twin", {"desired": {"a": 1}, "tags": {"b": {"c": None}}}, 200)
        self.call("PUT", device + "/twin/desired", {"a": 2}, 200)
        self.walk_credentials(device)
        authority = tenant + "/certificate-authorities/ca"
        body = {"certificate": certificates.pem("every-ca")}
        self.assertEqual(self.call("PUT", authority, body, 201).body["fingerprint"],
                         certificates.fingerprint("every-ca"))
        self.walk("authority", authority, {"certificate": certificates.pem("next-ca")},
                  fingerprint=certificates.fingerprint("next-ca"))
        for scope in (tenant, "/v1"):
            key = self.api_key(scope, "reader")
            self.walk("API key", f"{scope}/api-keys/{key['key_id']}", {"description": "changed"},
                      description="changed", put=False)
        self.walk_streams("/v1/tenants/" + self.gateway.TENANT)
        for method, body in (("GET", None), ("PUT", {}), ("PATCH", {})):
            self.call(method, tenant + "/policy", body, 200)
        self.call_method("/v1/tenants/" + self.gateway.TENANT)
        self.walk_commands("/v1/tenants/" + self.gateway.TENANT)
        self.walk_jobs("/v1/tenants/" + self.gateway.TENANT)
        self.walk_policies("/v1/tenants/" + self.gateway.TENANT)
        for path in ("/healthz", "/readyz", "/metrics"):
            self.call("GET", path, expect=200, key="")
        succeeded = {name for name, status in self.contract.seen if status < 300}
        self.assertEqual(succeeded, set(self.contract.operations))

    def walk(self, noun, path, change, put=True, **changed):
        """Lists, reads, replaces, patches and deletes what is at path."""
        collection, _, name = path.rpartition("/")
        items = self.call("GET", collection + "?limit=1000", expect=200).body["items"]
        self.assertTrue([i for i in items if name in i.values()], (noun, items))
        before = self.call("GET", path, expect=200)
        before.body.pop("connection", None)
        self.assertIn(before.body, items)
        if put:
            self.call("PUT", path, change, 200)
        after = self.call("PATCH", path, change, 200).body
        for member, value in changed.items():
            self.assertEqual(after[member], value)
        stored = self.call("GET", path, expect=200).body
        stored.pop("connection", None)
        self.assertEqual(stored, after)
        self.assertGreater(after["version"], before.body["version"])
        self.call("DELETE", path, expect=204)
        self.refused(404, "no such " + noun if noun != "authority" else "no such", "GET", path)
        self.call("DELETE", path, expect=404)

    def walk_credentials(self, device):
        path = device + "/credentials"
        created = self.call("POST", path, {"kind": "key", "name": "one"}, 201)
        self.assertEqual(created.headers["Location"], path + "/one")
        self.assertNotIn("key", self.call("GET", path + "/one", expect=200).body)
        self.call("PUT", path + "/two", {"kind": "password", "password": "correct horse battery"}, 201)
        self.call("PATCH", path + "/two", {"not_after": "2099-01-01T00:00:00Z"}, 200)
        names = [c["name"] for c in self.call("GET", path, expect=200).body["items"]]
        self.assertEqual(sorted(names), ["one", "two"])
        self.call("DELETE", path + "/two", expect=204)
        self.call("GET", path + "/two", expect=404)
        self.call("DELETE", device, expect=204)

    def walk_streams(self, tenant):
        self.gateway.publish("-q", "1", "-t", "t", "-m", "m")
        consumer = Consumer(self.gateway, "every")
        wait_until(consumer.values, 60)
        consumer.stop()
        stream = self.call("GET", tenant + "/streams", expect=200).body["items"][0]["name"]
        self.call("GET", tenant + f"/streams/{stream}/partitions", expect=200)
        self.assertIn("every", str(self.call("GET", tenant + "/consumer-groups", expect=200).body["items"]))
        group = tenant + "/consumer-groups/every"
        wait_until(lambda: self.call("GET", group, expect=200).body["state"] == "Empty", 30)
        self.call("POST", group + "/reset-offsets", {"stream": stream, "to": "latest"}, 200)
        self.call("DELETE", group, expect=204)

    def call_method(self, tenant):
        name = self.name("called")
        device = CalledDevice(self.gateway, name, key=self.gateway.device(name))
        answers = []
        caller = threading.Thread(target=lambda: answers.append(
            self.call("POST", f"{tenant}/devices/{name}/methods/reboot", {"delay": 1}, 200)))
        caller.start()
        device.reply(device.called(), 202)
        caller.join(30)
        device.socket.close()
        self.assertEqual(answers[0].body, {"status": 202, "payload": {"ok": True}})

    def walk_commands(self, tenant):
        commands = self.device(tenant) + "/commands"
        created = self.call("POST", commands, {"name": "reboot"}, 202)
        path = created.headers["Location"]
        self.assertEqual(self.call("GET", path, expect=200).body, created.body)
        self.assertEqual(len(self.call("GET", commands, expect=200).body["items"]), 1)
        self.call("DELETE", path, expect=204)

    def walk_policies(self, tenant):
        path = tenant + "/access-policies/walk"
        made = self.call("PUT", path, {"rights": ["service_connect"]}, 201).body
        self.assertNotIn("primary_key", self.call("GET", path, expect=200).body)
        self.assertIn("primary_key", made)
        self.call("PATCH", path, {"rights": ["registry_read"]}, 200)
        names = [p["name"] for p in self.call("GET", tenant + "/access-policies", expect=200).body["items"]]
        self.assertIn("walk", names)
        self.call("DELETE", path, expect=204)

    def walk_jobs(self, tenant):
        path = tenant + "/jobs/walk"
        self.device(tenant)
        self.call("PUT", path, {"command": {"name": "reboot"}, "query": {"tags": {"walk": "no"}}}, 201)
        for of in (path, tenant + "/jobs", path + "/results"):
            self.call("GET", of, expect=200)
        self.call("DELETE", path, expect=204)
        self.call("PUT", path, {"command": {"name": "reboot"}, "query": {}, "rate": 1}, 201)
        self.call("POST", path + "/abort", expect=200)

    def test_metrics_are_prometheus_text(self):
        text = self.call("GET", "/metrics", key="", expect=200).text
        names = set()
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                names.add(line.split()[2])
            elif not line.startswith("#"):
                self.assertRegex(line, r'^[a-z0-9_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? -?[0-9.e+Inf-]+$')
                base = re.sub(r"_(bucket|sum|count)$", "", re.split(r"[{ ]", line)[0])
                self.assertTrue({base, re.split(r"[{ ]", line)[0]} & names, line)
        self.assertIn("duragate_events_stored_total", names)

    def test_unknown_paths_and_methods(self):
        for method, path, status in (("GET", "/v1", 404), ("GET", "/v2/tenants", 404), ("GET", "/", 404),
                                     ("POST", "/v1/tenants", 405), ("DELETE", "/healthz", 405),
                                     ("GET", "/v1/tenants/demo/", 404), ("GET", "/v1/tenants//devices", 404)):
            answer = self.call(method, path, check=False, expect=status)
            self.assertEqual(answer.body["status"], status, path)
            if status == 405:
                self.assertTrue(answer.headers["Allow"])


class Preconditions(ApiTest):
    def test_not_modified(self):
        for path in (self.tenant(), self.device()):
            tag = self.call("GET", path, expect=200).etag
            self.assertEqual(self.call("GET", path, If_None_Match=tag, expect=304).etag, tag)
            self.call("GET", path, If_None_Match='"0", ' + tag, expect=304)
            self.call("GET", path, If_None_Match="*", expect=304)
            self.call("GET", path, If_None_Match='"999999"', expect=200)

    def test_writes_under_a_version(self):
        path = self.device()
        old = self.call("GET", path, expect=200).etag
        new = self.call("PATCH", path, {"tags": {"n": "1"}}, 200, If_Match=old).etag
        self.assertNotEqual(old, new)
        for method, body in (("PUT", {}), ("PATCH", {"enabled": False}), ("DELETE", None)):
            self.call(method, path, body, 412, If_Match=old)
        stored = self.call("GET", path, expect=200)
        self.assertEqual((stored.etag, stored.body["tags"], stored.body["enabled"]), (new, {"n": "1"}, True))
        self.call("PUT", path, {}, 200, If_Match=new)
        self.call("PUT", path, {}, 200, If_Match="*")
        self.call("DELETE", path, expect=204, If_Match=self.call("GET", path).etag)
        self.call("PUT", path, {}, 412, If_Match="*")
        self.assertEqual(self.call("GET", path).status, 404)

    def test_create_only(self):
        path = self.tenant() + "/devices/" + self.name("device")
        self.call("PUT", path, {"tags": {"first": "yes"}}, 201, If_None_Match="*")
        self.call("PUT", path, {}, 412, If_None_Match="*")
        self.assertEqual(self.call("GET", path).body["tags"], {"first": "yes"})

    def test_conditions_that_make_no_sense(self):
        path = self.device()
        self.call("PUT", path, {}, 400, If_None_Match='"1"')
        self.call("PUT", path, {}, 400, If_Match='"1"', If_None_Match="*")
        self.call("PUT", path, {}, 412, If_Match="1")
        self.call("PUT", path, {}, 400, If_Match=", ,")
        self.call("PUT", path, {}, 400, If_Match=", ".join(f'"{n}"' for n in range(1, 18)))

    def test_one_of_several_versions(self):
        path = self.device()
        tag = self.call("GET", path).etag
        others = '"1", W/"2", "x,y", '
        self.call("DELETE", path, expect=412, If_Match=others + "W/" + tag)
        tag = self.call("PUT", path, {"tags": {"a": "b"}}, 200, If_Match=others + tag).etag
        tag = self.call("PATCH", path, {"tags": {"c": "d"}}, 200, If_Match=tag + ", " + others).etag
        self.call("PATCH", path, {"tags": {"e": "f"}}, 412, If_Match=others)
        self.assertEqual(self.call("GET", path).body["tags"], {"a": "b", "c": "d"})
        self.call("DELETE", path, expect=204, If_Match=others + tag)

    def test_racing_writers_lose_nothing(self):
        """Patches without a version are all applied; of writers under one version one wins."""
        path = self.device()
        tag = self.call("GET", path).etag
        outcomes = [self.call("PATCH", path, {"tags": {str(i): "x"}}, If_Match=tag).status for i in range(3)]
        self.assertEqual(outcomes, [200, 412, 412])


class Bodies(ApiTest):
    def test_merge_patch(self):
        path = self.device(body={"metadata": {"a": {"b": 1, "c": 2}, "d": [1, 2]}, "tags": {"t": "1", "u": "2"}})
        patch = json.dumps({"metadata": {"a": {"b": None, "e": 3.5}, "d": [3]}, "tags": {"t": None}}).encode()
        body = self.call("PATCH", path, patch, 200, Content_Type="application/merge-patch+json").body
        self.assertEqual(body["metadata"], {"a": {"c": 2, "e": 3.5}, "d": [3]})
        self.assertEqual(body["tags"], {"u": "2"})
        self.assertEqual(self.call("PATCH", path, {"metadata": None}, 200).body["metadata"], {})
        self.assertEqual(self.call("PATCH", path, {"enabled": False}, 200).body["tags"], {"u": "2"})

    def test_put_replaces_the_whole(self):
        path = self.device(body={"enabled": False, "tags": {"t": "1"}, "metadata": {"m": 1}})
        body = self.call("PUT", path, {}, 200).body
        self.assertEqual((body["enabled"], body["tags"], body["metadata"]), (True, {}, {}))

    def test_metadata_comes_back_as_it_was(self):
        metadata = {"text": "ü€😀\\\"/\n", "deep": {"a": [{"b": None}]}, "numbers": [0.1, -1, 2 ** 53, 1.5e-7],
                    "": True}
        self.assertEqual(self.call("GET", self.device(body={"metadata": metadata})).body["metadata"], metadata)

    def test_refused_members_are_named(self):
        tenant, device = self.tenant(), self.device()
        credentials = device + "/credentials"
        for pointer, method, path, body in (
                ("/colour", "PUT", device, {"colour": "blue"}),
                ("/colour", "PATCH", device, {"colour": "blue"}),
                ("/device_id", "PUT", device, {"device_id": "other"}),
                ("/partition", "PATCH", device, {"partition": 3}),
                ("/enabled", "PATCH", device, {"enabled": None}),
                ("/enabled", "PATCH", tenant, {"enabled": None, "tags": {}}),
                ("/enabled", "PUT", device, {"enabled": "yes"}),
                ("/tags/a~1b", "PUT", tenant, {"tags": {"a/b": 1}}),
                ("/metadata", "PUT", device, {"metadata": [1]}),
                ("/metadata", "PUT", device, {"metadata": {"x": "y" * 33000}}),
                ("/tags", "PUT", device, {"tags": {"x": "y" * 8200}}),
                ("/partition_count", "PUT", tenant, {"partition_count": 0}),
                ("/partition_count", "PUT", tenant, {"partition_count": 1.5}),
                ("/partition_count", "PATCH", tenant, {"partition_count": 1}),
                ("/roles", "POST", tenant + "/api-keys", {}),
                ("/roles/1", "POST", tenant + "/api-keys", {"roles": ["reader", "root"]}),
                ("/key_id", "POST", tenant + "/api-keys", {"roles": ["reader"], "key_id": "a.b/c"}),
                ("/not_after", "POST", tenant + "/api-keys", {"roles": ["reader"], "not_after": "tomorrow"}),
                ("/kind", "POST", credentials, {}),
                ("/kind", "POST", credentials, {"kind": "magic"}),
                ("/kind", "PUT", credentials + "/k", {"kind": "key"}),
                ("/password", "POST", credentials, {"kind": "password", "password": "short"}),
                ("/password", "POST", credentials, {"kind": "password", "password": "A" * 32}),
                ("/password", "POST", credentials, {"kind": "key", "password": "long enough for it"}),
                ("/thumbprint", "POST", credentials, {"kind": "x509", "thumbprint": "z" * 64}),
                ("/certificate", "POST", credentials, {"kind": "x509", "certificate": "no certificate"}),
                ("/not_after", "POST", credentials, {"kind": "key", "not_before": "2030-01-01T00:00:00Z",
                                                     "not_after": "2029-01-01T00:00:00Z"}),
                ("/certificate", "PUT", tenant + "/certificate-authorities/x", {"certificate": "nonsense"})):
            with self.subTest(method=method, body=str(body)[:80]):
                answer = self.refused(422, pointer, method, path, body)
                self.assertTrue(answer.detail.startswith(pointer), answer.detail)

    def test_bodies_that_are_no_json_object(self):
        path = self.device()
        version = self.call("GET", path).body["version"]
        deep = b'{"metadata":' + b'{"a":' * 20 + b"1" + b"}" * 20 + b"}"
        for body in (b"", b"{", b"[]", b"1", b'{"enabled":true,"enabled":false}', deep, b'{"tags":{"a":"1","a":"2"}}',
                     b'{"metadata":{"a":"\xff"}}', b'{} {}', b'{"metadata":{"a":"\\ud800"}}', b"[" * 100000):
            with self.subTest(body=body[:40]):
                self.call("PUT", path, body, expect=413 if len(body) > 65536 else 400)
        self.assertEqual(self.call("GET", path).body["version"], version)

    def test_nul_in_metadata(self):
        """jsonb cannot hold U+0000: refused in words, not a 500."""
        answer = self.call("PUT", self.device(), b'{"metadata":{"a":"\\u0000"}}')
        self.assertIn(answer.status, (400, 422), answer.text)

    def test_media_type(self):
        path = self.device()
        self.call("PUT", path, b"{}", 415, Content_Type="text/plain")
        self.call("PUT", path, b"{}", 200, Content_Type="Application/JSON; charset=utf-8")

    def test_oversized_body(self):
        path = self.device()
        self.call("PUT", path, b'{"metadata":{"x":"' + b"y" * 300000 + b'"}}', 413)
        self.call("POST", path + "/credentials", b" " * 200000, 413)
        self.call("GET", path, expect=200)

    def test_names_in_paths(self):
        tenant = self.tenant()
        for name, status in (("a" * 128, 201), ("a" * 129, 422), ("A.b_c:d-e", 201), ("a%20b", 422), ("%C3%BC", 422),
                             ("a%40b", 422), ("%2E%2E", None), ("a%2Fb", None), ("a%00b", None)):
            answer = self.call("PUT", f"{tenant}/devices/{name}", {}, check=False)
            if status:
                self.assertEqual(answer.status, status, (name, answer.text))
            else:
                self.assertIn(answer.status, (400, 404, 422), (name, answer.text))
        for name in ("Upper", "-a", "a-", "a" * 64, "a.b", "a_b"):
            self.call("PUT", "/v1/tenants/" + name, {}, 422)
        devices = self.call("GET", tenant + "/devices").body["items"]
        self.assertEqual({d["device_id"] for d in devices}, {"a" * 128, "A.b_c:d-e"})


class Lists(ApiTest):
    def pages(self, path, limit=10, **more):
        items, cursor, pages = [], None, 0
        while True:
            query = f"limit={limit}" + (f"&cursor={cursor}" if cursor else "")
            separator = "&" if "?" in path else "?"
            page = self.call("GET", path + separator + query, expect=200, **more).body
            self.assertLessEqual(len(page["items"]), limit)
            items += page["items"]
            pages += 1
            cursor = page["next_cursor"]
            if cursor is None:
                return items, pages

    def test_25_devices_in_pages_of_10(self):
        tenant = self.tenant()
        for number in range(25):
            self.call("PUT", f"{tenant}/devices/d{number:02}", {"enabled": number % 5 != 0,
                                                                "tags": {"floor": str(number % 3), "all": "x"}}, 201)
        items, pages = self.pages(tenant + "/devices")
        self.assertEqual([i["device_id"] for i in items], [f"d{n:02}" for n in range(25)])
        self.assertEqual(pages, 3)
        items, _ = self.pages(tenant + "/devices?enabled=false", limit=2)
        self.assertEqual([i["device_id"] for i in items], ["d00", "d05", "d10", "d15", "d20"])
        items, _ = self.pages(tenant + "/devices?tag.floor=1&tag.all=x&enabled=true", limit=3)
        self.assertEqual([i["device_id"] for i in items],
                         [f"d{n:02}" for n in range(25) if n % 3 == 1 and n % 5])
        self.assertEqual(self.pages(tenant + "/devices?tag.floor=9")[0], [])

    def test_rows_made_or_deleted_between_pages(self):
        tenant = self.tenant()
        for name in "acegi":
            self.call("PUT", f"{tenant}/devices/{name}", {}, 201)
        page = self.call("GET", tenant + "/devices?limit=2").body
        for method, name in (("PUT", "b"), ("PUT", "d"), ("DELETE", "c"), ("DELETE", "e")):
            self.call(method, f"{tenant}/devices/{name}", {} if method == "PUT" else None)
        rest = self.call("GET", f"{tenant}/devices?limit=100&cursor={page['next_cursor']}").body["items"]
        self.assertEqual([i["device_id"] for i in rest], ["d", "g", "i"])

    def test_large_items_still_come_all(self):
        tenant = self.tenant()
        for number in range(30):
            self.call("PUT", f"{tenant}/devices/d{number:02}", {"metadata": {"x": "y" * 30000}}, 201)
        items, pages = self.pages(tenant + "/devices", limit=1000)
        self.assertEqual(len(items), 30)
        self.assertGreater(pages, 1)

    def test_every_collection_pages(self):
        tenant, device = self.tenant(), self.device()
        for number in range(5):
            self.api_key(tenant, "reader", key_id=f"paged-{number}")
            self.call("POST", device + "/credentials", {"kind": "key", "name": f"k{number}"}, 201)
        self.assertEqual(len(self.pages(tenant + "/api-keys", 2)[0]), 5)
        self.assertEqual(len(self.pages(device + "/credentials", 2)[0]), 5)
        tenants = [t["name"] for t in self.pages("/v1/tenants", 1)[0]]
        self.assertEqual(tenants, sorted(set(tenants)))

    def test_queries_that_make_no_sense(self):
        tenant = self.tenant()
        for query in ("limit=0", "limit=1001", "limit=x", "limit=-1", "limit=", "cursor=!!!", "cursor=Q",
                      "enabled=maybe", "colour=red", "tag.=x", "tag.a=1&tag.a=2", "limit=1&limit=%zz"):
            with self.subTest(query=query):
                self.call("GET", f"{tenant}/devices?{query}", expect=400)
        self.call("GET", tenant + "/api-keys?enabled=true", expect=400)


class Rights(ApiTest):
    def rows(self, tenant):
        """(roles that may, method, path, body, status when it may)"""
        read = {"admin", "operator", "reader"}
        return [(read, "GET", tenant, None, 200), (read, "GET", tenant + "/devices", None, 200),
                (read, "GET", tenant + "/devices/d", None, 200), (read, "GET", tenant + "/api-keys", None, 200),
                (read, "GET", tenant + "/certificate-authorities", None, 200),
                ({"admin", "operator"}, "PUT", tenant + "/devices/d", {}, 200),
                ({"admin", "operator"}, "PATCH", tenant + "/devices/d", {}, 200),
                ({"admin", "operator"}, "POST", tenant + "/devices/d/credentials", {"kind": "key"}, 201),
                ({"admin", "operator"}, "DELETE", tenant + "/devices/other", None, 404),
                ({"admin"}, "POST", tenant + "/api-keys", {"roles": ["reader"]}, 201),
                ({"admin"}, "DELETE", tenant + "/api-keys/nothing", None, 404),
                ({"admin"}, "DELETE", tenant + "/certificate-authorities/nothing", None, 404)]

    def test_role_matrix(self):
        tenant = self.tenant()
        self.call("PUT", tenant + "/devices/d", {}, 201)
        for scope in (tenant, None):
            for role in ("admin", "operator", "reader", "consumer", "auditor", "commander"):
                key = self.api_key(scope, role)["bearer"]
                for may, method, path, body, status in self.rows(tenant):
                    with self.subTest(scope=scope, role=role, method=method, path=path):
                        self.call(method, path, body, status if role in may else 403, key=key)

    def test_a_tenants_key_sees_only_its_tenant(self):
        mine, other = self.tenant(), self.tenant()
        key = self.api_key(mine, "admin")["bearer"]
        self.call("PUT", other + "/devices/d", {}, 201)
        self.call("POST", other + "/devices/d/credentials", {"kind": "key", "name": "k"}, 201)
        foreign = self.api_key(other, "reader")["key_id"]
        for method, path, body in (
                ("GET", other, None), ("GET", other + "/devices", None), ("GET", other + "/devices/d", None),
                ("PUT", other + "/devices/d", {}), ("PUT", other + "/devices/new", {}),
                ("PATCH", other + "/devices/d", {"enabled": False}), ("DELETE", other + "/devices/d", None),
                ("GET", other + "/devices/d/credentials", None), ("DELETE", other + "/devices/d/credentials/k", None),
                ("POST", other + "/devices/d/credentials", {"kind": "key"}), ("GET", other + "/api-keys", None),
                ("POST", other + "/api-keys", {"roles": ["admin"]}), ("DELETE", other + "/api-keys/" + foreign, None),
                ("DELETE", mine + "/api-keys/" + foreign, None), ("GET", mine + "/api-keys/" + foreign, None),
                ("PATCH", mine + "/api-keys/" + foreign, {"roles": ["admin"]}),
                ("GET", "/v1/tenants/there-is-none", None), ("PUT", "/v1/tenants/there-is-none", {}),
                ("DELETE", other, None), ("PATCH", other, {"enabled": False})):
            with self.subTest(method=method, path=path):
                self.call(method, path, body, 404, key=key)
        self.assertEqual([t["name"] for t in self.call("GET", "/v1/tenants", key=key).body["items"]],
                         [mine.rpartition("/")[2]])
        for method, path, body in (("GET", "/v1/api-keys", None), ("POST", "/v1/api-keys", {"roles": ["admin"]}),
                                   ("DELETE", mine, None), ("PATCH", mine, {"partition_count": 64})):
            self.call(method, path, body, 403, key=key)
        self.assertTrue(self.call("GET", other + "/devices/d", expect=200).body["enabled"])
        self.call("GET", f"{other}/api-keys/{foreign}", expect=200)

    def test_no_key_wrong_key_and_a_devices_key(self):
        tenant = self.tenant()
        device_key = self.gateway.device("keyholder")
        for given in ("", "nonsense", "a.b", self.gateway.API_KEY[:-1] + "!", f"keyholder.{device_key}",
                      f"keyholder@{self.gateway.TENANT}.{device_key}", "." + self.gateway.API_KEY):
            with self.subTest(given=given):
                answer = self.call("GET", tenant, expect=401, key=given)
                self.assertIn("Bearer", answer.headers["WWW-Authenticate"])
        self.call("GET", tenant, expect=401, key="", Authorization="Basic YTpi")

    def test_expired_patched_and_deleted_keys(self):
        tenant = self.tenant()
        soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
        key = self.api_key(tenant, "reader", not_after=soon)
        self.call("GET", tenant, expect=200, key=key["bearer"])
        wait_until(lambda: self.call("GET", tenant, key=key["bearer"]).status == 401, 4)
        key = self.api_key(tenant, "reader")
        path = f"{tenant}/api-keys/{key['key_id']}"
        self.call("PUT", tenant + "/devices/d", {}, 403, key=key["bearer"])
        self.call("PATCH", path, {"roles": ["operator"]}, 200)
        wait_until(lambda: self.call("PUT", tenant + "/devices/d", {}, key=key["bearer"]).status == 201, 2)
        self.call("DELETE", path, expect=204)
        wait_until(lambda: self.call("GET", tenant, key=key["bearer"]).status == 401, 1)

    def test_disabled_tenant(self):
        tenant = self.tenant()
        key = self.api_key(tenant, "admin")["bearer"]
        self.call("GET", tenant, expect=200, key=key)
        self.call("PATCH", tenant, {"enabled": False}, 200)
        wait_until(lambda: self.call("GET", tenant, key=key).status == 403, 1)

    def test_key_ids_are_unique_over_tenants(self):
        first, second = self.tenant(), self.tenant()
        key = self.api_key(first, "reader", key_id="the-only-one")
        for scope in (second, "/v1"):
            self.call("POST", scope + "/api-keys", {"roles": ["admin"], "key_id": "the-only-one"}, 409)
        self.call("GET", first, expect=200, key=key["bearer"])


class Cascades(ApiTest):
    def test_deleting_a_device_takes_its_credentials(self):
        device = self.device()
        self.call("POST", device + "/credentials", {"kind": "key", "name": "k"}, 201)
        self.call("DELETE", device, expect=204)
        self.call("GET", device + "/credentials/k", expect=404)
        self.call("GET", device + "/credentials", expect=404)
        self.call("PUT", device, {}, 201)
        self.assertEqual(self.call("GET", device + "/credentials").body["items"], [])

    def test_deleting_a_tenant_takes_everything(self):
        certificates = Certificates(self.gateway.directory)
        certificates.authority("cascade-ca")
        body = {"certificate": certificates.pem("cascade-ca")}
        tenant = self.tenant()
        self.call("PUT", tenant + "/devices/d", {}, 201)
        self.call("PUT", tenant + "/certificate-authorities/ca", body, 201)
        key = self.api_key(tenant, "reader")["bearer"]
        self.call("GET", tenant, expect=200, key=key)
        other = self.tenant()
        self.call("PUT", other + "/certificate-authorities/ca", body, 201)
        self.call("DELETE", tenant, expect=204)
        wait_until(lambda: self.call("GET", tenant, key=key).status == 401, 1)
        self.call("PUT", tenant, {}, 201)
        for collection in ("devices", "api-keys", "certificate-authorities"):
            self.assertEqual(self.call("GET", f"{tenant}/{collection}").body["items"], [])

    def test_partitions_only_grow(self):
        tenant = self.tenant({"partition_count": 4})
        self.assertEqual(self.call("PUT", tenant, {}, 200).body["partition_count"], 4)
        before = {}
        for number in range(8):
            path = f"{tenant}/devices/d{number}"
            before[path] = self.call("PUT", path, {}, 201).body["partition"]
            self.assertLess(before[path], 4)
        self.call("PATCH", tenant, {"partition_count": 32}, 200)
        self.refused(422, "/partition_count", "PATCH", tenant, {"partition_count": 8})
        for path, partition in before.items():
            self.assertEqual(self.call("PUT", path, {}, 200).body["partition"], partition)


class Logins(ApiTest):
    """Each kind of credential opens the door, and only its own."""

    def setUp(self):
        self.id = self.name("login")
        self.path = f"/v1/tenants/{self.gateway.TENANT}/devices/{self.id}"
        self.call("PUT", self.path, {}, 201)

    def credential(self, expect=201, **body):
        return self.call("POST", self.path + "/credentials", body, expect).body

    def connack(self, password, user=None):
        """The reason code that MQTT 5 gives this login."""
        reasons = []
        client = paho.Client(self.id, protocol=paho.MQTTv5)
        client.username_pw_set(user or f"{self.id}@{self.gateway.TENANT}", password)
        client.on_connect = lambda c, u, f, rc, p=None: reasons.append(rc.value)
        client.connect("localhost", int(self.gateway.MQTT_PORT), 30)
        client.loop_start()
        try:
            wait_until(lambda: reasons, 10)
        finally:
            client.disconnect()
            client.loop_stop()
        return reasons[0]

    def token(self, key, resource=None, lifetime=3600):
        resource = urllib.parse.quote_plus(resource or f"gateway.example/devices/{self.id}")
        expiry = str(int(time.time()) + lifetime)
        signature = hmac.new(base64.b64decode(key), f"{resource}\n{expiry}".encode(), hashlib.sha256).digest()
        return (f"SharedAccessSignature sr={resource}&sig="
                f"{urllib.parse.quote_plus(base64.b64encode(signature))}&se={expiry}")

    def test_password(self):
        self.credential(kind="password", password="correct horse battery")
        self.assertEqual(self.connack("correct horse battery"), 0)
        self.assertEqual(self.connack("correct horse battery"), 0)
        self.assertEqual(self.connack("correct horse batterY"), 0x86)
        self.assertEqual(self.connack(""), 0x86)

    def test_replaced_password(self):
        path = self.path + "/credentials/p"
        self.call("PUT", path, {"kind": "password", "password": "the first password"}, 201)
        self.assertEqual(self.connack("the first password"), 0)
        self.call("PUT", path, {"kind": "password", "password": "the second password"}, 200)
        wait_until(lambda: self.connack("the second password") == 0, 2)
        self.assertEqual(self.connack("the first password"), 0x86)

    def test_sas_token(self):
        keys = self.credential(kind="sas")
        for key in (keys["primary_key"], keys["secondary_key"]):
            self.assertEqual(self.connack(self.token(key)), 0)
        foreign = base64.b64encode(b"x" * 32).decode()
        for bad in (self.token(foreign), self.token(keys["primary_key"], lifetime=-1),
                    self.token(keys["primary_key"], "gateway.example/devices/other"),
                    self.token(keys["primary_key"], f"gateway.example/devices/{self.id}/more"),
                    self.token(keys["primary_key"]).replace("se=", "se=9"), keys["primary_key"],
                    "SharedAccessSignature sr=&sig=&se="):
            with self.subTest(bad=bad):
                self.assertEqual(self.connack(bad), 0x86)

    def test_the_connection_ends_with_its_token(self):
        key = self.credential(kind="sas")["primary_key"]
        reasons = []
        client = paho.Client(self.id, protocol=paho.MQTTv5)
        client.username_pw_set(f"{self.id}@{self.gateway.TENANT}", self.token(key, lifetime=3))
        client.on_disconnect = lambda c, u, rc, p=None: reasons.append(getattr(rc, "value", rc))
        client.reconnect_delay_set(60, 60)
        client.connect("localhost", int(self.gateway.MQTT_PORT), 30)
        client.loop_start()
        self.addCleanup(client.loop_stop)
        time.sleep(1)
        self.assertEqual(reasons, [])
        wait_until(lambda: reasons, 4)

    def test_rotation_with_overlap(self):
        old = self.credential(kind="key", name="old")["key"]
        new = self.credential(kind="key", name="new")["key"]
        self.assertEqual([self.connack(old), self.connack(new)], [0, 0])
        self.call("DELETE", self.path + "/credentials/old", expect=204)
        wait_until(lambda: self.connack(old) == 0x86, 2)
        self.assertEqual(self.connack(new), 0)

    def test_validity(self):
        future = "2099-01-01T00:00:00Z"
        past = self.credential(kind="key", name="past", not_after="2020-01-01T00:00:00Z")["key"]
        early = self.credential(kind="key", name="early", not_before=future)["key"]
        self.assertEqual([self.connack(past), self.connack(early)], [0x86, 0x86])
        self.call("PATCH", self.path + "/credentials/past", {"not_after": future}, 200)
        self.call("PATCH", self.path + "/credentials/early", {"not_before": None}, 200)
        wait_until(lambda: [self.connack(past), self.connack(early)] == [0, 0], 2)

    def test_limit_of_credentials(self):
        for _ in range(8):
            self.credential(kind="key")
        self.refused(422, "credentials", "POST", self.path + "/credentials", {"kind": "key"})
        self.call("PUT", self.path + "/credentials/ninth", {"kind": "password", "password": "x" * 12}, 422)
        self.assertEqual(len(self.call("GET", self.path + "/credentials").body["items"]), 8)

    def test_secrets_are_not_shown_again_nor_logged(self):
        key = self.credential(kind="key", name="k")["key"]
        sas = self.credential(kind="sas", name="s")
        self.credential(kind="password", name="p", password="never to be seen again")
        self.connack(key + "x")
        self.connack("never to be seen again?")
        self.connack(key)
        shown = self.call("GET", self.path + "/credentials").text + self.gateway.log() + self.gateway.consume()
        for secret in (key, sas["primary_key"], sas["secondary_key"], "never to be seen again",
                       self.gateway.API_KEY.rpartition(".")[2]):
            self.assertNotIn(secret, shown)

    def test_a_name_is_taken(self):
        self.credential(kind="key", name="same")
        self.credential(409, kind="key", name="same")

    # ---- certificates ----

    def publish_with(self, certificate, *more, topic="by/certificate"):
        """Whether a publish over TLS with this client certificate is acknowledged."""
        directory = self.gateway.directory
        done = subprocess.run(
            ["mosquitto_pub", "-h", "localhost", "-p", self.gateway.MQTTS_PORT, "--cafile", self.gateway.CA_FILE,
             "--cert", f"{directory}/{certificate}.pem", "--key", f"{directory}/{certificate}.key",
             "-q", "1", "-t", topic, "-m", "x", *more], capture_output=True, text=True, timeout=30, check=False)
        return done.returncode == 0

    def named(self, device=None, tenant=None):
        return "-u", f"{device or self.id}@{tenant or self.gateway.TENANT}"

    def test_thumbprint(self):
        certificates = Certificates(self.gateway.directory)
        for digest in ("sha256", "sha1", None):
            name = f"{self.id}-{digest}"
            certificates.self_signed(name, self.id)
            self.assertFalse(self.publish_with(name, *self.named()))
            given = {"certificate": certificates.pem(name)} if digest is None else \
                {"thumbprint": certificates.fingerprint(name, digest).upper()}
            shown = self.credential(kind="x509", name=digest or "pem", **given)
            self.assertEqual(shown["thumbprint"], certificates.fingerprint(name, digest or "sha256"))
            wait_until(lambda: self.publish_with(name, *self.named()), 2)
        other = self.name("login")
        self.call("PUT", f"/v1/tenants/{self.gateway.TENANT}/devices/{other}", {}, 201)
        self.assertFalse(self.publish_with(name, *self.named(other)))
        self.assertFalse(self.publish_with(name))
        self.call("DELETE", self.path + "/credentials/pem", expect=204)
        wait_until(lambda: not self.publish_with(name, *self.named()), 2)

    def test_tenant_authority(self):
        certificates = Certificates(self.gateway.directory)
        ca = certificates.path(self.id + "-ca")
        certificates.authority(self.id + "-ca")
        certificates.signed("good", ca, self.id)
        certificates.signed("nobody", ca, "no-such-device")
        certificates.signed("server-only", ca, self.id, "extendedKeyUsage=serverAuth")
        self.assertFalse(self.publish_with("good"))
        authority = f"/v1/tenants/{self.gateway.TENANT}/certificate-authorities/{self.id}"
        self.call("PUT", authority, {"certificate": certificates.pem(self.id + "-ca")}, 201)
        wait_until(lambda: self.publish_with("good", topic=self.id), 2)
        self.assertTrue(self.publish_with("good", *self.named(), topic=self.id))
        stored = [line for line in self.gateway.consume().splitlines() if f"ce_subject={self.id}," in line]
        self.assertTrue(stored)
        for line in stored:
            self.assertIn(f"ce_source=/tenants/{self.gateway.TENANT}/devices/{self.id},", line)
        self.assertFalse(self.publish_with("good", *self.named("sensor1")))
        self.assertFalse(self.publish_with("good", *self.named(tenant="other")))
        self.assertFalse(self.publish_with("nobody"))
        self.assertFalse(self.publish_with("server-only"))
        self.call("DELETE", authority, expect=204)
        wait_until(lambda: not self.publish_with("good"), 2)

    def test_an_authority_of_the_same_name_signs_nothing(self):
        """Another CA that calls itself the same, and a leaf that poses as a CA."""
        certificates = Certificates(self.gateway.directory)
        ca, forged = certificates.path(self.id + "-ca"), certificates.path(self.id + "-forged")
        certificates.authority(self.id + "-ca", "The CA")
        certificates.authority(self.id + "-forged", "The CA")
        certificates.signed("true", ca, self.id)
        certificates.signed("false", forged, self.id)
        certificates.signed("grandchild", certificates.path("true"), self.id)
        authority = f"/v1/tenants/{self.gateway.TENANT}/certificate-authorities/{self.id}"
        self.call("PUT", authority, {"certificate": certificates.pem(self.id + "-ca")}, 201)
        wait_until(lambda: self.publish_with("true"), 2)
        self.assertFalse(self.publish_with("false"))
        with open(certificates.path("grandchild.pem"), "a", encoding="ascii") as file:
            file.write(certificates.pem("true"))
        self.assertFalse(self.publish_with("grandchild"))


if __name__ == "__main__":
    unittest.main()
