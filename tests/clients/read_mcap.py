"""Reads a recording with the official Python reader and prints what it found as one JSON object.

In: a file. Out: stamps, CRC-32 of every picture's pixels, answers and schema names, for the test that compares them.
"""

import json
import struct
import sys
import zlib

from mcap.reader import make_reader
from mcap_protobuf.decoder import DecoderFactory


def pixels(png: bytes) -> bytes:
    """The RGB bytes of an 8-bit PNG without interlacing, by its standard alone."""
    at, data = 8, b""
    while at < len(png):
        (length,), kind = struct.unpack(">I", png[at : at + 4]), png[at + 4 : at + 8]
        body = png[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
            assert (depth, colour, body[12]) == (8, 2, 0), "RGB of 8 bits is expected"
        elif kind == b"IDAT":
            data += body
        at += 12 + length
    raw, stride, out = zlib.decompress(data), width * 3, bytearray()
    above = bytearray(stride)
    for row in range(height):
        start = row * (stride + 1)
        filtering, line = raw[start], bytearray(raw[start + 1 : start + 1 + stride])
        for i in range(stride):
            a = line[i - 3] if i >= 3 else 0
            b = above[i]
            c = above[i - 3] if i >= 3 else 0
            if filtering == 1:
                guess = a
            elif filtering == 2:
                guess = b
            elif filtering == 3:
                guess = (a + b) // 2
            elif filtering == 4:
                p = a + b - c
                guess = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            else:
                guess = 0
            line[i] = (line[i] + guess) & 255
        out += line
        above = line
    return bytes(out)


def main() -> None:
    found = {"stamps": [], "pictures": [], "answers": [], "schemas": {}}
    with open(sys.argv[1], "rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()], validate_crcs=True)
        summary = reader.get_summary()
        for channel in summary.channels.values():
            found["schemas"][channel.topic] = summary.schemas[channel.schema_id].name
        for _, channel, message, decoded in reader.iter_decoded_messages(topics=["/utr/image"]):
            assert (decoded.format, decoded.frame_id) == ("png", "camera")
            seen = decoded.timestamp.seconds * 10**9 + decoded.timestamp.nanos
            assert seen == message.log_time, "the picture's time is the message's"
            found["pictures"].append(zlib.crc32(pixels(decoded.data)))
        for _, channel, message in reader.iter_messages(topics=["/utr/frame", "/utr/answer"]):
            value = json.loads(message.data)
            if channel.topic == "/utr/frame":
                found["stamps"].append([value["index"], value["pts_ms"]])
            else:
                found["answers"].append(value["answer"]["text"])
    json.dump(found, sys.stdout)


main()
