#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""libesplane as its users have it: installed into an empty prefix, found by pkg-config, built
against with a plain compiler, and what it encrypts given to others to decrypt.

    build directory -> meson install -> PREFIX -> cc, c++ -> doc/examples/tunnel, l2_forwarder
                                                                 |            |
                                    scapy, esplane pcap  <---- ESP            | net_pcap, net_ring
                                    scapy, l2_forwarder  <--------------------'

usage: library.py BUILD SOURCE [ESPLANE]
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from scapy.config import conf
from scapy.layers.inet import IP, UDP
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import rdpcap, wrpcap

conf.route_autoload = conf.route6_autoload = False

KEY = bytes(range(0x10, 0x24))  # of doc/examples/tunnel.c
PACKETS = 100
CFLAGS = ['-O2', '-Wall', '-Wextra', '-Werror']
TARGETS = {'--tags': 'library,devel'}


def run(*command, **more):
    """What it printed; an AssertionError with all of that where it failed."""
    done = subprocess.run([str(c) for c in command], check=False, text=True, timeout=120,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)
    assert done.returncode == 0, f'{command[0]} ended with {done.returncode}:\n{done.stdout}'
    return done.stdout


def expect(what, have, want):
    assert have == want, f'{what}: {have!r}, not {want!r}'


class Prefix:
    """Where the library is installed, and nothing else is."""

    def __init__(self, build, directory):
        root = pathlib.Path(directory) / 'root'
        run('meson', 'install', '-C', build, '--no-rebuild', '--quiet', '--destdir', root,
            '--tags', TARGETS['--tags'])
        found = list(root.rglob('libesplane.pc'))
        expect('pkg-config files', len(found), 1)
        self.package = found[0].parent
        self.path = next(p.parent for p in root.rglob('include') if p.is_dir())
        self.library = next(root.rglob('libesplane.so'))

    def flags(self, which):
        return run('pkg-config', f'--define-variable=prefix={self.path}', which, 'libesplane',
                   env={**os.environ, 'PKG_CONFIG_PATH': str(self.package)}).split()

    def build(self, compiler, source, into, *more, libraries=()):
        run(*compiler, *more, *self.flags('--cflags'), source, *self.flags('--libs'), *libraries,
            f'-Wl,-rpath,{self.library.parent}', '-o', into)


def check_exports(prefix):
    """Only what the interface names is visible, and all of it."""
    listed = run('nm', '-D', '--defined-only', prefix.library)
    visible = {line.split()[-1].split('@')[0] for line in listed.splitlines()}
    visible.discard('ESPLANE_1')
    header = (prefix.path / 'include/esplane/esplane.h').read_text()
    declared = set(re.findall(r'ESPLANE_API [^;(]*?\b(esplane_\w+)\(', header))
    expect('symbols', visible, declared)


def check_headers(prefix, directory):
    """Each alone, in every language and by every compiler that it may meet."""
    languages = {
        'esplane.h': [('gcc', 'c', 'c99'), ('clang', 'c', 'c99'), ('g++', 'c++', 'c++11'),
                      ('clang++', 'c++', 'c++20')],
        'esplane.hpp': [('g++', 'c++', 'c++20'), ('clang++', 'c++', 'c++20')],
    }
    for header, compilers in languages.items():
        for compiler, language, standard in compilers:
            if shutil.which(compiler):
                run(compiler, f'-x{language}', f'-std={standard}', '-pedantic', *CFLAGS,
                    *prefix.flags('--cflags'), '-c', '-', '-o', directory / 'alone.o',
                    input=f'#include <esplane/{header}>\n')


def association(source, destination, spi, high=None):
    return SecurityAssociation(ESP, spi=spi, crypt_algo='AES-GCM', crypt_key=KEY,
                               tunnel_header=IP(src=source, dst=destination),
                               **({} if high is None else {'esn_en': True, 'esn': high}))


def check_tunnel(prefix, source, directory, esplane):
    """The C example; what it encrypted by scapy and by the daemon's engine."""
    program, capture = directory / 'tunnel', directory / 'tunnel.pcap'
    prefix.build(['cc', '-std=c11'], source / 'doc/examples/tunnel.c', program, *CFLAGS)
    said = run(program, PACKETS, capture)
    assert f'{PACKETS} packets went through the tunnel and came out as they were' in said, said
    assert f'encrypted {PACKETS}' in said and f'decrypted {PACKETS}' in said, said

    encrypted = rdpcap(str(capture))
    expect('captured', len(encrypted), PACKETS)
    for number, packet in enumerate(encrypted):
        expect('sequence number', packet[ESP].seq, number + 1)
        inner = association('192.168.77.1', '192.168.77.2', 0x1000, high=0).decrypt(IP(bytes(packet)))
        expect('inner source', (inner.src, inner.dst, inner.ttl), ('10.1.0.1', '10.2.0.1', 64))
        payload = number.to_bytes(4, 'little') * 250
        expect('payload', bytes(inner[UDP].payload), payload)
    if esplane:
        check_offline(esplane, capture, directory)


