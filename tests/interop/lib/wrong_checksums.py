#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Sends IPv4 packets whose header checksum is off by one, as frames to a MAC address."""
import argparse
import socket
import struct


def checksum(header):
    total = sum(struct.unpack(f">{len(header) // 2}H", header))
    while total > 0xffff:
        total = (total & 0xffff) + (total >> 16)
    return total ^ 0xffff


def header(source, destination, length):
    fields = (0x45, 0, 20 + length, 1, 0x4000, 64, socket.IPPROTO_UDP)
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    right = checksum(struct.pack(">BBHHHBBH", *fields, 0) + addresses)
    return struct.pack(">BBHHHBBH", *fields, right ^ 1) + addresses


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("device")
    arguments.add_argument("mac")
    arguments.add_argument("source")
    arguments.add_argument("destination")
    arguments.add_argument("--count", type=int, required=True)
    a = arguments.parse_args()
    udp = struct.pack(">HHHH", 1000, 2000, 8 + 32, 0) + bytes(32)
    ip = header(a.source, a.destination, len(udp)) + udp
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind((a.device, 0x0800))
        own = s.getsockname()[4]
        for _ in range(a.count):
            s.send(bytes.fromhex(a.mac.replace(":", "")) + own + b"\x08\x00" + ip)


main()
