"""Quotas, groups and gateways of devices in the HTTP API."""

import unittest

from test_api import ApiTest


class PolicyTest(ApiTest):
    def test_policy_of_a_tenant(self):
        tenant = self.tenant({})
        empty = self.call("GET", tenant + "/policy", expect=200)
        self.assertEqual(list(empty.body), ["version"])
        rules = {"device_quota": {"messages_per_second": 10},
                 "groups": {"meters": {"quota": {"bytes_per_second": 1000}, "device_quota": {}}}}
        put = self.call("PUT", tenant + "/policy", rules, 200, If_Match=empty.etag)
        self.assertEqual({**rules, "version": put.body["version"]}, put.body)
        self.assertNotEqual(put.etag, empty.etag)
        self.assertEqual(self.call("GET", tenant, expect=200).etag, put.etag, "it is the tenant's")
        self.refused(412, "version", "PUT", tenant + "/policy", {}, If_Match=empty.etag)
        patched = self.call("PATCH", tenant + "/policy", {"device_quota": None}, 200)
        self.assertEqual(set(patched.body), {"groups", "version"})
        for pointer, body in (("/groups/a b", {"groups": {"a b": {}}}),
                              ("/device_quota/connections", {"device_quota": {"connections": 1}}),
                              ("/device_quota", {"device_quota": []}),
                              ("/nothing", {"nothing": 1})):
            self.refused(422, pointer, "PUT", tenant + "/policy", body)

    def test_quota_is_the_platforms(self):
        tenant = self.tenant({"quota": {"messages_per_second": 5, "connections": 2}})
        self.assertEqual(self.call("GET", tenant, expect=200).body["quota"],
                         {"messages_per_second": 5, "connections": 2})
        self.refused(422, "/quota/messages_per_second", "PATCH", tenant,
                     {"quota": {"messages_per_second": -1}})
        admin = self.api_key(tenant, "admin")["bearer"]
        self.call("PATCH", tenant, {"quota": {}}, 403, key=admin)
        self.call("PATCH", tenant + "/policy", {"groups": {}}, 200, key=admin)
        self.call("PUT", tenant + "/policy", {}, 403, key=self.api_key(tenant, "reader")["bearer"])

    def test_group_and_gateways_of_a_device(self):
        tenant = self.tenant({})
        device = tenant + "/devices/child"
        made = self.call("PUT", device, {"group": "meters", "via": ["gw1", "gw2"]}, 201)
        self.assertEqual((made.body["group"], made.body["via"]), ("meters", ["gw1", "gw2"]))
        kept = self.call("PATCH", device, {"tags": {"a": "b"}}, 200)
        self.assertEqual((kept.body["group"], kept.body["via"]), ("meters", ["gw1", "gw2"]))
        gone = self.call("PATCH", device, {"group": None, "via": None}, 200)
        self.assertEqual((gone.body["group"], gone.body["via"]), (None, []))
        for pointer, body in (("/group", {"group": "a b"}), ("/via", {"via": "gw1"}),
                              ("/via", {"via": ["gw1", "gw1"]}), ("/via", {"via": ["a/b"]}),
                              ("/via", {"via": [f"gw{i}" for i in range(9)]})):
            self.refused(422, pointer, "PUT", device, body)


if __name__ == "__main__":
    unittest.main()
