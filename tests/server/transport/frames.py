"""HTTP/2 by hand, for clients that do what no library does."""

from __future__ import annotations

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
PING = bytes([0, 0, 8, 6, 0, 0, 0, 0, 0])


def headers(path: str) -> bytes:
    """The frames that begin a call with an empty message; a real client would answer pings."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    block = b"".join(
        b"\x00" + b"".join(bytes([len(text)]) + text.encode() for text in field)
        for field in fields.items()
    )
    frame = len(block).to_bytes(3) + bytes([1, 4, 0, 0, 0, 1]) + block
    return frame + bytes([0, 0, 5, 0, 1, 0, 0, 0, 1]) + bytes(5)
