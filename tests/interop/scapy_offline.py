# SPDX-License-Identifier: Apache-2.0
"""esplane offline, programmed by `ip xfrm`: what the tests against scapy and tshark share.

    10.1.0.0/16, fd01::/32 --- [192.168.77.1, fd77::1] === ESP === [192.168.77.2, fd77::2] --- 10.2...
"""
import ipaddress
import json
import os
import subprocess
from dataclasses import dataclass

from scapy.layers.inet import IP, TCP, UDP, ICMP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.packet import Raw
from scapy.utils import PcapReader, wrpcap

SPI = 0x1000
REQID = 7
ENCAP_PORT = 4500
RAW_IP = 101  # DLT_RAW: a capture whose packets begin with the IP header


@dataclass(frozen=True)
class Suite:
    """An algorithm as `ip xfrm`, scapy and tshark name it."""
    name: str
    key_length: int  # of the cipher, the salt of an AEAD included
    scapy_cipher: str
    tshark_cipher: str | None  # None: tshark 4.0 does not know it
    hash: str | None  # of the HMAC: 'sha256', 'sha1'; None: the cipher is an AEAD

    @property
    def authenticated(self):
        return self.hash is not None

    @property
    def icv_length(self):
        return 12 if self.hash == 'sha1' else 16

    @property
    def scapy_hash(self):
        return {'sha256': 'SHA2-256-128', 'sha1': 'HMAC-SHA1-96'}.get(self.hash)

    @property
    def key(self):
        return bytes((37 * i + self.key_length) & 0xff for i in range(self.key_length))

    @property
    def auth_key(self):
        return bytes((11 * i + 3) & 0xff for i in range(32)) if self.authenticated else b''

    def ip_words(self):
        if not self.authenticated:
            return f"aead '{AEADS[self.scapy_cipher]}' 0x{self.key.hex()} 128"
        cipher = f"'cbc(aes)' 0x{self.key.hex()}" if self.key else "'ecb(cipher_null)' ''"
        return (f"enc {cipher} auth-trunc 'hmac({self.hash})' 0x{self.auth_key.hex()} "
                f"{self.icv_length * 8}")


AEADS = {'AES-GCM': 'rfc4106(gcm(aes))', 'CHACHA20-POLY1305': 'rfc7539esp(chacha20,poly1305)'}
GCM_TSHARK = 'AES-GCM with 16 octet ICV [RFC4106]'
CBC_TSHARK = 'AES-CBC [RFC3602]'
SUITES = [
    Suite('aes128-gcm16', 20, 'AES-GCM', GCM_TSHARK, None),
    Suite('aes192-gcm16', 28, 'AES-GCM', GCM_TSHARK, None),
    Suite('aes256-gcm16', 36, 'AES-GCM', GCM_TSHARK, None),
    Suite('chacha20-poly1305', 36, 'CHACHA20-POLY1305', None, None),
    Suite('aes128-cbc-sha256', 16, 'AES-CBC', CBC_TSHARK, 'sha256'),
    Suite('aes192-cbc-sha256', 24, 'AES-CBC', CBC_TSHARK, 'sha256'),
    Suite('aes256-cbc-sha256', 32, 'AES-CBC', CBC_TSHARK, 'sha256'),
    Suite('aes128-cbc-sha1', 16, 'AES-CBC', CBC_TSHARK, 'sha1'),
    Suite('null-sha256', 0, 'NULL', 'NULL', 'sha256'),
]


