"""Write PNG files with the same bytes on every machine.

The output of deflate libraries depends on their build, hence our own encoder: filtered rows (PNG
1.2, section 6), literals and runs of one byte, the fixed Huffman code (RFC 1951, 3.2.6).
Checksums come from zlib, whose CRC-32 and Adler-32 are fixed functions.
"""

from __future__ import annotations

import functools
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Codes = tuple[NDArray[np.uint32], NDArray[np.uint32]]  # (bits, first bit lowest; number of bits)

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LONGEST = 258  # the longest run of one length code
SHORTEST = 3
STORED_BLOCK = 65535
SUB, UP = 1, 2  # PNG's filter types


def encode_png(pixels: Bytes) -> bytes:
    """The PNG file of `pixels`, uint8 [height, width, 3]."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ValueError(f"expected uint8 [height, width, 3], got {pixels.dtype} {pixels.shape}")
    height, width, _ = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = _zlib_stream(_filtered(pixels))
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _filtered(pixels: Bytes) -> Bytes:
    """Filter each row by its left or upper neighbours, whichever leaves smaller values."""
    left, above = np.zeros_like(pixels), np.zeros_like(pixels)
    left[:, 1:], above[1:] = pixels[:, :-1], pixels[:-1]
    sub, up = (_rows(pixels - neighbour) for neighbour in (left, above))
    use_sub = _remainder(sub) < _remainder(up)
    kind = np.where(use_sub, SUB, UP).astype(np.uint8)[:, None]
    return np.concatenate([kind, np.where(use_sub[:, None], sub, up)], axis=1).ravel()


def _rows(differences: Bytes) -> Bytes:
    return differences.reshape(len(differences), -1)


def _remainder(rows: Bytes) -> NDArray[np.int64]:
    return np.abs(rows.view(np.int8).astype(np.int16)).sum(axis=1, dtype=np.int64)


def _zlib_stream(data: Bytes) -> bytes:
    raw = data.tobytes()
    symbols = _symbols(data)
    smaller = int(_code()[1][symbols].sum(dtype=np.int64)) < 8 * len(raw)
    body = _deflated(symbols) if smaller else _stored(raw)
    return b"\x78\x01" + body + struct.pack(">I", zlib.adler32(raw))


def _stored(raw: bytes) -> bytes:
    blocks: list[bytes] = []
    for start in range(0, len(raw), STORED_BLOCK):
        block = raw[start : start + STORED_BLOCK]
        last = start + STORED_BLOCK >= len(raw)
        blocks.append(struct.pack("<BHH", last, len(block), 0xFFFF - len(block)) + block)
    return b"".join(blocks)


def _deflated(symbols: NDArray[np.int64]) -> bytes:
    """One deflate block with the fixed code."""
    bits, counts = _code()
    start, end = np.array([0b011]), np.array([0])  # last block, fixed code; end of block
    values = np.concatenate([start, bits[symbols], end]).astype(np.uint32)
    lengths = np.concatenate([[3], counts[symbols], [7]]).astype(np.int64)
    ends = np.cumsum(lengths)
    places = np.arange(ends[-1], dtype=np.uint32)
    places -= np.repeat((ends - lengths).astype(np.uint32), lengths)
    stream = (np.repeat(values, lengths) >> places) & np.uint32(1)
    return np.packbits(stream.astype(np.uint8), bitorder="little").tobytes()


def _symbols(data: Bytes) -> NDArray[np.int64]:
    """Literals as 0..255, a run of n further equal bytes as 256 + n."""
    starts = np.flatnonzero(np.concatenate([[True], data[1:] != data[:-1]]))
    values = data[starts].astype(np.int64)
    repeats = np.diff(np.append(starts, len(data))) - 1
    full, rest = np.divmod(repeats, LONGEST)
    short = rest < SHORTEST
    ones = np.ones_like(full)
    # A run is its byte, full-length runs, then one shorter run or up to two literals.
    kinds = np.stack([values, ones * (256 + LONGEST), np.where(short, values, 256 + rest)], 1)
    times = np.stack([ones, full, np.where(short, rest, 1)], 1)
    return np.repeat(kinds.ravel(), times.ravel())


@functools.cache
def _code() -> Codes:
    """The fixed code of each symbol of `_symbols`; runs include their distance, 1."""
    entries = [_literal(v) for v in range(256)] + [(0, 0)] * SHORTEST
    entries += [_run(n) for n in range(SHORTEST, LONGEST + 1)]
    bits, counts = zip(*entries, strict=True)
    return np.array(bits, dtype=np.uint32), np.array(counts, dtype=np.uint32)


def _literal(value: int) -> tuple[int, int]:
    if value < 144:
        return _reversed(0x30 + value, 8), 8
    return _reversed(0x190 + value - 144, 9), 9


def _run(length: int) -> tuple[int, int]:
    symbol, extra_bits, extra = _length_symbol(length)
    code, count = (symbol - 256, 7) if symbol < 280 else (0xC0 + symbol - 280, 8)
    distance_bits = 5  # the code of distance 1 is five zeros
    return _reversed(code, count) | extra << count, count + extra_bits + distance_bits


def _length_symbol(length: int) -> tuple[int, int, int]:
    """RFC 1951, 3.2.5: (symbol, number of extra bits, their value)."""
    if length == LONGEST:
        return 285, 0, 0
    offset = length - SHORTEST
    extra_bits = max(offset.bit_length() - 3, 0)
    group = offset >> extra_bits
    return 257 + 4 * extra_bits + group, extra_bits, offset - (group << extra_bits)


def _reversed(code: int, count: int) -> int:
    return int(f"{code:0{count}b}"[::-1], 2)
