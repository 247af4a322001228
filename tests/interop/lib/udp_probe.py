# SPDX-License-Identifier: Apache-2.0
"""UDP packets that a test can wait for.

    listen ADDRESS PORT              status 0 as soon as a packet has come
    send   ADDRESS PORT SOURCE-PORT  one packet (0: any source port)
    echo   ADDRESS PORT              answers packets until it is ended
    flows  ADDRESS PORT N            one packet from each of N ports; status 0 if all are answered
"""
import socket
import sys

# Four zero bytes: on port 4500 that is IKE, not ESP (RFC 3948 section 2.2).
PAYLOAD = bytes(4) + b"esplane probe"
SO_NO_CHECK = 11  # veth leaves checksums unfinished, and the port under test does not complete them


def opened(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
    s.bind((address, port))
    return s


def any_of(address):
    return "::" if ":" in address else "0.0.0.0"


def listen(address, port):
    s = opened(address, port)
    print("listening", flush=True)
    s.recv(2048)


def send(address, port, source):
    opened(any_of(address), source).sendto(PAYLOAD, (address, port))


def echo(address, port):
    s = opened(address, port)
    print("listening", flush=True)
    while True:
        data, peer = s.recvfrom(2048)
        s.sendto(data, peer)


def flows(address, port, count):
    sockets = [opened(any_of(address), 0) for _ in range(count)]
    for s in sockets:
        s.settimeout(2)
        s.sendto(PAYLOAD, (address, port))
    for s in sockets:
        s.recv(2048)


if __name__ == "__main__":
    what, address, numbers = sys.argv[1], sys.argv[2], map(int, sys.argv[3:])
    try:
        {"listen": listen, "send": send, "echo": echo, "flows": flows}[what](address, *numbers)
    except OSError as error:
        sys.exit(f"udp_probe: {error}")
