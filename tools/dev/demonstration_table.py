#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The table at the end of tools/quickstart, from the files that dev/demonstration left.

    demonstration_table.py DIRECTORY
    demonstration_table.py --line DIRECTORY/NAME.FAMILY     one measurement in one line
"""
import json
import pathlib
import re
import sys

ROWS = (("kernel", "kernel, clear"), ("clear", "esplane, clear"), ("tunnel", "esplane, tunnel"))
BAR = 40


def megabits(path):
    end = json.loads(path.with_suffix(path.suffix + ".json").read_text())["end"]
    return end["sum_received"]["bits_per_second"] / 1e6


def milliseconds(path):
    times = re.search(r"= [\d.]+/([\d.]+)/", path.with_suffix(path.suffix + ".ping").read_text())
    return float(times[1])


def line(path):
    return f"ping {milliseconds(path):.2f} ms, TCP {megabits(path):,.0f} Mbit/s"


def throughput_table(directory):
    numbers = {(name, family): (megabits(directory / f"{name}.{family}"),
                                milliseconds(directory / f"{name}.{family}"))
               for name, _ in ROWS for family in (4, 6)}
    top = max(speed for speed, _ in numbers.values())
    print(f"\n{'host to host, TCP, one stream':<30}{'Mbit/s':>8}{'ping ms':>9}")
    for name, title in ROWS:
        for family in (4, 6):
            speed, rtt = numbers[name, family]
            bar = "#" * max(1, round(speed / top * BAR))
            print(f"  {title:<20} IPv{family}   {speed:>8,.0f}{rtt:>9.2f}  {bar}")
    print("  (between veths the kernel forwards TCP in frames of up to 64 KB; esplane gets 1500 bytes)")


def sa_table(directory):
    print(f"\n{'SAs':<6}{'direction':<11}{'SPI':<12}{'source':<16}{'destination':<16}"
          f"{'packets':>10}{'bytes':>15}")
    for gateway in ("g1", "g2"):
        for sa in json.loads((directory / f"{gateway}.sa.json").read_text())["sas"]:
            direction = "out" if sa["sent_sequence"] else "in"
            print(f"  {gateway:<4}{direction:<11}{sa['spi']:<12}{sa['source']:<16}"
                  f"{sa['destination']:<16}{sa['packets']:>10,}{sa['bytes']:>15,}")


def drop_table(directory):
    print("\ndrops by reason")
    drops = [(gateway, drop) for gateway in ("g1", "g2")
             for drop in json.loads((directory / f"{gateway}.drops.json").read_text())["drops"]
             if drop["packets"]]
    for gateway, drop in drops:
        print(f"  {gateway:<4}{drop['reason']:<34}{drop['packets']:>10,}")
    if not drops:
        print("  none")


def wire_table(directory):
    wire = json.loads((directory / "wire.json").read_text())
    print(f"\nthe wire in the middle: {sum(wire['esp'].values()):,} ESP packets, "
          f"{wire['ike']} of IKE, {wire['leaks']} that show a host's address\n")


def main():
    if sys.argv[1] == "--line":
        print(line(pathlib.Path(sys.argv[2])))
        return
    directory = pathlib.Path(sys.argv[1])
    throughput_table(directory)
    sa_table(directory)
    drop_table(directory)
    wire_table(directory)


if __name__ == "__main__":
    main()
