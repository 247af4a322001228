#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""esplane's ESP against scapy's, packet by packet, both ways.

    outbound   capture -> esplane pcap -> ESP -> scapy decrypts   == capture, one hop on
    inbound    scapy encrypts -> ESP -> esplane pcap -> capture   == what was encrypted, one hop on

Inbound, forged, cut, replayed and reordered packets are among them: exactly the right ones come
out, and the counters say why for each of the others.  Fragments of ESP are scapy's, too.

usage: scapy_esp.py ESPLANE
"""
import hmac
import itertools
import struct
import sys
import tempfile
from collections import Counter

import scapy_offline as offline
from scapy.config import conf
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.packet import Raw

conf.route_autoload = conf.route6_autoload = False
TOS = 0xb9  # EF, and ECT(1)


def expect(what, have, want):
    if have != want:
        raise AssertionError(f'{what}: {have!r}, not {want!r}')


def signs_itself(tunnel):
    """scapy 2.5 leaves the high half of the sequence number out of an HMAC over ESP."""
    return tunnel.esn and tunnel.suite.authenticated


def icv(tunnel, esp, high):
    message = esp + struct.pack('!L', high)
    suite = tunnel.suite
    return hmac.new(suite.auth_key, message, suite.hash).digest()[:suite.icv_length]


def association(tunnel, high=0):
    """scapy's side of the SA; `high` is the upper half of the sequence number."""
    header = IP if tunnel.outer == 4 else IPv6
    suite = tunnel.suite
    by_scapy = suite.authenticated and not signs_itself(tunnel)
    return SecurityAssociation(
        ESP, spi=offline.SPI, crypt_algo=suite.scapy_cipher, crypt_key=suite.key or None,
        auth_algo=suite.scapy_hash if by_scapy else None,
        auth_key=suite.auth_key if by_scapy else None,
        tunnel_header=header(src=tunnel.gateway(1), dst=tunnel.gateway(2)),
        esn_en=tunnel.esn, esn=high)


def outer_ip(tunnel, protocol):
    ends = {'src': tunnel.gateway(1), 'dst': tunnel.gateway(2)}
    return IP(proto=protocol, id=0, **ends) if tunnel.outer == 4 else IPv6(nh=protocol, **ends)


def around(tunnel, esp, encapsulated=None):
    """The packet on the wire for the bytes of an ESP header and all behind it."""
    if tunnel.encapsulated if encapsulated is None else encapsulated:
        port = offline.ENCAP_PORT
        udp = struct.pack('!HHHH', port, port, 8 + len(esp), 0)
        return bytes(outer_ip(tunnel, 17) / Raw(udp + esp))
    return bytes(outer_ip(tunnel, 50) / Raw(esp))


def seal(tunnel, packet, sequence, mode='tunnel'):
    """ESP header to ICV, by scapy."""
    sa = association(tunnel, sequence >> 32)
    if mode == 'transport':
        sa.tunnel_header = None
    sa.seq_num = sequence & 0xffffffff  # an argument of 0 would not count
    esp = bytes(sa.encrypt(packet)[ESP])
    return esp + icv(tunnel, esp, sequence >> 32) if signs_itself(tunnel) else esp


def unseal(tunnel, esp, sequence):
    """The inner packet, by scapy."""
    if signs_itself(tunnel):
        length = tunnel.suite.icv_length
        expect('ICV', esp[-length:], icv(tunnel, esp[:-length], sequence >> 32))
        esp = esp[:-length]
    packet = offline.rebuilt(outer_ip(tunnel, 50) / Raw(esp))
    return association(tunnel, sequence >> 32).decrypt(packet)


# --- outbound --------------------------------------------------------------------------------

def esp_of(tunnel, packet):
    """Checks the outer header of what esplane sent; returns the ESP bytes behind it."""
    outer = offline.parse_ip(packet)
    expect('outer source', outer.src, tunnel.gateway(1))
    expect('outer destination', outer.dst, tunnel.gateway(2))
    if tunnel.outer == 4:
        expect('outer length', outer.len, len(packet))
        sum_there, again = outer.chksum, outer.copy()
        del again.chksum
        expect('outer checksum', sum_there, IP(bytes(again)).chksum)
        expect('outer protocol', outer.proto, 17 if tunnel.encapsulated else 50)
        behind = packet[20:]
    else:
        expect('outer length', outer.plen, len(packet) - 40)
        expect('outer protocol', outer.nh, 17 if tunnel.encapsulated else 50)
        behind = packet[40:]
    if not tunnel.encapsulated:
        return outer, behind
    source, destination, length, checksum = struct.unpack('!HHHH', behind[:8])
    expect('UDP ports', (source, destination), (offline.ENCAP_PORT, offline.ENCAP_PORT))
    expect('UDP length', length, len(behind))
    if tunnel.outer == 4:
        expect('UDP checksum', checksum, 0)
    else:  # what scapy computes over the same bytes
        again = outer.copy()
        del again[UDP].chksum
        expect('UDP checksum', checksum, IPv6(bytes(again))[UDP].chksum)
    return outer, behind[8:]


