"""Commands: from a back end's POST to the device, one at a time and to many devices at once."""

import os
import urllib.parse

from measure import DEVICES, run_json, table


def command_bench(measurement, server, *numbers):
    env = server.env
    program = os.path.join(measurement.build, "tests/perf/command_bench")
    http_port = urllib.parse.urlparse(env["DURAGATE_HTTP_URL"]).port
    return run_json([program, env["DURAGATE_MQTT_PORT"], str(http_port), env["DURAGATE_TENANT"],
                     env["DURAGATE_API_KEY"], measurement.devices, *map(str, numbers)])


def part_commands(measurement, servers, _options):
    """One by one at a gentle pace, then one to each of many devices over 32 connections."""
    server = servers[0]
    single = command_bench(measurement, server, 100, 1000, 1, 5)
    crowd = command_bench(measurement, server, DEVICES, DEVICES, 32, 0)
    rows = [(name, [f"{run['received_p50_us'] / 1000:.2f} ms", f"{run['received_p99_us'] / 1000:.2f} ms",
                    f"{run['accepted_p50_us'] / 1000:.2f} ms", f"{run['received_s']:.2f} s"])
            for name, run in (("1,000 commands, one at a time", single),
                              (f"{DEVICES:,} commands to {DEVICES:,} connected devices", crowd))]
    return table("Commands: from POST to the device", ["p50", "p99", "202 after, p50", "all received after"], rows)
