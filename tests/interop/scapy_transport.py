#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""esplane's ESP in transport mode against scapy's, packet by packet, both ways.

    outbound   capture -> esplane pcap -> ESP -> scapy decrypts   == capture, one hop on
    inbound    scapy encrypts -> ESP -> esplane pcap -> capture   == what was encrypted

The packets are the gateways' own: 192.168.77.1 to 192.168.77.2, fd77::1 to fd77::2.

usage: scapy_transport.py ESPLANE
"""
import itertools
import struct
import sys
import tempfile
from dataclasses import dataclass

import scapy_offline as offline
from scapy.config import conf
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.packet import Raw

conf.route_autoload = conf.route6_autoload = False


def expect(what, have, want):
    if have != want:
        raise AssertionError(f'{what}: {have!r}, not {want!r}')


@dataclass(frozen=True)
class Transport:
    suite: offline.Suite
    family: int
    encapsulated: bool

    def __str__(self):
        return f'{self.suite.name} v{self.family}{" in UDP" if self.encapsulated else ""}'

    def address(self, site):
        return f'192.168.77.{site}' if self.family == 4 else f'fd77::{site}'

    def setup(self, direction):
        ends = f'src {self.address(1)} dst {self.address(2)}'
        encap = f' encap espinudp {offline.ENCAP_PORT} {offline.ENCAP_PORT} 0.0.0.0'
        return ('set -e\n'
                f'ip xfrm state add {ends} proto esp spi {offline.SPI:#x} reqid {offline.REQID}'
                f' mode transport replay-window 32 {self.suite.ip_words()}'
                f'{encap if self.encapsulated else ""}\n'
                f'ip xfrm policy add {ends} dir {"out" if direction == "outbound" else "in"}'
                f' tmpl proto esp reqid {offline.REQID} mode transport\n')

    def ip(self, **fields):
        kind = IP if self.family == 4 else IPv6
        return kind(src=self.address(1), dst=self.address(2), **fields)

    def traffic(self):
        packets = [self.ip() / UDP(sport=1000 + n, dport=2000) / Raw(bytes(range(n)))
                   for n in (0, 1, 2, 3, 5, 8, 13, 17, 31, 64, 200)]
        packets.append(self.ip() / TCP(sport=80, dport=50000, flags='PA') / Raw(b'x' * 1300))
        if self.family == 4:
            packets.append(self.ip(tos=0xb9, flags='DF', id=77) / ICMP(id=5) / Raw(b'ping'))
            packets.append(self.ip(options=[IPOption_NOP()] * 4) / UDP(sport=1, dport=2))
        else:
            packets.append(self.ip(tc=0xb9, fl=0x12345) / ICMPv6EchoRequest(id=5) / Raw(b'ping'))
            packets.append(self.ip() / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() /
                           UDP(sport=1, dport=2))
        return [offline.rebuilt(p) for p in packets]

    def association(self):
        suite = self.suite
        return SecurityAssociation(
            ESP, spi=offline.SPI, crypt_algo=suite.scapy_cipher, crypt_key=suite.key or None,
            auth_algo=suite.scapy_hash,
            auth_key=suite.auth_key or None)


def header_length(packet):
    """Bytes that stay in front of ESP."""
    if isinstance(packet, IP):
        return packet.ihl * 4
    return 40 + sum(len(bytes(layer())) for layer in (IPv6ExtHdrHopByHop, IPv6ExtHdrDestOpt)
                    if layer in packet)


def set_front(raw, front, protocol):
    """The same packet with another protocol behind its header, lengths and checksum right."""
    raw = bytearray(raw)
    if raw[0] >> 4 == 6:
        raw[40 + front - 48 if front > 40 else 6] = protocol
        raw[4:6] = struct.pack('!H', len(raw) - 40)
        return bytes(raw)
    raw[9] = protocol
    packet = IP(bytes(raw))
    del packet.chksum
    packet.len = len(raw)
    return bytes(packet)


def udp_checksum_fits(raw, front):
    pseudo = raw[8:40] + struct.pack('!LL', len(raw) - front, 17)
    words = pseudo + raw[front:] + b'\0' * (len(raw) % 2)
    total = sum(struct.unpack(f'!{len(words) // 2}H', words))
    return total % 0xffff == 0


def strip_udp(transport, raw, front):
    """Checks the UDP header and takes it out."""
    ports_and_length = struct.unpack('!HHH', raw[front:front + 6])
    expect('UDP header', ports_and_length,
           (offline.ENCAP_PORT, offline.ENCAP_PORT, len(raw) - front))
    if transport.family == 4:
        expect('UDP checksum', raw[front + 6:front + 8], b'\0\0')
    else:
        expect('UDP checksum fits', udp_checksum_fits(raw, front), True)
    return set_front(raw[:front] + raw[front + 8:], front, 50)


def check_outbound(lab, transport):
    packets = transport.traffic()
    out, counted, drops = lab.run(transport, 'outbound', [bytes(p) for p in packets])
    expect('encrypted', counted['encrypted'], len(packets))
    expect('ESP packets', len(out), len(packets))
    expect('drops', drops, {})
    for number, (packet, sent) in enumerate(zip(packets, out)):
        front = header_length(packet)
        if transport.encapsulated:
            sent = strip_udp(transport, sent, front)
        expect('SPI and sequence', struct.unpack('!LL', sent[front:front + 8]),
               (offline.SPI, number + 1))
        clear = transport.association().decrypt(offline.parse_ip(sent))
        expect(f'packet {number}', bytes(offline.rebuilt(clear)), offline.hopped(packet))


def seal(transport, packet, sequence):
    sa = transport.association()
    sa.seq_num = sequence
    raw = bytes(sa.encrypt(packet))
    if not transport.encapsulated:
        return raw
    front = header_length(packet)
    port = offline.ENCAP_PORT
    udp = struct.pack('!HHHH', port, port, 8 + len(raw) - front, 0)
    return set_front(raw[:front] + udp + raw[front:], front, 17)


def check_inbound(lab, transport):
    packets = transport.traffic()
    sent = [seal(transport, p, number + 1) for number, p in enumerate(packets)]
    forged = bytearray(seal(transport, packets[0], 100))
    forged[-1] ^= 1
    clear = offline.rebuilt(transport.ip() / UDP(sport=9, dport=9))
    out, _, drops = lab.run(transport, 'inbound', sent + [bytes(forged), sent[0], bytes(clear)])
    expect('drops', drops, {'icv_mismatch': 1, 'replay_duplicate': 1, 'policy_template': 1})
    expect('packets that came out', out, [bytes(p) for p in packets])


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    failed = checked = 0
    with tempfile.TemporaryDirectory(prefix='esplane-scapy-') as directory:
        lab = offline.Offline(sys.argv[1], directory)
        for suite, family, udp in itertools.product(offline.SUITES, (4, 6), (False, True)):
            transport = Transport(suite, family, udp)
            for check in (check_outbound, check_inbound):
                checked += 1
                try:
                    check(lab, transport)
                except Exception as e:  # pylint: disable=broad-except
                    failed += 1
                    print(f'FAILED {transport}: {check.__name__}: {type(e).__name__}: {e}',
                          flush=True)
    print(f'{checked - failed} of {checked} scenes passed')
    sys.exit(failed != 0)


if __name__ == '__main__':
    main()