def tos_of(packet):
    return packet.tos if isinstance(packet, IP) else packet.tc


def check_outbound(lab, tunnel):
    packets = tunnel.traffic()
    marked = {'tos': TOS, 'flags': 'DF'} if tunnel.inner == 4 else {'tc': TOS}
    packets.append(offline.rebuilt(tunnel.ip(**marked) / UDP(sport=1, dport=2)))
    not_covered = offline.rebuilt(tunnel.ip(destination=3) / UDP(sport=1, dport=2))
    last_hop = packets[0].copy()
    if tunnel.inner == 4:
        last_hop.ttl = 1
        del last_hop.chksum
    else:
        last_hop.hlim = 1
    out, counted, drops = lab.run(tunnel, 'outbound',
                                  [bytes(p) for p in packets + [not_covered, last_hop]])
    in_clear = [p for p in out if p == offline.hopped(not_covered)]
    expect('packets in clear', len(in_clear), 1)
    out.remove(in_clear[0])
    expect('encrypted', counted['encrypted'], len(packets))
    expect('drops', drops.get('ttl_exceeded'), 1)
    expect('ESP packets', len(out), len(packets))
    ivs = set()
    for number, (packet, sent) in enumerate(zip(packets, out)):
        sequence = tunnel.sequence + 1 + number
        outer, esp = esp_of(tunnel, sent)
        expect('SPI and sequence', struct.unpack('!LL', esp[:8]),
               (offline.SPI, sequence & 0xffffffff))
        expect('outer traffic class', tos_of(outer), tos_of(packet))
        if tunnel.outer == 4:
            whole = tunnel.inner == 6 or packet.flags == 'DF'
            expect('outer DF', outer.flags == 'DF', whole)
        if tunnel.suite.key:
            ivs.add(esp[8:16])
        inner = unseal(tunnel, esp, sequence)
        expect(f'inner packet {number}', bytes(inner), offline.hopped(packet))
    expect('distinct IVs', len(ivs), len(packets) if tunnel.suite.key else 0)


# --- inbound ---------------------------------------------------------------------------------

def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1:]


class Inbound:
    """What is sent, and what must become of each packet."""

    def __init__(self, tunnel):
        self.tunnel = tunnel
        self.sent = []
        self.come_out = []
        self.drops = Counter()
        self.packets = tunnel.traffic()
        self.number = 0

    def end_burst(self):
        """More packets than the engine takes at once, for nobody's policy."""
        stranger = offline.rebuilt(self.tunnel.ip(source=5) / UDP(sport=1, dport=2))
        self.sent += [bytes(stranger)] * 64
        self.come_out += [offline.hopped(stranger)] * 64

    def good(self, sequence, times=1):
        packet = self.packets[self.number % len(self.packets)]
        self.number += 1
        wire = around(self.tunnel, seal(self.tunnel, packet, sequence))
        self.sent += [wire] * times
        self.come_out.append(offline.hopped(packet))
        self.drops['replay_duplicate'] += times - 1

    def bad(self, why, esp, encapsulated=None):
        self.sent.append(around(self.tunnel, esp, encapsulated))
        self.drops[why] += 1

    def forged(self, sequence):
        """One packet, damaged in every part.  The number stays free."""
        esp = seal(self.tunnel, self.packets[5], sequence)
        end = len(esp) - self.tunnel.suite.icv_length
        for at in (len(esp) - 1, end, end - 1, 8, 9, 7):
            self.bad('icv_mismatch', flipped(esp, at))
        self.bad('sa_unknown', flipped(esp, 3))
        if self.tunnel.esn:  # the right number in the wrong subspace
            self.bad('icv_mismatch', seal(self.tunnel, self.packets[5], sequence + (1 << 33)))
        if self.tunnel.encapsulated:
            self.bad('sa_encapsulation', esp, encapsulated=False)
        else:  # no SA listens on that port: UDP for the machine itself, as it came
            self.sent.append(around(self.tunnel, esp, encapsulated=True))
            self.come_out.append(self.sent[-1])
        self.bad('esp_malformed', esp[:-1])
        block = 16 if self.tunnel.suite.scapy_cipher == 'AES-CBC' else 4
        self.bad('icv_mismatch', esp[:-block])
        self.bad('esp_malformed', esp[:8])
        self.bad('esp_malformed', esp[:20])

    def dummy(self, sequence):
        """Authentic, and to be thrown away: the number is used up."""
        chaff = outer_ip(self.tunnel, 59) / Raw(b'chaff' * 5)
        esp = seal(self.tunnel, chaff, sequence, mode='transport')
        self.bad('dummy', esp)
        self.bad('replay_duplicate', esp)