def check_offline(esplane, capture, directory):
    out = directory / 'decrypted.pcap'
    ends = 'src 192.168.77.1 dst 192.168.77.2'
    setup = (f'set -e; ip xfrm state add {ends} proto esp spi 0x1000 reqid 1 mode tunnel flag esn'
             f" replay-window 64 aead 'rfc4106(gcm(aes))' 0x{KEY.hex()} 128\n"
             f'ip xfrm policy add src 10.1.0.0/16 dst 10.2.0.0/16 dir fwd'
             f' tmpl {ends} proto esp reqid 1 mode tunnel')
    run(esplane, 'pcap', '--setup', setup, '--direction', 'inbound', '--in', capture, '--out', out)
    payloads = [bytes(p[UDP].payload) for p in rdpcap(str(out))]
    expect('payloads', payloads, [n.to_bytes(4, 'little') * 250 for n in range(PACKETS)])


def forward(program, directory, site, plain, secure, *more):
    """One l2_forwarder over captures: (frames in, frames out) of either port."""
    devices = []
    for number, (frames, name) in enumerate(((plain, 'plain'), (secure, 'secure'))):
        out = directory / f'{site}-{name}.pcap'
        device = f'net_pcap{number},tx_pcap={out}'
        if frames:
            wrpcap(str(directory / f'{site}-{name}-in.pcap'), frames)
            device += f',rx_pcap={directory / f"{site}-{name}-in.pcap"}'
        else:
            device += ',infinite_rx=0'
        devices += ['--vdev', device]
    peer = 3 - site
    said = run(program, '-l', '0', '--no-huge', '-m', '128', '--no-pci', '--no-telemetry',
               f'--file-prefix=esplane-library-{os.getpid()}', *devices, '--',
               f'local=192.168.77.{site}', f'peer=192.168.77.{peer}', f'net=10.{site}.0.0/16',
               f'peer-net=10.{peer}.0.0/16', f'key={KEY.hex()}', f'spi-out={0x1000 + site}',
               f'spi-in={0x1000 + peer}', 'seconds=1', *more)
    return said, *(rdpcap(str(directory / f'{site}-{name}.pcap')) for name in ('plain', 'secure'))


def frames_of(packets):
    return [Ether(src='02:00:00:00:01:01', dst='02:00:00:00:00:00') / p for p in packets]


def check_forwarder(prefix, source, directory):
    """The DPDK example: frames through one, the ESP by scapy and through a second."""
    program = directory / 'l2_forwarder'
    dpdk = run('pkg-config', '--cflags', 'libdpdk').split()
    prefix.build(['c++', '-std=c++20'], source / 'doc/examples/l2_forwarder.cc', program, '-O2',
                 *dpdk, libraries=run('pkg-config', '--libs', 'libdpdk').split())
    inner = [IP(src='10.1.0.7', dst='10.2.0.7', flags='DF') / UDP(sport=n, dport=9) /
             Raw(bytes([n]) * (20 * n)) for n in range(1, 65)]
    clear = IP(src='10.3.0.7', dst='10.4.0.7') / UDP(sport=1, dport=9) / Raw(b'in clear')
    too_big = inner[0].copy()
    too_big[UDP].payload = Raw(b'x' * 1460)
    sent = [IP(bytes(p)) for p in inner]
    said, _, wire = forward(program, directory, 1, frames_of(sent + [clear, too_big]), None)
    expect('frames on the wire', len(wire), len(inner) + 1)
    assert 'sent 65, dropped 1' in said and 'larger than the path' in said, said
    for want, frame in zip(sent, wire):
        have = association('192.168.77.1', '192.168.77.2', 0x1001).decrypt(IP(bytes(frame[IP])))
        expect('inner packet', bytes(have), bytes(want))
    expect('packet in clear', bytes(wire[-1][IP]), bytes(clear))

    forged = wire[0].copy()
    forged[ESP].data = forged[ESP].data[:-1] + bytes([forged[ESP].data[-1] ^ 1])
    said, plain, _ = forward(program, directory, 2, None,
                             [forged, *wire[:-1], wire[0]])
    expect('packets out', [bytes(f[IP]) for f in plain], [bytes(p) for p in sent])
    assert 'integrity check failed' in said and 'sequence number' in said, said


def main():
    build, source = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    esplane = sys.argv[3] if len(sys.argv) > 3 else None
    with tempfile.TemporaryDirectory(prefix='esplane-library-') as name:
        directory = pathlib.Path(name)
        prefix = Prefix(build, directory)
        check_exports(prefix)
        check_headers(prefix, directory)
        check_tunnel(prefix, source, directory, esplane)
        if subprocess.run(['pkg-config', '--exists', 'libdpdk'], check=False).returncode == 0:
            check_forwarder(prefix, source, directory)
        else:
            print('the DPDK example is not built: apt-get install libdpdk-dev')
    print('passed')


if __name__ == '__main__':
    main()
