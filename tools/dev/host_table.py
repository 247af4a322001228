#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The table at the end of tools/quickstart --host, from the files that dev/host_demonstration left.

    host_table.py DIRECTORY
    host_table.py --line DIRECTORY/NAME     one measurement in one line
"""
import json
import pathlib
import sys

from demonstration_table import BAR, megabits, milliseconds

ROWS = (("clear", "clear"), ("esplane", "esplane"), ("libipsec", "kernel-libipsec"))


def speeds(path):
    return [megabits(path.with_suffix(f".{streams}")) for streams in (1, 4)]


def line(path):
    one, four = speeds(path)
    return f"ping {milliseconds(path):.2f} ms, TCP {one:,.0f} Mbit/s, 4 streams {four:,.0f}"


def speed_table(directory):
    numbers = {name: (speeds(directory / name), milliseconds(directory / name)) for name, _ in ROWS}
    top = max(speed for both, _ in numbers.values() for speed in both)
    print(f"\n{'host to host, TCP, Mbit/s':<28}{'1 stream':>10}{'4 streams':>11}{'ping ms':>9}")
    for name, title in ROWS:
        (one, four), rtt = numbers[name]
        bar = "#" * max(1, round(one / top * BAR))
        print(f"  {title:<26}{one:>10,.0f}{four:>11,.0f}{rtt:>9.2f}  {bar}")


def memory_table(directory):
    print(f"\n{'memory of a host, MiB':<28}{'before':>10}{'after a flood of UDP':>22}")
    for name, title in ROWS[1:]:
        before, far_before, after, far_after = (directory / f"{name}.memory").read_text().split()
        print(f"  {title + ', sender':<26}{before:>10}{after:>22}")
        print(f"  {title + ', receiver':<26}{far_before:>10}{far_after:>22}")


def wire_table(directory):
    wire = json.loads((directory / "wire.json").read_text())
    print(f"\nthe wire, for a second: {sum(wire['esp'].values()):,} ESP packets, "
          f"{wire['ike']} of IKE, {wire['leaks']} that show an address of the tunnel\n")


def main():
    if sys.argv[1] == "--line":
        print(line(pathlib.Path(sys.argv[2])))
        return
    directory = pathlib.Path(sys.argv[1])
    speed_table(directory)
    memory_table(directory)
    wire_table(directory)


if __name__ == "__main__":
    main()
