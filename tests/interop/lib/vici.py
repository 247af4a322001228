#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Many commands to a charon, over one connection to its control socket.

  vici.py SOCKET initiate|terminate|rekey KEY VALUE...   one after the other, where KEY is "child",
                                                         "child-id", ...
  vici.py SOCKET children                                unique ids of all that are installed
"""
import socket
import struct
import sys

CMD_REQUEST, CMD_RESPONSE, CMD_UNKNOWN, EVENT_REGISTER = 0, 1, 2, 3
EVENT_CONFIRM, EVENT = 5, 7
SECTION_START, SECTION_END, KEY_VALUE, LIST_START, LIST_ITEM, LIST_END = 1, 2, 3, 4, 5, 6


class Charon:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)

    def send(self, kind, name, body=b""):
        packet = bytes([kind, len(name)]) + name.encode() + body
        self.socket.sendall(struct.pack(">I", len(packet)) + packet)

    def exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                sys.exit("charon closed the connection")
            data += more
        return data

    def receive(self):
        packet = self.exactly(struct.unpack(">I", self.exactly(4))[0])
        if packet[0] != EVENT:
            return packet[0], packet[1:]
        return EVENT, packet[2 + packet[1]:]

    def command(self, name, **values):
        body = b"".join(key_value(key, value) for key, value in values.items())
        self.send(CMD_REQUEST, name, body)
        kind, answer = self.receive()
        if kind != CMD_RESPONSE:
            sys.exit(f"{name}: charon does not know it")
        return dict(pairs(answer))

    def events(self, event, command):
        """What a command streams as events, until its response."""
        self.send(EVENT_REGISTER, event)
        if self.receive()[0] != EVENT_CONFIRM:
            sys.exit(f"{event}: charon does not know it")
        self.send(CMD_REQUEST, command)
        kind, answer = self.receive()
        while kind == EVENT:
            yield list(pairs(answer))
            kind, answer = self.receive()


def key_value(key, value):
    text = str(value).encode()
    return bytes([KEY_VALUE, len(key)]) + key.encode() + struct.pack(">H", len(text)) + text


def pairs(body):
    """Every key and value, whatever section it is in."""
    at = 0
    while at < len(body):
        kind = body[at]
        at += 1
        if kind in (SECTION_START, LIST_START, KEY_VALUE):
            key = body[at + 1:at + 1 + body[at]].decode()
            at += 1 + body[at]
        if kind in (KEY_VALUE, LIST_ITEM):
            length = struct.unpack_from(">H", body, at)[0]
            value = body[at + 2:at + 2 + length].decode()
            at += 2 + length
            if kind == KEY_VALUE:
                yield key, value


def installed_children(charon):
    """Unique ids of CHILD_SAs: in a section of one the id is followed by its reqid."""
    for sas in charon.events("list-sa", "list-sas"):
        for (key, value), (following, _) in zip(sas, sas[1:]):
            if key == "uniqueid" and following == "reqid":
                yield value


def main():
    charon = Charon(sys.argv[1])
    command = sys.argv[2]
    if command == "children":
        print(*installed_children(charon), sep="\n")
        return
    key, names = sys.argv[3], sys.argv[4:]
    for name in names:
        answer = charon.command(command, **{key: name, "timeout": 20000})
        if answer.get("success") != "yes":
            sys.exit(f"{command} {name}: {answer.get('errmsg')}")


if __name__ == "__main__":
    main()
