#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures the pairs of hosts that bench/host_bed has set up, in turns; prints a line of JSON.

    host_measure.py tcp|udp|blast|round-trip ESPLANE_PID... LIBIPSEC_PID...

Each figure is a median of rounds; in a round the systems take turns.  What is measured, and why so,
is said at each function.
"""
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

DATAGRAMS = os.environ["ESPLANE_DATAGRAMS"]
PAIRS = {"esplane": "e", "libipsec": "k"}
FAR = {"udp": "10.2.0.1", "raw": "10.2.1.1", "clear": "192.0.2.2"}
NEAR = {"udp": "10.1.0.1", "raw": "10.1.1.1", "clear": "192.0.2.1"}
ROUNDS = 3
PORT = 7000


def command(node, *words):
    return ["ip", "netns", "exec", node, *words]


def start(node, *words, **options):
    return subprocess.Popen(command(node, *words), stdout=subprocess.PIPE, text=True, **options)


def output(node, *words):
    return subprocess.run(command(node, *words), stdout=subprocess.PIPE, text=True, check=True,
                          timeout=60).stdout


def note(*words):
    print(*words, file=sys.stderr, flush=True)


# TCP

def tcp(pair, path, streams, seconds=4):
    """Mbit/s that arrive at the far end; its first second, in which TCP finds its rate, left out."""
    server = start(pair + "2", "iperf3", "--server", "--one-off", "--bind", FAR[path])
    while not output(pair + "2", "ss", "-Htln", "sport = :5201"):
        time.sleep(0.05)
    said = json.loads(output(pair + "1", "iperf3", "--client", FAR[path], "--bind", NEAR[path],
                             "--parallel", str(streams), "--time", str(seconds), "--omit", "1",
                             "--connect-timeout", "5000", "--json"))
    server.communicate(timeout=10)
    return said["end"]["sum_received"]["bits_per_second"] / 1e6


def measure_tcp(_):
    cases = (("tcp_1", "udp", 1, PAIRS), ("tcp_4", "udp", 4, PAIRS),
             ("raw_tcp_1", "raw", 1, {"esplane": "x"}),
             ("raw_sockets_tcp_1", "raw", 1, {"esplane": "e"}))
    seen = {}
    for _ in range(ROUNDS):
        for name, path, streams, pairs in cases:
            for system, pair in pairs.items():
                speed = tcp(pair, path, streams)
                note(f"{name} {system}: {speed:.0f} Mbit/s")
                seen.setdefault(name, {}).setdefault(system, []).append(speed)
    for raw in ("raw_tcp_1", "raw_sockets_tcp_1"):  # Debian's kernel-libipsec does UDP alone
        seen[raw]["libipsec"] = seen["tcp_1"]["libipsec"]
    return medians(seen)


def medians(seen):
    return {name: {system: statistics.median(all_of) for system, all_of in systems.items()}
            for name, systems in seen.items()}


# UDP

class Datagrams:
    """Runs of UDP through one pair."""
    run = 0

    def __init__(self, pair, size):
        self.pair = pair
        self.size = size
        self.sender_group = None  # a control group for the sender

    def offer(self, rate, milliseconds):
        """Returns how many a second were offered and delivered."""
        Datagrams.run += 1
        run = str(Datagrams.run)
        # A tenth more than the sender takes: what is on its way counts, what waits in queues not.
        receiver = start(self.pair + "2", DATAGRAMS, "receive", FAR["udp"], str(PORT),
                         str(milliseconds + 100), run)
        receiver.stdout.readline()
        sender = subprocess.run(
            in_group(self.sender_group, command(self.pair + "1", DATAGRAMS, "send", FAR["udp"],
                                                str(PORT), str(self.size), str(rate),
                                                str(milliseconds), run)),
            stdout=subprocess.PIPE, text=True, check=True, timeout=60)
        sent = json.loads(sender.stdout)
        received = json.loads(receiver.communicate(timeout=60)[0])["received"]
        seconds = sent["ns"] / 1e9
        return sent["sent"] / seconds, received / seconds


def most_before_loss(datagrams, rate):
    """Datagrams a second delivered at the highest rate that loses no more than 2 %.

    Rates rise by a sixth; each is tried twice, and two in a row have to fail: the machine has other
    work too.
    """
    most = failed = 0
    while failed < 2:
        for _ in range(2):
            offered, delivered = datagrams.offer(rate, 1000)
            if delivered >= 0.98 * offered:
                most, failed = max(most, delivered), 0
                break
        else:
            failed += 1
        if offered < 0.9 * rate:  # the sender's limit
            break
        rate = rate * 7 / 6
    return most


def measure_udp(_):
    begin = {"esplane": 40_000, "libipsec": 8_000}
    seen = {}
    for _ in range(ROUNDS):
        for system, pair in PAIRS.items():
            most = most_before_loss(Datagrams(pair, 64), begin[system])
            note(f"udp_64 {system}: {most:.0f}/s")
            begin[system] = max(begin[system], most / 2)
            seen.setdefault(system, []).append(most)
    return medians({"udp_64": seen})


# A blast

def in_group(group, words):
    if group is None:
        return words
    return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(group / "cgroup.procs"), *words]


@contextlib.contextmanager
def quota(name, share):
    """A control group with that share of a core, of cgroup v1 or v2."""
    period = 5000  # us: pauses that fit into queues
    root = pathlib.Path("/sys/fs/cgroup")
    label = f"{os.path.basename(os.environ['SANDBOX'])}.{name}"
    if (root / "cpu").is_dir():
        group = root / "cpu" / label
        group.mkdir()
        (group / "cpu.shares").write_text("262144")
        (group / "cpu.cfs_period_us").write_text(str(period))
        (group / "cpu.cfs_quota_us").write_text(str(int(period * share)))
    else:
        group = root / label
        group.mkdir()
        (group / "cpu.weight").write_text("10000")
        (group / "cpu.max").write_text(f"{int(period * share)} {period}")
    try:
        yield group
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            (group.parent / "cgroup.procs").write_text(pid)
        time.sleep(0.1)
        group.rmdir()


def resident_mib(pids):
    def of(pid):
        return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20
    return sum(of(pid) for pid in pids)


def best_rate(datagrams):
    """The rate at which most is delivered, of all that the sender can offer; 0 is no limit."""
    best, rate = 0, 10_000
    offered, most = datagrams.offer(0, 1000)
    while rate < offered:
        delivered = datagrams.offer(rate, 1000)[1]
        note(f"    at {rate:.0f}/s {delivered:.0f}/s are delivered")
        if delivered > most:
            best, most = rate, delivered
        rate = rate * 3 // 2
    return best


def blast(system, pair, pids, seconds):
    """What arrives when the sender sends all it can, against what arrives at the best rate."""
    with contextlib.ExitStack() as groups:
        for number, pid in enumerate(pids):
            group = groups.enter_context(quota(f"{system}{number}", 0.25))
            (group / "cgroup.procs").write_text(str(pid))
        datagrams = Datagrams(pair, 1300)
        datagrams.sender_group = groups.enter_context(quota("sender", 0.5))
        rate = best_rate(datagrams)
        peaks, blasts, offers = [], [], []
        datagrams.offer(0, 2000)
        before = resident_mib(pids)
        for _ in range(ROUNDS):
            peaks.append(datagrams.offer(rate, seconds * 1000 / ROUNDS)[1])
            offered, delivered = datagrams.offer(0, seconds * 1000 / ROUNDS)
            offers.append(offered)
            blasts.append(delivered)
        seen = {"peak": statistics.median(peaks), "offered": statistics.median(offers),
                "delivered": statistics.median(blasts), "grown_mib": resident_mib(pids) - before}
    note(f"blast {system}: {seen}")
    return seen


def measure_blast(pids):
    return {"blast": {system: blast(system, pair, pids[system], seconds)
                      for (system, pair), seconds in zip(PAIRS.items(), (30, 9))}}


# Round trips

def round_trip(pair, path):
    """Median of round trips in us with a pause after each, in which everybody goes to sleep."""
    echo = start(pair + "2", DATAGRAMS, "echo", FAR[path], str(PORT))
    while not output(pair + "2", "ss", "-Huln", f"sport = :{PORT}"):
        time.sleep(0.05)
    try:
        return json.loads(output(pair + "1", DATAGRAMS, "ping", FAR[path], str(PORT), "200",
                                 "3000"))["median_us"]
    finally:
        echo.kill()
        echo.communicate()


def measure_round_trip(_):
    cases = {"clear": ("k", "clear"), "libipsec": ("k", "udp"), "esplane": ("e", "udp")}
    seen = {system: [] for system in cases}
    for _ in range(2 * ROUNDS + 1):
        for system, (pair, path) in cases.items():
            seen[system].append(round_trip(pair, path))
    note(f"round trips: {seen}")
    return medians({"round_trip": seen})


MEASURES = {"tcp": measure_tcp, "udp": measure_udp, "blast": measure_blast,
            "round-trip": measure_round_trip}


def main():
    pids = [int(word) for word in sys.argv[2:]]
    print(json.dumps(MEASURES[sys.argv[1]]({"esplane": pids[:2], "libipsec": pids[2:]})))


if __name__ == "__main__":
    main()
