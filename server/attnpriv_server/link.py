"""Messages between the server and a worker, over a socket of this machine.

A message is an object in JSON and then bytes, each a frame of ``multiprocessing.connection``, and
with some of them goes a file. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from multiprocessing.connection import Connection
from typing import Any, NamedTuple


class Message(NamedTuple):
    """What one end tells the other.

    Attributes:
        head: fits into JSON.
        body: bytes.
        file: descriptor of a file, which the receiver closes; None where none goes with it.
    """

    head: dict[str, Any]
    body: bytes = b""
    file: int | None = None


class Link:
    """One end of a connection, which one thread uses at a time.

    Args:
        descriptor: of a connected Unix socket, which is closed with this end.
    """

    def __init__(self, descriptor: int) -> None:
        self._frames = Connection(descriptor)
        self._socket = socket.socket(fileno=os.dup(descriptor))

    def close(self) -> None:
        """Hang up."""
        self._frames.close()
        self._socket.close()

    def limit_waiting(self, seconds: int) -> None:
        """Make reads and writes that wait longer fail with OSError."""
        timeval = struct.pack("ll", seconds, 0)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._socket.setsockopt(socket.SOL_SOCKET, option, timeval)

    def send(self, message: Message) -> None:
        """Write a message.

        Raises:
            OSError: the other end is gone, or does not read.
        """
        self._frames.send_bytes(json.dumps([message.head, message.file is not None]).encode())
        self._frames.send_bytes(message.body)
        if message.file is not None:
            socket.send_fds(self._socket, [b"f"], [message.file])

    def receive(self) -> Message:
        """Read a message.

        Raises:
            EOFError, OSError: the other end is gone, or does not write.
        """
        head, has_file = json.loads(self._frames.recv_bytes())
        body = self._frames.recv_bytes()
        return Message(head, body, self._receive_file() if has_file else None)

    def _receive_file(self) -> int:
        _, (descriptor,), *_ = socket.recv_fds(self._socket, 1, 1)
        return descriptor
