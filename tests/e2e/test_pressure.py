"""One tenant, one stranger, one slow database: the others do not suffer."""

import collections
import threading
import time
import unittest

from test_api import ApiTest


class SlowRegistry(ApiTest):
    def test_slow_requests_of_one_tenant(self):
        """Other tenants are served, the tenant itself is told to wait, nothing counts as lost."""
        tenant, other = self.tenant(), self.tenant()
        key, other_key = (self.api_key(t, "reader")["bearer"] for t in (tenant, other))
        for path, bearer in ((tenant, key), (other, other_key)):
            self.call("GET", path + "/devices", expect=200, key=bearer)
        answers = []

        def ask():
            answers.append(self.call("GET", tenant + "/certificate-authorities", key=key))

        with self.gateway.locked("certificate_authority"):
            threads = [threading.Thread(target=ask) for _ in range(60)]
            started = time.monotonic()
            for thread in threads:
                thread.start()
            time.sleep(0.3)
            while time.monotonic() - started < 2.3:
                before = time.monotonic()
                self.call("GET", other + "/devices", expect=200, key=other_key)
                self.assertLess(time.monotonic() - before, 1)
                time.sleep(0.1)
            for thread in threads:
                thread.join()
            self.assertLess(time.monotonic() - started, 5)
        statuses = collections.Counter(answer.status for answer in answers)
        self.assertEqual(set(statuses), {429, 503}, statuses)
        for answer in answers:
            self.assertTrue(answer.headers["Retry-After"])
        self.assertNotIn("connection_lost", self.gateway.log())
        self.call("GET", tenant + "/certificate-authorities", expect=200, key=key)


if __name__ == "__main__":
    unittest.main()
