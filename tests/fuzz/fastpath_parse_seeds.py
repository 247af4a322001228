#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the first inputs of fastpath_parse_fuzz into a directory.

usage: fastpath_parse_seeds.py DIRECTORY
"""
import os
import struct
import sys

from scapy.config import conf
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR, IPOption_NOP
from scapy.layers.inet6 import (ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment,
                                IPv6ExtHdrHopByHop, IPv6ExtHdrRouting)
from scapy.layers.ipsec import ESP
from scapy.layers.l2 import ARP, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Raw

conf.route_autoload = conf.route6_autoload = False
FRAME, PACKET, TEXT, FORGED = range(4)
PLAIN, SECURE = 0, 4
MACS = {'dst': '02:00:00:00:00:01', 'src': '02:00:00:00:01:00'}


def record(form, content, port=PLAIN, sa=0, step=1):
    content = bytes(content)
    return struct.pack('<BH', form | port | sa << 3 | step << 5, len(content)) + content


def text(packet, block=16, next_header=None, pad=None):
    """A packet with ESP's trailer."""
    body = bytes(packet)
    fill = -(len(body) + 2) % block
    if next_header is None:
        next_header = 4 if body[0] >> 4 == 4 else 41
    return body + bytes(range(1, fill + 1)) + bytes([fill if pad is None else pad, next_header])


V4 = IP(src='10.2.0.9', dst='10.1.0.9')
V6 = IPv6(src='fd02::9', dst='fd01::9')
BACK4 = IP(src='10.1.0.9', dst='10.2.0.9')
BACK6 = IPv6(src='fd01::9', dst='fd02::9')
OUTER4 = IP(src='192.168.77.1', dst='192.168.77.2')
OUTER6 = IPv6(src='fd77::1', dst='fd77::2')
DATA = Raw(b'0123456789abcdef')


def uncompleted(packet):
    """A TCP or UDP packet whose checksum field holds the pseudo-header's sum alone."""
    packet = packet.__class__(bytes(packet))
    upper = packet[TCP] if TCP in packet else packet[UDP]
    pseudo = bytes(packet)[12:20] if packet.version == 4 else bytes(packet)[8:40]
    number = 6 if TCP in packet else 17
    pseudo += struct.pack('!LL', len(bytes(upper)), number)
    total = sum(struct.unpack(f'!{len(pseudo) // 2}H', pseudo))
    while total > 0xffff:
        total = (total & 0xffff) + (total >> 16)
    upper.chksum = total
    return packet


