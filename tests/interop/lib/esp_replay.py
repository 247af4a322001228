#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What a capture of ESP is good for after a restart.

    esp_replay.py send DEVICE CAPTURE    sends the frames of a capture once more, as they were
    esp_replay.py rising CAPTURE         exits with 1 unless each SPI's sequence numbers only rise
    esp_replay.py outage CAPTURE SPI     the longest time without a packet of that SPI, in ms
"""
import collections
import socket
import sys
import time

from wire import classify, frames, parse


def esp_of(path):
    """Yields time, SPI and sequence number of every ESP packet."""
    with open(path, "rb") as file:
        for moment, frame in frames(file):
            packet = parse(frame)
            kind, esp = classify(*packet[2:], frozenset()) if packet else (None, None)
            if kind == "esp":
                yield moment, int.from_bytes(esp[:4], "big"), int.from_bytes(esp[4:8], "big")


def send(device, path):
    with open(path, "rb") as file, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind((device, 0))
        count = 0
        for _, frame in frames(file):
            out.send(frame)
            count += 1
            time.sleep(0.0005)
    print(count)
    return 0 if count else 1


def rising(path):
    last, packets, wrong = {}, collections.Counter(), 0
    for _, spi, number in esp_of(path):
        if number <= last.get(spi, 0):
            wrong += 1
            print(f"SPI {spi:#x}: {number} after {last[spi]}")
        last[spi] = number
        packets[spi] += 1
    print(dict(packets))
    return 1 if wrong or not packets else 0


def outage(path, spi):
    times = [moment for moment, which, _ in esp_of(path) if which == int(spi, 0)]
    gaps = [after - before for before, after in zip(times, times[1:])]
    if not gaps:
        return 1
    print(round(max(gaps) * 1000, 1))
    return 0


if __name__ == "__main__":
    COMMANDS = {"send": send, "rising": rising, "outage": outage}
    if len(sys.argv) < 3 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    sys.exit(COMMANDS[sys.argv[1]](*sys.argv[2:]))
