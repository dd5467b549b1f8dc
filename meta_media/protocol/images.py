"""JPEG, PNG and WebP: the variants that WhatsApp does not accept, by their headers."""

from __future__ import annotations

from typing import Final

from meta_media.protocol.formats import Flaw, PartialFile, Signature, Steps, number

__all__ = ["jpeg", "png", "webp"]

# Meta's Media page: images are "8-bit, RGB or RGBA". Only a certain contradiction is refused: more bits, and CMYK.
# Greyscale and palette images have at most 8 bits and decode to RGB; no report says that Meta refuses them.
_RGB: Final = "8-bit RGB or RGBA images"


def _image_flaw(found: str) -> Flaw:
    return Flaw(found=found, allowed=_RGB, fix="save it as 8-bit RGB")


def jpeg(head: bytes, _complete: bool) -> Steps[Signature]:
    """Walk the segments to the frame header (ITU T.81, B.2.2), which has the precision and the components."""
    file, flaw, offset = PartialFile(head), None, 2
    while (segment := (yield from file.at(offset, 10)))[:1] == b"\xff":
        marker = number(segment, 1, 1)
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:  # SOFn; the three are DHT, JPG and DAC
            precision, components = number(segment, 4, 1), number(segment, 9, 1)
            if precision > 8:
                flaw = _image_flaw(f"a JPEG of {precision} bits per channel")
            elif components == 4:
                flaw = _image_flaw("a CMYK JPEG")
            break
        if marker == 0xDA:  # the scan: entropy-coded data follows
            break
        # 0xFF before a marker is padding. Other segments have a big-endian length, which includes its own two bytes.
        offset += 1 if marker == 0xFF else 2 + int.from_bytes(segment[2:4], "big")
    return Signature(candidates=("image/jpeg",), flaw=flaw)


def png(head: bytes, _complete: bool) -> Signature:
    """Read the bit depth: the ninth byte of IHDR, which is always the first chunk (W3C PNG, 11.2.1)."""
    deep = head[12:16] == b"IHDR" and head[24:25] == b"\x10"
    return Signature(candidates=("image/png",), flaw=_image_flaw("a PNG of 16 bits per channel") if deep else None)


def webp(head: bytes, _complete: bool) -> Signature:
    """Read the animation flag, which only the extended header has (RFC 9649, 2.7)."""
    return Signature(candidates=("image/webp",), animated=head[12:16] == b"VP8X" and bool(number(head, 20, 1) & 0x02))
