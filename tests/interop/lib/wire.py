#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Reads a capture from the middle of the wire and says what crossed it, as JSON:

    {"frames": 9, "esp": {"0x1000": 4}, "ike": 2, "leaks": 0, "first_leak": null}

esp    packets by SPI; ESP in UDP (port 4500) counts too
leaks  frames that show an address of a host outside ESP: in the outer header of any packet, and
       anywhere in a frame that is neither ESP nor IKE (ARP, ICMP that quotes, ...)

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
UDP, ESP = 17, 50
IKE_PORT, IKE_NAT_PORT = 500, 4500


def frames(file):
    """Yields every frame of a classic pcap file with Ethernet frames."""
    header = file.read(24)
    if len(header) < 24:
        return
    order = {b"\xd4\xc3\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">"}.get(header[:4])
    if order is None or struct.unpack(order + "I", header[20:])[0] != 1:
        sys.exit("wire.py: not a pcap file of Ethernet frames")
    while len(record := file.read(16)) == 16:
        yield file.read(struct.unpack(order + "IIII", record)[2])


def parse(frame):
    """Returns (source, destination, protocol, payload) of the IP packet, or None."""
    kind = frame[12:14]
    if kind == b"\x08\x00" and len(frame) >= 34:
        header = (frame[14] & 15) * 4
        return frame[26:30], frame[30:34], frame[23], frame[14 + header:]
    if kind == b"\x86\xdd" and len(frame) >= 54:
        return frame[22:38], frame[38:54], frame[20], frame[54:]
    return None


def classify(protocol, payload):
    """Returns ("esp", SPI), ("ike", None) or (None, None)."""
    if protocol == ESP:
        return "esp", int.from_bytes(payload[:4], "big")
    if protocol != UDP or len(payload) < 12:
        return None, None
    ports = struct.unpack(">HH", payload[:4])
    if IKE_NAT_PORT in ports and payload[8:12] != bytes(4):
        return "esp", int.from_bytes(payload[8:12], "big")
    if IKE_PORT in ports or IKE_NAT_PORT in ports:
        return "ike", None
    return None, None


def shows_host(frame):
    return any(host.packed in frame for host in HOSTS)


def in_plain_net(address):
    return any(ipaddress.ip_address(address) in net for net in PLAIN_NETS)


def survey(file):
    known = {}
    esp = collections.Counter()
    result = {"frames": 0, "esp": {}, "ike": 0, "leaks": 0, "first_leak": None}
    for frame in frames(file):
        result["frames"] += 1
        packet = parse(frame)
        kind = None
        leaked = False
        if packet:
            source, destination, protocol, payload = packet
            if (source, destination) not in known:
                known[source, destination] = in_plain_net(source) or in_plain_net(destination)
            leaked = known[source, destination]
            kind, spi = classify(protocol, payload)
        if kind == "esp":
            esp[spi] += 1
        elif kind == "ike":
            result["ike"] += 1
        else:
            leaked = leaked or shows_host(frame)
        if leaked:
            result["leaks"] += 1
            result["first_leak"] = result["first_leak"] or frame.hex()
    result["esp"] = {hex(spi): count for spi, count in sorted(esp.items())}
    return result


def sent(path):
    """Yields (SPI, packets) of the SAs that have sent, in the output of `esplane sa --json`."""
    with open(path, encoding="utf-8") as file:
        for sa in json.load(file)["sas"]:
            if sa["sent_sequence"]:
                yield int(sa["spi"], 0), sa["sent_sequence"]


def verdict(result, arguments):
    """Yields a line for everything that is wrong."""
    if result["leaks"]:
        yield f"{result['leaks']} frames show a host's address outside ESP"
    if not result["esp"] and not arguments.clear:
        yield "no ESP on the wire"
    for path in arguments.expect:
        for spi, packets in sent(path):
            seen = result["esp"].get(hex(spi), 0)
            if seen < packets:
                yield f"SA {spi:#x} sent {packets} packets, {seen} were captured"


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    options.add_argument("capture")
    options.add_argument("--expect", nargs="+", default=[])
    options.add_argument("--clear", action="store_true")
    arguments = options.parse_args()
    with open(arguments.capture, "rb") as file:
        result = survey(file)
    print(json.dumps(result))
    problems = list(verdict(result, arguments))
    for problem in problems:
        print("wire.py: " + problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