def seeds():
    for name, ip in (('v4', V4), ('v6', V6)):
        for what, upper in (('udp', UDP()), ('tcp', TCP()), ('sctp', SCTP())):
            yield f'{name}-{what}', record(PACKET, ip / upper / DATA)
        yield f'{name}-unfinished-tcp', record(PACKET, uncompleted(ip / TCP() / DATA))
        yield f'{name}-unfinished-udp', record(PACKET, uncompleted(ip / UDP() / DATA))
        yield f'{name}-full', record(PACKET, ip / UDP() / Raw(bytes(1472 - 20 * (name == 'v6'))))
        yield f'{name}-cut', record(PACKET, bytes(ip / UDP() / DATA)[:30])
        yield f'{name}-padded', record(PACKET, bytes(ip / UDP()) + bytes(18))
    yield 'v4-df-full', record(PACKET, IP(src='10.2.0.9', dst='10.1.0.9', flags='DF')
                               / UDP() / Raw(bytes(1472)))
    yield 'v4-icmp', record(PACKET, V4 / ICMP() / DATA)
    yield 'v6-icmp', record(PACKET, V6 / ICMPv6EchoRequest())
    yield 'v4-fragment', record(PACKET, IP(dst='10.1.0.9', flags='MF') / UDP() / DATA)
    yield 'v4-options', record(PACKET, IP(dst='10.1.0.9', options=[IPOption_NOP(), IPOption_RR()])
                               / UDP() / DATA)
    yield 'v4-last-hop', record(PACKET, IP(src='10.2.0.9', dst='10.1.0.9', ttl=1) / UDP() / DATA)
    yield 'v6-last-hop', record(PACKET, IPv6(src='fd02::9', dst='fd01::9', hlim=1) / UDP() / DATA)
    chain = IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting() / IPv6ExtHdrDestOpt()
    yield 'v6-extensions', record(PACKET, V6 / chain / UDP() / DATA)
    yield 'v6-fragment', record(PACKET, V6 / IPv6ExtHdrFragment(offset=2, m=1) / DATA)
    yield 'v6-long-chain', record(PACKET, V6 / IPv6ExtHdrDestOpt() / chain / chain / chain / UDP())
    yield 'local', record(PACKET, IP(src='10.2.0.9', dst='10.2.0.1') / ICMP(), port=PLAIN)
    yield 'in-clear', record(PACKET, BACK4 / UDP() / DATA, port=SECURE)
    yield 'unresolved', record(PACKET, IP(src='10.2.0.9', dst='192.168.77.99') / UDP() / DATA)
    yield 'no-route', record(PACKET, IP(src='10.2.0.9', dst='203.0.113.1') / UDP() / DATA)
    yield 'arp', record(FRAME, Ether(**MACS) / ARP())
    yield 'short-frame', record(FRAME, bytes(10))
    yield 'no-ip', record(PACKET, b'\x10' + bytes(40))
    yield 'esp-unknown', record(PACKET, OUTER4 / ESP(spi=9, seq=1, data=bytes(40)), port=SECURE)
    yield 'esp-short', record(PACKET, OUTER4 / ESP(spi=0x1000, seq=1, data=b'x'), port=SECURE)
    yield 'esp-not-in-udp', record(PACKET, OUTER4 / ESP(spi=0x2000, seq=1, data=bytes(64)),
                                   port=SECURE)
    yield 'udp-keepalive', record(PACKET, OUTER4 / UDP(sport=4500, dport=4500) / Raw(b'\xff'),
                                  port=SECURE)
    yield 'udp-ike', record(PACKET, OUTER4 / UDP(sport=4500, dport=4500) / Raw(bytes(32)),
                            port=SECURE)
    for sa in range(3):
        for name, inner in (('v4', BACK4), ('v6', BACK6)):
            yield f'sealed-{sa}-{name}', record(TEXT, text(inner / UDP() / DATA), sa=sa)
        yield f'forged-{sa}', record(FORGED, text(BACK4 / UDP() / DATA), sa=sa)
        yield f'dummy-{sa}', record(TEXT, text(DATA, next_header=59), sa=sa)
        yield f'bad-padding-{sa}', record(TEXT, text(BACK4 / UDP(), pad=250), sa=sa)
        yield f'other-version-{sa}', record(TEXT, text(BACK4 / UDP() / DATA, next_header=41), sa=sa)
        yield f'no-ip-inside-{sa}', record(TEXT, text(BACK4 / UDP() / DATA, next_header=6), sa=sa)
        yield f'empty-{sa}', record(TEXT, text(b'', next_header=4), sa=sa)
        yield f'replayed-{sa}', (record(TEXT, text(BACK4 / UDP() / DATA), sa=sa)
                                 + record(TEXT, text(BACK4 / UDP() / DATA), sa=sa, step=0))
    marked = IP(src='10.1.0.9', dst='10.2.0.9', tos=1)
    yield 'nested', record(TEXT, text(OUTER4 / ESP(spi=0x1000, seq=7, data=bytes(40))))
    yield 'for-machine', record(TEXT, text(IP(src='10.1.0.9', dst='10.2.0.1') / ICMP()))
    yield 'marked', record(TEXT, text(marked / UDP() / DATA))
    yield 'inner-fragment', record(TEXT, text(IP(dst='10.2.0.9', flags='MF') / UDP() / DATA))
    yield 'burst', b''.join(record(PACKET, V4 / UDP(sport=n)) for n in range(70))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    os.makedirs(sys.argv[1], exist_ok=True)
    for name, content in seeds():
        with open(os.path.join(sys.argv[1], name), 'wb') as file:
            file.write(content)


if __name__ == '__main__':
    main()