@dataclass(frozen=True)
class Tunnel:
    suite: Suite
    outer: int = 4
    inner: int = 4
    encapsulated: bool = False
    esn: bool = False
    window: int = 32
    sequence: int = 0  # the last one sent, or the highest one received

    def __str__(self):
        return (f'{self.suite.name} v{self.inner} in v{self.outer}'
                f'{" in UDP" if self.encapsulated else ""}{" ESN" if self.esn else ""}')

    def gateway(self, site):
        return f'192.168.77.{site}' if self.outer == 4 else f'fd77::{site}'

    def network(self, site):
        return f'10.{site}.0.0/16' if self.inner == 4 else f'fd0{site}::/32'

    def host(self, site, number=10):
        return str(ipaddress.ip_network(self.network(site))[number])

    def setup(self, direction):
        """The `ip xfrm` lines of one end."""
        ends = f'src {self.gateway(1)} dst {self.gateway(2)}'
        state = f'ip xfrm state add {ends} proto esp spi {SPI:#x} reqid {REQID} mode tunnel'
        flags = ['esn'] * self.esn + ['af-unspec'] * (self.inner != self.outer)
        if flags:
            state += f' flag {" ".join(flags)}'
        state += f' replay-window {self.window}'
        which = 'oseq' if direction == 'outbound' else 'seq'
        state += f' replay-{which} {self.sequence & 0xffffffff}'
        if self.esn:
            state += f' replay-{which}-hi {self.sequence >> 32}'
        state += f' {self.suite.ip_words()}'
        if self.encapsulated:
            state += f' encap espinudp {ENCAP_PORT} {ENCAP_PORT} 0.0.0.0'
        policy = (f'ip xfrm policy add src {self.network(1)} dst {self.network(2)}'
                  f' dir {"out" if direction == "outbound" else "fwd"}'
                  f' tmpl {ends} proto esp reqid {REQID} mode tunnel')
        return f'set -e\n{state}\n{policy}\n'

    def ip(self, source=1, destination=2, **fields):
        """An inner IP header."""
        kind = IP if self.inner == 4 else IPv6
        return kind(src=self.host(source), dst=self.host(destination), **fields)

    def echo(self):
        return ICMP(id=5) if self.inner == 4 else ICMPv6EchoRequest(id=5)

    def traffic(self):
        """Packets of all sizes and sorts that the policy covers."""
        packets = [self.ip() / UDP(sport=1000 + n, dport=2000) / Raw(bytes(range(n)))
                   for n in (0, 1, 2, 3, 5, 8, 13, 17, 31, 64, 200)]
        packets.append(self.ip() / TCP(sport=80, dport=50000, flags='PA') / Raw(b'x' * 1333))
        packets.append(self.ip() / self.echo() / Raw(b'ping'))
        return [rebuilt(p) for p in packets]


def rebuilt(packet):
    """With every computed field computed."""
    return packet.__class__(bytes(packet))


def parse_ip(raw):
    return IP(raw) if raw[0] >> 4 == 4 else IPv6(raw)


def hopped(packet):
    """The packet one hop further, as bytes."""
    p = packet.copy()
    if isinstance(p, IP):
        p.ttl -= 1
        del p.chksum
    else:
        p.hlim -= 1
    return bytes(p)


class Offline:
    """`esplane pcap` in a directory of its own."""

    def __init__(self, esplane, directory):
        self.esplane = esplane
        self.directory = directory

    def path(self, name):
        return os.path.join(self.directory, name)

    def run(self, tunnel, direction, packets):
        """Sends packets (bytes) through; returns those that came out and the report."""
        with open(self.path('setup'), 'w', encoding='ascii') as script:
            script.write(tunnel.setup(direction))
        wrpcap(self.path('in.pcap'), packets, linktype=RAW_IP)
        done = subprocess.run(
            [self.esplane, 'pcap', '--json', '--setup', f'sh {self.path("setup")}',
             '--direction', direction,
             '--in', self.path('in.pcap'), '--out', self.path('out.pcap')],
            capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise AssertionError(f'esplane pcap: status {done.returncode}: {done.stderr}')
        with PcapReader(self.path('out.pcap')) as capture:
            out = [bytes(p) for p in capture]
        report = json.loads(done.stderr or done.stdout)
        drops = {d['reason']: d['packets'] for d in report['drops'] if d['packets']}
        return out, report['packets'], drops