def check_inbound(lab, tunnel):
    play = Inbound(tunnel)
    base = tunnel.sequence
    for i in (1, 2, 3):
        play.good(base + i)
    play.forged(base + 4)  # must not use up the number, nor move the window
    play.good(base + 4)
    for i in (9, 7, 8, 5, 6):  # out of order
        play.good(base + i, times=2)
    play.dummy(base + 10)
    top = base + 10 + 3 * tunnel.window
    play.good(top)
    play.good(top - tunnel.window + 1)  # the last that is still inside
    play.end_burst()  # what follows sees a window that has moved
    if not tunnel.esn:  # with ESN such a number is one of the next subspace
        play.bad('replay_too_old', seal(tunnel, play.packets[0], top - tunnel.window))
    else:
        play.bad('icv_mismatch', seal(tunnel, play.packets[0], top - tunnel.window))
    clear = offline.rebuilt(tunnel.ip() / UDP(sport=1, dport=2))
    play.sent.append(bytes(clear))  # in clear where the policy protects
    play.drops['policy_template'] += 1
    other = offline.rebuilt(tunnel.ip(source=4) / UDP(sport=1, dport=2))
    play.sent.append(around(tunnel, seal(tunnel, other, top + 1)))
    play.drops['policy_missing'] += 1
    play.good(top + 2)

    out, counted, drops = lab.run(tunnel, 'inbound', play.sent)
    expect('drops', drops, {why: n for why, n in play.drops.items() if n})
    expect('packets that came out', len(out), len(play.come_out))
    for have, want in zip(*(through(p, tunnel) for p in (out, play.come_out))):
        expect('packet', have, want)
    expect('accounts', counted['received'],
           counted['sent'] + counted['dropped'] + counted['punted'])


def in_pieces(tunnel, wire, number):
    """A packet on the wire, fragmented by scapy."""
    whole = offline.parse_ip(wire)
    if tunnel.outer == 4:
        whole.id = number
        del whole.chksum
        return [bytes(p) for p in fragment(IP(bytes(whole)), fragsize=600)]
    header = IPv6(src=whole.src, dst=whole.dst)
    parts = header / IPv6ExtHdrFragment(nh=whole.nh, id=number) / Raw(wire[40:])
    return [bytes(p) for p in fragment6(parts, 1280)]


def check_fragments(lab, tunnel):
    """All there, in order, backwards and among each other; one never complete."""
    long = offline.rebuilt(tunnel.ip() / TCP(sport=80, dport=50000) / Raw(bytes(1380)))
    pieces = [in_pieces(tunnel, around(tunnel, seal(tunnel, long, tunnel.sequence + n)), n)
              for n in (1, 2, 3, 4, 5)]
    sent = pieces[0] + pieces[1][::-1] + [p for pair in zip(*pieces[2:4]) for p in pair]
    sent += pieces[4][:-1]
    out, counted, drops = lab.run(tunnel, 'inbound', sent)
    expect('packets that came out', out, [offline.hopped(long)] * 4)
    expect('packets put together', counted['reassembled'], 4)
    expect('fragments that wait', counted['held'], len(pieces[4]) - 1)
    expect('drops', drops, {})
    expect('accounts', counted['received'],
           counted['sent'] + counted['absorbed'] + counted['held'])


def through(packets, tunnel):
    """What came out of the tunnel, in order, and then the rest, in any."""
    inside = tunnel.host(1), tunnel.host(2)
    inner, rest = [], []
    for packet in packets:
        ip = offline.parse_ip(packet)
        (inner if (ip.src, ip.dst) == inside else rest).append(packet)
    return inner + sorted(rest)


def tunnels():
    for suite, outer, inner, encapsulated, esn in itertools.product(
            offline.SUITES, (4, 6), (4, 6), (False, True), (False, True)):
        yield offline.Tunnel(suite, outer, inner, encapsulated, esn)
        if esn:  # across the border of two 2^32 subspaces
            yield offline.Tunnel(suite, outer, inner, encapsulated, esn,
                                 window=128, sequence=(3 << 32) - 8)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    failed = checked = 0
    with tempfile.TemporaryDirectory(prefix='esplane-scapy-') as directory:
        lab = offline.Offline(sys.argv[1], directory)
        for tunnel in tunnels():
            checks = [check_outbound, check_inbound]
            if tunnel.suite == offline.SUITES[0]:  # fragments know no cipher
                checks.append(check_fragments)
            for check in checks:
                checked += 1
                try:
                    check(lab, tunnel)
                except Exception as e:  # pylint: disable=broad-except
                    failed += 1
                    print(f'FAILED {tunnel} at {tunnel.sequence:#x}: {check.__name__}: '
                          f'{type(e).__name__}: {e}', flush=True)
    print(f'{checked - failed} of {checked} scenes passed')
    sys.exit(failed != 0)


if __name__ == '__main__':
    main()
