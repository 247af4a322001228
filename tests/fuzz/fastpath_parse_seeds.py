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
from scapy.layers.l2 import ARP, GRE, Dot1AD, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Raw

conf.route_autoload = conf.route6_autoload = False
FRAME, PACKET, TEXT, FORGED = range(4)
PLAIN, SECURE = 0, 4
STEPS = [1, 0, 2, 3, 40, -2, -40, -200]
MACS = {'dst': '02:00:00:00:00:01', 'src': '02:00:00:00:01:00'}
MOST_RECORDS = 80
# Seeds that also go through a gateway that looks up whole bursts.
WITH_LARGE_FIB = {'burst', 'vlan', 'ways', 'v4-cut', 'v6-udp', 'sealed-0-v4', 'short-frame', 'mixed'}


def enclose(head, outer_tos, content):
    content = bytes(content)
    return struct.pack('<BBH', head, outer_tos, len(content)) + content


def record(form, content, port=PLAIN, worker=0, later=False, own=False):
    """A frame or a packet."""
    return enclose(form | port | worker << 3 | later << 4 | own << 5, 0, content)


def sealed(content, sa=0, step=1, worker=0, tos=0, form=TEXT):
    """A text."""
    return enclose(form | worker << 2 | sa << 3 | STEPS.index(step) << 5, tos, content)


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
    yield from tagged()
    yield from upper_layers()
    yield from confined()
    yield from sealed_seeds()
    yield 'burst', b''.join(record(PACKET, V4 / UDP(sport=n)) for n in range(70))
    yield 'own', (record(PACKET, V4 / UDP() / DATA, own=True)
                  + record(PACKET, V6 / UDP() / DATA, own=True)
                  + record(PACKET, b'\x45', own=True))
    yield 'mixed', (record(PACKET, V6 / UDP()) + record(PACKET, V4 / UDP())
                    + record(PACKET, b'\x45') + record(FRAME, b'')
                    + record(PACKET, V4 / TCP()) + record(PACKET, V6 / TCP()))
    yield 'both-workers', b''.join(record(PACKET, V4 / UDP(sport=n), worker=n % 2, later=n % 3 == 0)
                                   for n in range(12))


def tagged():
    """Frames of VLANs, and what looks like some."""
    v5 = IP(src='172.16.5.2', dst='10.2.0.9') / UDP() / DATA
    v6 = IP(src='172.16.6.2', dst='172.16.5.9') / UDP() / DATA
    ether = Ether(**MACS)
    yield 'vlan', record(FRAME, ether / Dot1Q(vlan=5) / v5)
    yield 'vlan-ipv6', record(FRAME, ether / Dot1Q(vlan=5) / (V6 / UDP() / DATA))
    yield 'vlan-qinq', record(FRAME, ether / Dot1AD(vlan=7) / Dot1Q(vlan=6) / v6)
    yield 'vlan-priority', record(FRAME, ether / Dot1Q(vlan=0, prio=5) / (V4 / UDP() / DATA))
    yield 'vlan-unknown', record(FRAME, ether / Dot1Q(vlan=9) / v5)
    yield 'vlan-three', record(FRAME, ether / Dot1AD(vlan=7) / Dot1Q(vlan=6) / Dot1Q(vlan=5) / v5)
    yield 'vlan-many', record(FRAME, ether / Dot1Q(vlan=0) / Dot1Q(vlan=0) / Dot1Q(vlan=0)
                              / Dot1Q(vlan=0) / Dot1Q(vlan=0) / v5)
    yield 'vlan-cut', record(FRAME, bytes(ether / Dot1Q(vlan=5) / v5)[:17])
    yield 'vlan-arp', record(FRAME, ether / Dot1Q(vlan=5) / ARP())


def upper_layers():
    """What stands in for ports, whole and cut."""
    for name, ip in (('v4', V4), ('v6', V6)):
        for what, number, upper in (
                ('dccp', 33, bytes(UDP() / DATA)), ('udplite', 136, bytes(UDP() / DATA)),
                ('mobility', 135, b'\x3b\0\5\0' + bytes(12)),
                ('gre', 47, bytes(GRE(proto=0x800) / DATA)),
                ('gre-key', 47, bytes(GRE(proto=0x800, key_present=1, key=7) / DATA)),
                ('gre-sum-key', 47, bytes(GRE(chksum_present=1, key_present=1, key=7) / DATA)),
                ('gre-key-cut', 47, bytes(GRE(key_present=1, key=7))[:6]),
                ('gre-cut', 47, b'\0\0'), ('sctp-cut', 132, b'cut'), ('icmp-cut', 1, b'c'),
                ('udp-cut', 17, b'cut'), ('mobility-cut', 135, b'cut'), ('other', 89, b'')):
            packet = ip.copy()
            if name == 'v4':
                packet.proto = number
            else:
                packet.nh = 58 if number == 1 else number
            yield f'{name}-{what}', record(PACKET, packet / Raw(upper))
    yield 'v4-too-long', record(PACKET, IP(src='10.2.0.9', dst='10.1.0.9', len=4000) / UDP() / DATA)
    yield 'v6-too-long', record(PACKET, IPv6(src='fd02::9', dst='fd01::9', plen=4000) / UDP())
    yield 'v4-header-short', record(PACKET, b'\x44' + bytes(V4 / UDP())[1:])
    yield 'v6-chain-cut', record(PACKET, bytes(V6 / IPv6ExtHdrDestOpt() / UDP())[:42])
    yield 'v6-chain-too-long', record(PACKET, V6 / Raw(b'\x11\xff' + bytes(14)) / DATA)


