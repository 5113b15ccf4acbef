"""A proxy before PostgreSQL that cuts connections in the midst of a commit."""

from __future__ import annotations

import random
import socket
import threading
from contextlib import suppress

COMMIT = b"COMMIT\x00"


class CuttingProxy:
    """Passes everything on, but ends some connections when a commit comes by.

    Half of those it ends before the server hears of the commit, and half after, so that the client
    cannot know whether it came through.
    """

    def __init__(self, port: int, share: float = 0.5) -> None:
        self._target = ("127.0.0.1", port)
        self._share = share
        self._chance = random.Random(0)
        self.cuts = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()

    def _accept(self) -> None:
        connections = []
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                break
            connections.append(threading.Thread(target=self._connect, args=(client,)))
            connections[-1].start()
        for connection in connections:
            connection.join()

    def _connect(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            back = threading.Thread(target=self._pass, args=(server, client, False))
            back.start()
            self._pass(client, server, True)
            back.join()

    def _pass(self, source: socket.socket, sink: socket.socket, may_cut: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                cut = self._chance.random() if may_cut and COMMIT in data else 1.0
                if cut >= self._share / 2:
                    sink.sendall(data)
                if cut < self._share:
                    self.cuts += 1
                    break
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
