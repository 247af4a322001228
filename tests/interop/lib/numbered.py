#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Numbered UDP packets, to tell lost, repeated and reordered ones apart.

    numbered.py send ADDRESS --count N --rate PER_SECOND [--port P] [--from ADDRESS]
    numbered.py receive ADDRESS --count N [--quiet-after SECONDS] [--port P]

The receiver ends when all numbers came or none comes for a while, prints

    {"received": 10000, "missing": 0, "twice": 0, "reordered": 0}

and exits with 0 only if each number came exactly once.
"""
import argparse
import ipaddress
import json
import socket
import struct
import sys
import time

PAYLOAD = 200


def open_socket(address):
    six = ipaddress.ip_address(address).version == 6
    return socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)


def send(arguments):
    sock = open_socket(arguments.address)
    if arguments.source:
        sock.bind((arguments.source, 0))
    sock.connect((arguments.address, arguments.port))
    start = time.monotonic()
    for number in range(arguments.count):
        delay = start + number / arguments.rate - time.monotonic()
        if delay > 0:
            time.sleep(delay)
        try:
            sock.send(struct.pack(">I", number).ljust(PAYLOAD, b"."))
        except OSError:
            continue  # a refusal by ICMP of an earlier packet; the receiver tells what is missing
    return 0


def receive(arguments):
    sock = open_socket(arguments.address)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.bind((arguments.address, arguments.port))
    print("ready", file=sys.stderr, flush=True)
    seen = set()
    twice = reordered = 0
    newest = -1
    sock.settimeout(arguments.first_within)
    while len(seen) < arguments.count:
        try:
            number = struct.unpack(">I", sock.recv(2048)[:4])[0]
        except socket.timeout:
            break
        sock.settimeout(arguments.quiet_after)
        twice += number in seen
        reordered += number < newest
        newest = max(newest, number)
        seen.add(number)
    twice += late_repeats(sock, seen)
    missing = arguments.count - len(seen)
    print(json.dumps({"received": len(seen), "missing": missing, "twice": twice,
                      "reordered": reordered}))
    return 1 if missing or twice else 0


def late_repeats(sock, seen):
    """Counts numbers that come again after the last one."""
    sock.settimeout(0.5)
    repeats = 0
    try:
        while True:
            repeats += struct.unpack(">I", sock.recv(2048)[:4])[0] in seen
    except socket.timeout:
        return repeats


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    options.add_argument("action", choices=("send", "receive"))
    options.add_argument("address")
    options.add_argument("--count", type=int, required=True)
    options.add_argument("--rate", type=float, default=2000)
    options.add_argument("--port", type=int, default=7000)
    options.add_argument("--from", dest="source")
    options.add_argument("--first-within", type=float, default=30)
    options.add_argument("--quiet-after", type=float, default=3)
    arguments = options.parse_args()
    return send(arguments) if arguments.action == "send" else receive(arguments)


if __name__ == "__main__":
    sys.exit(main())
