#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Reads a capture from the middle of the wire and says what crossed it, as JSON:

    {"frames": 9, "esp": {"0x1000": 4}, "ike": 2, "allowed": 0, "repeated_ivs": 0, "leaks": 0,
     "first_leak": null}

esp           packets by SPI; ESP in UDP (port 4500) counts too
repeated_ivs  with --fresh-ivs: packets whose 8 bytes behind the ESP header were there before under
              their SPI
leaks         frames that show an address of a host outside ESP: in the outer header of any packet,
              and anywhere in a frame that is neither ESP nor IKE (ARP, ICMP that quotes, ...)

With --only-esp every IP packet is a leak that is none of ESP, IKE, an ICMP error about one of them,
and neighbour discovery; between which addresses they go is not looked at then.
--allow PORT...: UDP from or to these ports is none, and there has to be some.

With --expect FILE (`esplane sa --json` of one or both gateways, any number of files) the exit
status is 1 unless the packets that each SA says it sent are all there.  A leak always makes it 1, and so does
a capture without any ESP, unless --clear says that there was no tunnel.
"""
import argparse
import collections
import ipaddress
import json
import struct
import sys

HOSTS = [ipaddress.ip_address(a) for a in ("10.1.0.10", "10.2.0.10", "fd01::10", "fd02::10")]
PLAIN_NETS = [ipaddress.ip_network(n)
              for n in ("10.1.0.0/24", "10.2.0.0/24", "fd01::/64", "fd02::/64")]
HOP_BY_HOP, ICMP, UDP, FRAGMENT, ESP, ICMP6 = 0, 1, 17, 44, 50, 58
ERRORS = {ICMP: (3, 5, 11, 12), ICMP6: (1, 2, 3, 4)}
DISCOVERY = range(130, 144)  # ICMPv6: listeners, routers, neighbours
IKE_PORT, IKE_NAT_PORT = 500, 4500


def frames(file):
    """Yields time and content of every frame of a classic pcap file with Ethernet frames."""
    header = file.read(24)
    if len(header) < 24:
        return
    order = {b"\xd4\xc3\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">"}.get(header[:4])
    if order is None or struct.unpack(order + "I", header[20:])[0] != 1:
        sys.exit("wire.py: not a pcap file of Ethernet frames")
    while len(record := file.read(16)) == 16:
        seconds, microseconds, length, _ = struct.unpack(order + "IIII", record)
        yield seconds + microseconds / 1e6, file.read(length)


def parse(frame):
    """As parse_ip() of the IP packet in a frame; None if there is none."""
    return parse_ip(frame[14:]) if frame[12:14] in (b"\x08\x00", b"\x86\xdd") else None


def parse_ip(packet):
    """Returns (source, destination, protocol, payload) of the packet, or None.

    The payload of a fragment other than the first is None.
    """
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        first = int.from_bytes(packet[6:8], "big") & 0x1fff == 0
        payload = packet[(packet[0] & 15) * 4:]
        return packet[12:16], packet[16:20], packet[9], payload if first else None
    if version == 6 and len(packet) >= 40:
        protocol, payload = packet[6], packet[40:]
        if protocol == HOP_BY_HOP and len(payload) >= 8:
            protocol, payload = payload[0], payload[8 + 8 * payload[1]:]
        if protocol == FRAGMENT and len(payload) >= 8:
            first = int.from_bytes(payload[2:4], "big") >> 3 == 0
            protocol, payload = payload[0], payload[8:] if first else None
        return packet[8:24], packet[24:40], protocol, payload
    return None


def classify(protocol, payload, allowed):
    """Returns ("esp", ESP packet), ("ike", None), ... or (None, None)."""
    if payload is None and protocol in (UDP, ESP):
        return "fragment", None
    if protocol == ESP:
        return "esp", payload
    if protocol == ICMP6 and payload and payload[0] in DISCOVERY:
        return "discovery", None
    if protocol in ERRORS and payload and payload[0] in ERRORS[protocol]:
        quoted = parse_ip(payload[8:])
        about = classify(*quoted[2:], allowed)[0] if quoted else None
        return "error" if about in ("esp", "ike", "fragment") else None, None
    if protocol != UDP or len(payload) < 8:
        return None, None
    ports = struct.unpack(">HH", payload[:4])
    if allowed.intersection(ports):
        return "allowed", None
    if IKE_NAT_PORT in ports and len(payload) >= 16 and payload[8:12] != bytes(4):
        return "esp", payload[8:]
    if IKE_PORT in ports or IKE_NAT_PORT in ports:
        return "ike", None
    return None, None


def shows_host(frame):
    return any(host.packed in frame for host in HOSTS)


def in_plain_net(address):
    return any(ipaddress.ip_address(address) in net for net in PLAIN_NETS)


class Survey:
    def __init__(self, arguments):
        self.arguments = arguments
        self.allowed = frozenset(arguments.allow)
        self.known = {}
        self.ivs = collections.defaultdict(set)
        self.esp = collections.Counter()
        self.result = {"frames": 0, "esp": {}, "ike": 0, "allowed": 0, "repeated_ivs": 0,
                       "leaks": 0, "first_leak": None}

    def of(self, file):
        for _, frame in frames(file):
            self.result["frames"] += 1
            if self.leaks(frame):
                self.result["leaks"] += 1
                self.result["first_leak"] = self.result["first_leak"] or frame.hex()
        self.result["esp"] = {hex(spi): count for spi, count in sorted(self.esp.items())}
        return self.result

    def leaks(self, frame):
        packet = parse(frame)
        if not packet:
            return shows_host(frame)
        source, destination, protocol, payload = packet
        kind, esp = classify(protocol, payload, self.allowed)
        if kind == "allowed":
            self.result["allowed"] += 1
            return False
        if kind == "esp":
            self.note(esp)
        elif kind == "ike":
            self.result["ike"] += 1
        elif shows_host(frame) and kind != "fragment":
            return True
        if self.arguments.only_esp:
            return kind is None
        return self.between_hosts(source, destination)

    def note(self, esp):
        spi, iv = int.from_bytes(esp[:4], "big"), esp[8:16]
        self.esp[spi] += 1
        if self.arguments.fresh_ivs:
            self.result["repeated_ivs"] += iv in self.ivs[spi]
            self.ivs[spi].add(iv)

    def between_hosts(self, source, destination):
        if (source, destination) not in self.known:
            self.known[source, destination] = in_plain_net(source) or in_plain_net(destination)
        return self.known[source, destination]


def sent(path):
    """Yields (SPI, packets) of the SAs that have sent, in the output of `esplane sa --json`."""
    with open(path, encoding="utf-8") as file:
        for sa in json.load(file)["sas"]:
            if sa["sent_sequence"]:
                yield int(sa["spi"], 0), sa["sent_sequence"]


def verdict(result, arguments):
    """Yields a line for everything that is wrong."""
    if result["leaks"]:
        yield f"{result['leaks']} frames show a host's address outside ESP, or are no ESP"
    if result["repeated_ivs"]:
        yield f"{result['repeated_ivs']} IVs were used before"
    if not result["esp"] and not arguments.clear:
        yield "no ESP on the wire"
    if arguments.allow and not result["allowed"]:
        yield f"nothing of UDP ports {arguments.allow} on the wire"
    for path in arguments.expect:
        for spi, packets in sent(path):
            seen = result["esp"].get(hex(spi), 0)
            if seen < packets:
                yield f"SA {spi:#x} sent {packets} packets, {seen} were captured"


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    options.add_argument("capture")
    options.add_argument("--expect", nargs="+", action="extend", default=[])
    options.add_argument("--clear", action="store_true")
    options.add_argument("--only-esp", action="store_true")
    options.add_argument("--fresh-ivs", action="store_true")
    options.add_argument("--allow", type=int, nargs="+", default=[], metavar="PORT")
    arguments = options.parse_args()
    with open(arguments.capture, "rb") as file:
        result = Survey(arguments).of(file)
    print(json.dumps(result))
    problems = list(verdict(result, arguments))
    for problem in problems:
        print("wire.py: " + problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
