"""What an event costs, and a start after kill -9, as the installation grows: the part growth."""

import concurrent.futures
import os
import signal
import statistics
import subprocess
import time
import urllib.error
import urllib.request

from measure import FLOOD, RETENTION, Gateway, Measurement, drop_page_cache, ratio, start_duragate, table

CONNECTIONS = 1000
LOAD = ["--connections", str(CONNECTIONS), "--window", "32", "--size", "256", "--qos", "1"]
STEADY = LOAD + ["--rate", "20000", "--duration", "8s"]
FAST = LOAD + ["--duration", "5s"]
EVENT_BYTES = 600  # on disk, of storage_bench
READY_S = 600


class Place:
    """A gateway of one's own."""

    def __init__(self, build, **settings):
        self.gateway = Gateway(build, {"DURAGATE_CFG_" + name: value for name, value in settings.items()})

    def __enter__(self):
        self.gateway.up()
        self.m = Measurement(self.gateway.build, self.gateway)
        self.server = start_duragate(self.gateway)
        return self

    def __exit__(self, *unused):
        self.gateway.close()

    def make_tenant(self, name, partitions, devices):
        """Lines of user and key."""
        body = {"partition_count": partitions} if partitions else {}
        status, answer, _ = self.gateway.api("PUT", "/v1/tenants/" + name, body)
        assert status in (200, 201), answer
        return [f"dev{number}@{name} {self.gateway.device(f'dev{number}', tenant=name)}\n" for number in range(devices)]

    def write_devices(self, name, lines):
        path = os.path.join(self.gateway.directory, name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
            file.writelines(lines)
        return path


def axis(title, results, first):
    """results: name -> list of (steady, fast)."""
    rows = []
    medians = {}
    for name, runs in results.items():
        medians[name] = [{figure: statistics.median(run[i][figure] for run in runs) for figure in runs[0][i]}
                         for i in range(2)]
    for name, (steady, fast) in medians.items():
        cpu = [steady["server_cpu_us_per_message"], fast["server_cpu_us_per_message"]]
        base = [run["server_cpu_us_per_message"] for run in medians[first]]
        rows.append((name, [f"{cpu[0]:.2f} µs", ratio(cpu[0], base[0]), f"{steady['p99_us'] / 1000:.2f} ms",
                            f"{fast['messages_per_second']:,.0f}/s", f"{cpu[1]:.2f} µs", ratio(cpu[1], base[1])]))
        print("  " + " | ".join([name] + rows[-1][1]), flush=True)
    return table(title, ["CPU per event at 20,000/s", "of the first", "p99", "flood", "CPU per event", "of the first"],
                 rows)


def take_turns(place, options, files):
    results = {name: [] for name in files}
    for number in range(options.rounds):
        for name, path in files.items():
            print(f"  round {number + 1}: {name}", flush=True)
            results[name].append([place.m.bench(place.server, *load, "--devices-file", path)
                                  for load in (STEADY, FAST)])
    return results


def axis_tenants(build, options):
    with Place(build, STORAGE__RETENTION_BYTES=RETENTION) as place:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            many = [line for lines in pool.map(lambda number: place.make_tenant(f"t{number}", None, 1),
                                               range(CONNECTIONS)) for line in lines]
        files = {"1 tenant": place.write_devices("one", place.make_tenant("single", None, CONNECTIONS)),
                 f"{CONNECTIONS:,} tenants": place.write_devices("many", many)}
        return axis(f"Tenants: {CONNECTIONS:,} devices in one, or each in its own", take_turns(place, options, files),
                    "1 tenant")


def axis_partitions(build, options):
    with Place(build, STORAGE__RETENTION_BYTES=RETENTION) as place:
        files = {f"{count:,} partitions": place.write_devices(f"p{count}",
                                                              place.make_tenant(f"p{count}", count, CONNECTIONS))
                 for count in (4, 16, 64, 1024)}
        return axis(f"Partitions of a tenant with {CONNECTIONS:,} devices", take_turns(place, options, files),
                    "4 partitions")


def axis_consumers(build, options):
    """CPU of the whole gateway while devices publish 1,000 messages a second, for each event that a consumer gets,
    less what it takes without consumers."""
    rows, first = [], None
    with Place(build, STORAGE__RETENTION_BYTES=RETENTION) as place:
        load = FLOOD + ["--rate", "1000", "--duration", "11s"]
        place.m.make_devices(place.server, 100)
        idle = place.m.bench(place.server, *load)
        per_second = idle["server_cpu_us_per_message"] * 1000 / 1e6
        for count in (1, 10, 100):
            print(f"  {count} consumers", flush=True)
            command = place.m.command(place.server, *load)
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as bench:
                time.sleep(3)  # connected and warm
                run = place.m.fetch(place.server, str(count), "tail", seconds=8)
                bench.communicate()
            cost = (run["server_cpu_seconds"] - per_second * 8) / run["records"] * 1e6
            first = first or cost
            rows.append((f"{count} at the end of the log", [f"{run['records']:,}", f"{cost:.2f} µs", ratio(cost, first)]))
        for count in (1, 10, 100):
            run = place.m.fetch(place.server, str(count), seconds=8)
            cost = run["server_cpu_seconds"] / run["records"] * 1e6
            first = cost if count == 1 else first
            rows.append((f"{count} from the beginning", [f"{run['records']:,}", f"{cost:.3f} µs", ratio(cost, first)]))
    return table("Consumers that each read everything", ["events delivered", "CPU per delivered event", "of 1"], rows)


# ---- the log -----------------------------------------------------------------------------------------

def log_bytes(place):
    directory = os.path.join(place.gateway.var, "stream")
    return sum(os.path.getsize(os.path.join(path, name)) for path, _, names in os.walk(directory)
               for name in names if name.endswith(".log"))


def fill_log(place, gigabytes):
    """With the stream's own library, while the gateway is down."""
    left = gigabytes * 10**9 - log_bytes(place)
    if left <= 0:
        return
    stream = int(place.gateway.sql(f"select stream_id from tenant where name = '{place.gateway.TENANT}'")) * 8
    place.gateway.kill(signal.SIGTERM)
    subprocess.run([os.path.join(place.gateway.build, "tests/perf/storage_bench"),
                    os.path.join(place.gateway.var, "stream"), "flood", str(left // EVENT_BYTES), "16", "0",
                    str(stream)], stdout=subprocess.DEVNULL, check=True)
    place.gateway.up()
    place.server.pid = place.gateway.pid()


def is_ready(gateway):
    try:
        with urllib.request.urlopen(gateway.HTTP_URL + "/readyz", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def start_after_kill(place):
    """Seconds from the start of the process until it is ready; killed under flood, nothing in the page cache."""
    gateway = place.gateway
    with subprocess.Popen(place.m.command(place.server, *FLOOD, "--duration", "30s"), stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as load:
        time.sleep(5)
        gateway.kill(signal.SIGKILL)
        load.kill()
    drop_page_cache(os.path.join(gateway.var, "stream"))
    password = os.path.join(gateway.var, "registry.password")
    with open(os.path.join(gateway.var, "duragate.log"), "a", encoding="utf-8") as log:
        started = time.monotonic()
        process = subprocess.Popen(
            [place.m.duragate, "serve", "--config", os.path.join(gateway.var, "duragate.yaml")], stdout=log, stderr=log,
            env=dict(gateway.environment, DURAGATE_CFG_REGISTRY__PASSWORD_FILE=password), start_new_session=True)
    while not is_ready(gateway):
        if process.poll() is not None or time.monotonic() - started > READY_S:
            raise SystemExit("the gateway does not start: " + gateway.log()[-2000:])
        time.sleep(0.01)
    seconds = time.monotonic() - started
    process.terminate()
    process.wait()
    gateway.up()
    place.server.pid = gateway.pid()
    return seconds


def axis_log(build, options):
    rows, first = [], None
    with Place(build, STORAGE__RETENTION_TIME="0") as place:
        place.m.make_devices(place.server, 100)
        for gigabytes in sorted({1, options.log_gb}):
            print(f"  filling the log to {gigabytes} GB", flush=True)
            fill_log(place, gigabytes)
            runs = [place.m.bench(place.server, *FLOOD, "--duration", "4s") for _ in range(options.rounds)]
            cost = statistics.median(run["server_cpu_us_per_message"] for run in runs)
            rate = statistics.median(run["messages_per_second"] for run in runs)
            first = first or cost
            starts = [start_after_kill(place) for _ in range(options.rounds)]
            rows.append((f"{gigabytes} GB (then {log_bytes(place) / 1e9:.0f})",
                         [f"{rate:,.0f}/s", f"{cost:.2f} µs", ratio(cost, first),
                          f"{statistics.median(starts):.2f} s", f"{max(starts):.2f} s"]))
            print("  " + " | ".join([rows[-1][0]] + rows[-1][1]), flush=True)
    return table("Log", ["flood", "CPU per event", "of the first", "ready after kill -9", "the slowest"], rows)


AXES = {"tenants": axis_tenants, "partitions": axis_partitions, "consumers": axis_consumers, "log": axis_log}


def part_growth(build, options):
    tables = []
    for name in options.axes.split(","):
        print(f"growth: {name}", flush=True)
        tables.append(AXES[name](build, options))
    return "\n".join(tables)
