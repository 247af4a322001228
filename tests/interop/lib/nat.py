#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A NAT for UDP over IPv4: each port of each host inside becomes a port of the outside address.

    nat.py INSIDE-DEVICE OUTSIDE-ADDRESS

The kernel of the machine it runs on does not forward.  Fragments and all that is not UDP are lost.
SIGHUP: it forgets who has which port, and gives others.
"""
import select
import signal
import socket
import struct
import sys

IPV4 = 0x0800
UDP_HEADER = struct.Struct(">HHHH")


def parse(packet):
    """Returns (source, destination, payload) of a whole UDP packet, or None."""
    length = (packet[0] & 15) * 4
    fragment = int.from_bytes(packet[6:8], "big") & 0x3fff
    if packet[9] != socket.IPPROTO_UDP or fragment or len(packet) < length + UDP_HEADER.size:
        return None
    source, destination, size, _ = UDP_HEADER.unpack_from(packet, length)
    return ((socket.inet_ntoa(packet[12:16]), source), (socket.inet_ntoa(packet[16:20]), destination),
            packet[length + UDP_HEADER.size:length + size])


def packet_of(source, destination, payload):
    """An IPv4 packet; its kernel fills in the length and checksum of the IP header."""
    udp = UDP_HEADER.pack(source[1], destination[1], UDP_HEADER.size + len(payload), 0)
    return struct.pack(">BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_UDP, 0,
                       socket.inet_aton(source[0]), socket.inet_aton(destination[0])) + udp + payload


class Nat:
    def __init__(self, device, address):
        self.address = address
        self.inside = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(IPV4))
        self.inside.bind((device, IPV4))
        self.back = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self.outside = {}  # by who is inside
        self.owners = {}   # who is inside, by socket
        self.is_to_forget = False
        signal.signal(signal.SIGHUP, self.hear)

    def hear(self, *_):
        self.is_to_forget = True

    def forget(self):
        former = list(self.owners)
        owners = set(self.outside)
        self.outside.clear()
        self.owners.clear()
        for owner in owners:  # the former ports are taken until each has another
            self.socket_of(owner)
        for one in former:
            one.close()
        self.is_to_forget = False

    def socket_of(self, source):
        if source not in self.outside:
            fresh = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            fresh.bind((self.address, 0))
            self.outside[source], self.owners[fresh] = fresh, source
        return self.outside[source]

    def out(self):
        packet, address = self.inside.recvfrom(1 << 16)
        parsed = parse(packet) if address[2] != socket.PACKET_OUTGOING else None
        if parsed:
            source, destination, payload = parsed
            self.socket_of(source).sendto(payload, destination)

    def back_in(self, outside):
        payload, peer = outside.recvfrom(1 << 16)
        owner = self.owners[outside]
        self.back.sendto(packet_of(peer, owner, payload), (owner[0], 0))

    def run(self):
        print("ready", flush=True)
        while True:
            if self.is_to_forget:
                self.forget()
            for ready in select.select([self.inside, *self.owners], [], [], 0.05)[0]:
                if ready is self.inside:
                    self.out()
                else:
                    self.back_in(ready)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    Nat(*sys.argv[1:]).run()
