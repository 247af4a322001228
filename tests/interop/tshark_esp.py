#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""tshark decrypts what esplane sends.

    capture -> esplane pcap -> ESP -> tshark with the SA's keys   == addresses, ports and data

usage: tshark_esp.py ESPLANE
"""
import os
import shutil
import subprocess
import sys
import tempfile

import scapy_offline as offline
from scapy.config import conf
from scapy.layers.inet import UDP
from scapy.packet import Raw

conf.route_autoload = conf.route6_autoload = False
FIELDS = ['esp.spi', 'esp.sequence', 'esp.icv_good', 'ip.src', 'ip.dst', 'ipv6.src', 'ipv6.dst',
          'udp.srcport', 'udp.dstport', 'udp.checksum.status', 'data.data']
UDP_CHECKSUM_GOOD = '1'
AUTHENTICATIONS = {'sha256': 'HMAC-SHA-256-128 [RFC4868]', 'sha1': 'HMAC-SHA-1-96 [RFC2404]',
                   None: 'NULL'}


def security_association(tunnel):
    """A line of tshark's esp_sa table."""
    suite = tunnel.suite
    auth = AUTHENTICATIONS[suite.hash]
    words = [f'IPv{tunnel.outer}', tunnel.gateway(1), tunnel.gateway(2), f'{offline.SPI:#010x}',
             suite.tshark_cipher, f'0x{suite.key.hex()}' if suite.key else '',
             auth, f'0x{suite.auth_key.hex()}' if suite.auth_key else '']
    return 'uat:esp_sa:' + ','.join(f'"{w}"' for w in words)


def dissect(tunnel, capture, home):
    """For each packet a dictionary of FIELDS; a field of both headers is (outer, inner)."""
    command = ['tshark', '-n', '-r', capture, '-o', 'esp.enable_encryption_decode:TRUE',
               '-o', 'esp.enable_authentication_check:TRUE', '-o', 'udp.check_checksum:TRUE',
               '-o', security_association(tunnel), '-T', 'fields', '-E', 'separator=;']
    for field in FIELDS:
        command += ['-e', field]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False,
                          env={**os.environ, 'HOME': home})
    if done.returncode != 0:
        raise AssertionError(f'tshark: status {done.returncode}: {done.stderr}')
    return [dict(zip(FIELDS, line.split(';'))) for line in done.stdout.splitlines()]


def expected(tunnel, number, packet):
    """What tshark must show of the packet that esplane sent as `number`."""
    def ends(version, which):
        outer = [tunnel.gateway(which)] if tunnel.outer == version else []
        inner = [tunnel.host(which)] if tunnel.inner == version else []
        return ','.join(outer + inner)
    udp = packet[UDP]
    port = [str(offline.ENCAP_PORT)] if tunnel.encapsulated else []
    return {'esp.spi': f'{offline.SPI:#010x}', 'esp.sequence': str(number), 'esp.icv_good': '1',
            'ip.src': ends(4, 1), 'ip.dst': ends(4, 2),
            'ipv6.src': ends(6, 1), 'ipv6.dst': ends(6, 2),
            'udp.srcport': ','.join(port + [str(udp.sport)]),
            'udp.dstport': ','.join(port + [str(udp.dport)]),
            'data.data': bytes(udp.payload).hex()}


def check(lab, tunnel):
    packets = [offline.rebuilt(tunnel.ip() / UDP(sport=40000 + n, dport=40001)
                               / Raw(bytes((n + i) & 0xff for i in range(n))))
               for n in (1, 2, 7, 16, 33, 500, 1300)]
    lab.run(tunnel, 'outbound', [bytes(p) for p in packets])
    shown = dissect(tunnel, lab.path('out.pcap'), lab.directory)
    if len(shown) != len(packets):
        raise AssertionError(f'{len(shown)} packets, not {len(packets)}')
    for number, (have, packet) in enumerate(zip(shown, packets), start=1):
        for field, want in expected(tunnel, number, packet).items():
            if have[field] != want:
                raise AssertionError(f'packet {number}: {field} is {have[field]!r}, not {want!r}')
        if have['udp.checksum.status'].split(',')[-1] != UDP_CHECKSUM_GOOD:
            raise AssertionError(f'packet {number}: inner UDP checksum is not good')


def tunnels():
    for suite in (s for s in offline.SUITES if s.tshark_cipher is not None):
        for outer, inner in ((4, 4), (4, 6), (6, 4), (6, 6)):
            yield offline.Tunnel(suite, outer, inner)
        yield offline.Tunnel(suite, encapsulated=True)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if shutil.which('tshark') is None:
        print('skipped: tshark is missing: apt-get install tshark')
        sys.exit(77)
    failed = checked = 0
    with tempfile.TemporaryDirectory(prefix='esplane-tshark-') as directory:
        lab = offline.Offline(sys.argv[1], directory)
        for tunnel in tunnels():
            checked += 1
            try:
                check(lab, tunnel)
            except Exception as e:  # pylint: disable=broad-except
                failed += 1
                print(f'FAILED {tunnel}: {type(e).__name__}: {e}', flush=True)
    print(f'{checked - failed} of {checked} scenes passed')
    sys.exit(failed != 0)


if __name__ == '__main__':
    main()
