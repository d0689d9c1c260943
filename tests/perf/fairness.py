"""What noisy devices cost the others: the part fairness."""

import os
import shlex
import subprocess

from measure import FLOOD
from readers import compare_beside

TENANT = "noisy"
FLOODING = 200


def lines_of(path):
    with open(path, encoding="utf-8") as file:
        return file.readlines()


def devices_of_tenant(m, server, count):
    """A tenant of its own with so many devices; the file that names them."""
    path = os.path.join(m.gateway.directory, "noisy-tenant")
    m.gateway.api("PUT", "/v1/tenants/" + TENANT, {})
    subprocess.run(m.command(server, "--idle", "--connections", str(count), "--tenant", TENANT, "--devices-file", path),
                   check=True, stdout=subprocess.DEVNULL)
    return path


def one_more_device(m, server, used):
    """A device of the same tenant as the others, none of the `used` first."""
    path = os.path.join(m.gateway.directory, "noisy-device")
    if len(lines_of(m.devices)) <= used:
        m.make_devices(server, used + 1)
    with open(path, "w", encoding="utf-8") as file:
        file.write(lines_of(m.devices)[used])
    return path


def part_fairness(m, servers, options):
    """Floods at half of what the gateway can take, and without a bound."""
    server = servers[0]
    device = one_more_device(m, server, 100)
    tenant = devices_of_tenant(m, server, FLOODING)
    half = str(int(m.bench(server, *FLOOD, "--duration", "5s")["messages_per_second"] / 2))

    def flood(path, *arguments):  # what it costs the gateway is of interest, not what it takes from the others itself
        return [["nice", "-n", "19", *m.command(server, "--devices-file", path, "--duration", "3600s", *arguments)]]

    rows = [("nobody else", [])]
    for rate, words in ((["--rate", half], f"{int(half):,} messages/s"), ([], "as fast as it can")):
        rows += [
            (f"a device of the tenant, QoS 1, {words}",
             flood(device, "--connections", "1", "--window", "1024", *rate)),
            (f"a device of the tenant, QoS 0, {words}", flood(device, "--connections", "1", "--qos", "0", *rate)),
            (f"{FLOODING} devices of another tenant, QoS 1, {words}",
             flood(tenant, "--connections", str(FLOODING), *rate)),
            (f"{FLOODING} devices of another tenant, QoS 0, {words}",
             flood(tenant, "--connections", str(FLOODING), "--qos", "0", *rate))]
    def storm(tls):
        command = m.command(server, "--devices-file", tenant, "--idle", "--connections", str(FLOODING), "--duration",
                            "1ms", tls=tls)
        return [["nice", "-n", "19", "sh", "-c", f"while :; do {shlex.join(command)}; done"]]

    rows += [(f"{FLOODING} devices of another tenant that connect again and again{words}", storm(tls))
             for tls, words in ((False, ""), (True, ", TLS 1.3"))]
    return compare_beside(m, server, options, "Devices' acknowledgements at 2,000 messages/s beside noisy ones", rows)
