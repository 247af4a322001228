#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Says, from a capture, how long ESP of a host that has a new address was away, as JSON:

    outage.py CAPTURE TIME NEW-ADDRESS          {"from": 0.131, "to": 0.164}

TIME    when the old address went, as seconds since 1970
from    seconds from then until the first ESP from the new address; to: to it
"""
import ipaddress
import json
import sys

from wire import classify, frames, parse


def main(path, start, address):
    new = ipaddress.ip_address(address).packed
    away = {"from": None, "to": None}
    with open(path, "rb") as file:
        for time, frame in frames(file):
            packet = parse(frame)
            if time < start or not packet or classify(*packet[2:], frozenset())[0] != "esp":
                continue
            for end, which in enumerate(away):
                if away[which] is None and packet[end] == new:
                    away[which] = round(time - start, 3)
    print(json.dumps(away))
    return 1 if None in away.values() else 0


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], float(sys.argv[2]), sys.argv[3]))
