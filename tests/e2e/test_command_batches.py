"""More commands than one statement lets go, or removes: the gateway goes on until none is left."""

import unittest

from harness import Gateway, wait_until

COUNT = 12000


class Batches(unittest.TestCase):
    def count(self, condition):
        return int(self.gateway.sql(f"select count(*) from command where {condition}"))

    def insert(self, columns, values):
        self.gateway.sql(f"insert into command (tenant_key, device_key, name, payload, wants_reply, expires_at, {columns})"
                         f" select d.tenant_key, d.device_key, 'x', '', true, now() + interval '1 h', {values}"
                         f" from device d, generate_series(1, {COUNT}) where d.device_id = 'busy'")

    def test_batches(self):
        self.gateway = Gateway().up()
        self.addCleanup(self.gateway.close)
        self.gateway.device("busy")
        wait_until(lambda: self.gateway.sql("select count(*) from gateway_instance") == "1", 20)
        self.gateway.kill()
        self.insert("state, holder", "'delivered', (select instance from gateway_instance)")
        self.insert("state, is_final, finished_at", "'completed', true, now() - interval '1000 d'")
        self.gateway.up()
        wait_until(lambda: self.count("holder is not null") == 0, 30)
        self.assertEqual(self.count("not is_final"), COUNT)
        wait_until(lambda: self.count("is_final") == 0, 90)


if __name__ == "__main__":
    unittest.main()
