#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What a soak lost, held against what disturbed it.

    soak_verdict.py RECEIVED DISTURBED REKEYED   RECEIVED: what `paced receive` printed;
                                                 DISTURBED: lines of WHAT FROM_NS TO_NS;
                                                 REKEYED: lines of `rekey` and when, in ns
    soak_verdict.py --accounts DROPS             DROPS: what `esplane drops --json` printed

Exit status 1, and a line for each, if a gap began outside all disturbances, a packet came twice, or
the accounts do not balance.
"""
import collections
import json
import sys


def gaps_outside(received, disturbed, rekeys):
    for start, end, count in received["gaps"]:
        if not any(start < until and end > since for _, since, until in disturbed):
            before = min((start - at for at in rekeys if at <= start), default=0)
            yield (f"{count} packets sent within {(end - start) / 1e6:.1f} ms were lost, "
                   f"{before / 1e6:.0f} ms after a rekey")


def read_disturbed(path):
    with open(path, encoding="utf-8") as lines:
        return [(what, int(since), int(until)) for what, since, until in map(str.split, lines)]


def losses(received_path, disturbed_path, rekeyed_path):
    with open(received_path, encoding="utf-8") as file:
        received = json.load(file)
    disturbed = read_disturbed(disturbed_path)
    with open(rekeyed_path, encoding="utf-8") as lines:
        rekeys = [int(line.split()[1]) for line in lines]
    problems = list(gaps_outside(received, disturbed, rekeys))
    if received["twice"]:
        problems.append(f'{received["twice"]} packets came twice')
    if not received["received"]:
        problems.append("nothing was received")
    print(f'received {received["received"]}, lost {received["lost"]} in {len(received["gaps"])} '
          f'gaps, reordered {received["reordered"]}, {len(disturbed)} disturbances: '
          f'{collections.Counter(what for what, _, _ in disturbed)}')
    return problems


def imbalance(path):
    with open(path, encoding="utf-8") as file:
        packets = json.load(file)["packets"]
    came = packets["received"] + packets["created"]
    went = sum(packets[end] for end in ("sent", "punted", "dropped", "held", "absorbed"))
    went += packets.get("handed_over", 0)
    return [] if came == went else [f"{came} came, {went} are accounted for: {packets}"]


def main():
    problems = imbalance(sys.argv[2]) if sys.argv[1] == "--accounts" else losses(*sys.argv[1:4])
    print("\n".join(problems[:20]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
