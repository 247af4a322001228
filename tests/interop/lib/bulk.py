#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Bytes from one end to the other, and what came of them.

    bulk.py tcp-receive ADDRESS PORT            one connection: bytes and SHA-256
    bulk.py tcp-send ADDRESS PORT BYTES         the same of what was sent
    bulk.py udp-receive ADDRESS PORT COUNT GRO  COUNT numbered datagrams, with UDP_GRO if 1: how many
                                                came, how many in order and whole, the most in one
                                                read
    bulk.py udp-send ADDRESS PORT COUNT SIZE    in pieces of up to 60 KB by UDP_SEGMENT
"""
import hashlib
import ipaddress
import random
import socket
import struct
import sys
import time

UDP_SEGMENT, UDP_GRO = 103, 104
SECONDS = 60


def open_socket(address, kind):
    v6 = ipaddress.ip_address(address).version == 6
    opened = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, kind)
    opened.settimeout(SECONDS)
    return opened


def tcp_receive(address, port):
    with open_socket(address, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(1)
        connection, _ = listener.accept()
    digest, count = hashlib.sha256(), 0
    while piece := connection.recv(1 << 20):
        digest.update(piece)
        count += len(piece)
    print(count, digest.hexdigest())


def tcp_send(address, port, size):
    digest, block = hashlib.sha256(), random.randbytes(1 << 20)
    with open_socket(address, socket.SOCK_STREAM) as connection:
        connection.connect((address, port))
        for at in range(0, size, len(block)):
            piece = (struct.pack(">Q", at) + block[8:])[:size - at]
            connection.sendall(piece)
            digest.update(piece)
    print(size, digest.hexdigest())


def datagram(number, size):
    return struct.pack(">Q", number).ljust(size, b"%d" % (number % 10))


def udp_receive(address, port, count, merged):
    came = right = most = 0
    with open_socket(address, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.IPPROTO_UDP, UDP_GRO, merged)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        receiver.bind((address, port))
        receiver.settimeout(5)
        try:
            while came < count:
                read, ancillary, _, _ = receiver.recvmsg(1 << 16, 64)
                size = len(read)
                for level, kind, content in ancillary:
                    if (level, kind) == (socket.IPPROTO_UDP, UDP_GRO):
                        size = struct.unpack("i", content)[0]
                most = max(most, -(-len(read) // size))
                for at in range(0, len(read), size):
                    one = read[at:at + size]
                    right += one == datagram(came, len(one))
                    came += 1
        except TimeoutError:
            pass
    print(came, right, most)


def udp_send(address, port, count, size):
    at_once = min(60000 // size, 64)
    with open_socket(address, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
        sender.connect((address, port))
        for first in range(0, count, at_once):
            sender.send(b"".join(datagram(n, size) for n in range(first, min(first + at_once, count))))
            time.sleep(0.002)
    print(count)


COMMANDS = {"tcp-receive": tcp_receive, "tcp-send": tcp_send,
            "udp-receive": udp_receive, "udp-send": udp_send}

if __name__ == "__main__":
    if len(sys.argv) < 4 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    COMMANDS[sys.argv[1]](sys.argv[2], *map(int, sys.argv[3:]))
