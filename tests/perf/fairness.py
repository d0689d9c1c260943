"""What noisy devices cost the others: the part fairness."""

import os
import subprocess

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
    server = servers[0]
    device = one_more_device(m, server, 100)
    tenant = devices_of_tenant(m, server, FLOODING)

    def flood(path, *arguments):  # what it costs the gateway is of interest, not what it takes from the others itself
        return ["nice", "-n", "19", *m.command(server, "--devices-file", path, "--duration", "3600s", *arguments)]

    return compare_beside(m, server, options, "Devices' acknowledgements at 2,000 messages/s beside noisy ones", [
        ("nobody else", []),
        ("a device of the tenant floods: QoS 1, 1,024 in flight",
         [flood(device, "--connections", "1", "--window", "1024")]),
        ("a device of the tenant floods: QoS 0", [flood(device, "--connections", "1", "--qos", "0")]),
        (f"{FLOODING} devices of another tenant flood: QoS 1, 32 in flight each",
         [flood(tenant, "--connections", str(FLOODING))]),
        (f"{FLOODING} devices of another tenant flood: QoS 0",
         [flood(tenant, "--connections", str(FLOODING), "--qos", "0")])])