def confined():
    """Addresses that are not forwarded, and hops of equal cost."""
    for number, (source, destination) in enumerate((
            ('0.1.2.3', '10.1.0.9'), ('127.0.0.1', '10.1.0.9'), ('10.2.0.9', '127.0.0.1'),
            ('10.2.0.9', '224.0.0.5'), ('10.2.0.9', '255.255.255.255'), ('240.0.0.1', '10.1.0.9'))):
        yield f'v4-confined-{number}', record(PACKET, IP(src=source, dst=destination) / UDP())
    for number, (source, destination) in enumerate((
            ('::', 'fd01::9'), ('::1', 'fd01::9'), ('fe80::1', 'fd01::9'), ('fd02::9', 'ff02::1'),
            ('::2', 'fd01::9'))):
        yield f'v6-confined-{number}', record(PACKET, IPv6(src=source, dst=destination) / UDP())
    spread = b''.join(record(PACKET, IP(src='10.2.0.9', dst='10.3.0.9') / UDP(sport=n))
                      + record(PACKET, IPv6(src='fd02::9', dst='fd03::9') / UDP(sport=n))
                      for n in range(8))
    yield 'ways', spread
    yield 'ways-esp', record(PACKET, IP(src='10.2.0.9', dst='10.3.0.9')
                             / ESP(spi=9, seq=1, data=bytes(40)))


def sealed_seeds():
    """What authentic peers, and forgers, may send."""
    plain4, plain6 = text(BACK4 / UDP() / DATA), text(BACK6 / UDP() / DATA)
    for sa in range(4):
        yield f'sealed-{sa}-v4', sealed(plain4, sa)
        yield f'sealed-{sa}-v6', sealed(plain6, sa)
        yield f'forged-{sa}', sealed(plain4, sa, form=FORGED)
        yield f'moved-{sa}', sealed(plain4, sa, tos=0x20) + sealed(plain4, sa, step=1, tos=0x20)
        yield f'fragment-{sa}', (sealed(text(IP(src='10.1.0.9', dst='10.2.0.9', flags='MF')
                                             / UDP() / DATA), sa)
                                 + sealed(text(BACK6 / IPv6ExtHdrFragment(offset=2, m=1) / DATA), sa))
        yield f'dummy-{sa}', sealed(text(DATA, next_header=59), sa)
        yield f'bad-padding-{sa}', sealed(text(BACK4 / UDP(), pad=250), sa)
        yield f'other-version-{sa}', sealed(text(BACK4 / UDP() / DATA, next_header=41), sa)
        yield f'no-ip-inside-{sa}', sealed(text(BACK4 / UDP() / DATA, next_header=6), sa)
        yield f'short-inside-{sa}', sealed(text(b'\x45' + bytes(8)), sa)
        yield f'empty-{sa}', sealed(text(b'', next_header=4), sa)
        yield f'replayed-{sa}', sealed(plain4, sa) + sealed(plain4, sa, step=0)
        yield f'replayed-later-{sa}', (sealed(plain4, sa) + record(FRAME, b'', later=True)
                                       + sealed(plain4, sa, step=0))
        yield f'too-old-{sa}', (sealed(plain4, sa) + record(FRAME, b'', later=True)
                                + sealed(plain4, sa, step=-200))
        yield f'window-{sa}', b''.join(sealed(plain4, sa, step) for step in (40, 40, -2, 3, -40, 2))
        yield f'both-workers-{sa}', b''.join(sealed(plain4, sa, worker=n % 2) for n in range(10))
        yield f'many-{sa}', b''.join(sealed(plain4, sa) for n in range(MOST_RECORDS))
        for name, inner in (('v4', BACK4), ('v6', BACK6)):
            inner = inner.copy()
            setattr(inner, 'tos' if name == 'v4' else 'tc', 1)
            yield f'marked-{sa}-{name}', sealed(text(inner / UDP() / DATA), sa, tos=0xbb)
    yield 'out-of-step', b''.join(sealed(plain4, 3, step, worker=n % 2)
                                  for n, step in enumerate((40, -40, 40, -2, 3, -40, 1, 0, -200)))
    yield 'nested', sealed(text(OUTER4 / ESP(spi=0x1000, seq=7, data=bytes(40))))
    yield 'for-machine', sealed(text(IP(src='10.1.0.9', dst='10.2.0.1') / ICMP()))
    yield 'for-machine-by-route', sealed(text(IP(src='10.1.0.9', dst='10.2.0.1') / ICMP()), sa=2)
    yield 'by-route', record(PACKET, IP(src='10.2.0.9', dst='10.1.77.9') / UDP() / DATA)
    yield 'inner-fragment', sealed(text(IP(dst='10.2.0.9', flags='MF') / UDP() / DATA))
    yield 'not-selected', sealed(text(BACK4 / TCP() / DATA), sa=1)
    yield 'odd-length', record(PACKET, OUTER4 / UDP(sport=4500, dport=4500)
                               / ESP(spi=0x2000, seq=1, data=bytes(61)), port=SECURE)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    os.makedirs(sys.argv[1], exist_ok=True)
    for name, content in seeds():
        for fib, path in enumerate((name, f'{name}-large-fib')):
            if fib == 0 or name in WITH_LARGE_FIB:
                with open(os.path.join(sys.argv[1], path), 'wb') as file:
                    file.write(bytes([fib]) + content)


if __name__ == '__main__':
    main()
