"""JPEG, PNG and WebP: the variants that WhatsApp does not accept, by their headers."""

from __future__ import annotations

from typing import Final

import attrs

from meta_media.protocol.formats import Flaw, PartialFile, Signature, Steps, number

__all__ = ["jpeg", "png", "webp"]

# Meta's Media page: images are "8-bit, RGB or RGBA". Only a certain contradiction is refused: more bits, and CMYK.
# Greyscale and palette images have at most 8 bits and decode to RGB; no report says that Meta refuses them.
_RGB: Final = "8-bit RGB or RGBA images"
_ICC: Final = b"ICC_PROFILE\0"  # then the number of this segment, from 1, and of all (ICC.1, B.4)
_XMP: Final = b"http://ns.adobe.com/xmp/extension/\0"  # then a digest, the size of the XMP, and where this part begins
_PREFIX_SIZE: Final = 4 + len(_XMP) + 40  # bytes before the part
_STILL_PNG: Final = "of an animated PNG, WhatsApp shows only the first picture: convert it to MP4, so that it moves"
_STILL_WEBP: Final = "a WebP is sent as a sticker: convert it to JPEG or PNG to send it as an image"


_JPEG: Final = Signature(candidates=("image/jpeg",))


def _image_flaw(found: str) -> Flaw:
    return Flaw(found=found, allowed=_RGB, fix="save it as 8-bit RGB")


def jpeg(head: bytes, _complete: bool) -> Steps[Signature]:
    """
    Walk the segments to the frame header (ITU T.81, B.2.2), which has the precision and the components.

    A segment has at most 64 KiB. The segments of one profile, or of one XMP, are skipped at once. Behind more than eight others
    beyond the head the frame header is not seen, and the file passes.
    """
    file, flaw, offset, in_order = PartialFile(head), None, 2, True
    while True:
        seen = offset + _PREFIX_SIZE <= len(head)
        segment = head[offset : offset + _PREFIX_SIZE] if seen else (yield from file.at(offset, _PREFIX_SIZE))
        if segment[:1] != b"\xff":
            break
        marker = segment[1:2]
        if b"\xc0" <= marker <= b"\xcf" and marker not in {b"\xc4", b"\xc8", b"\xcc"}:  # SOFn; not DHT, JPG, DAC
            precision, components = number(segment, 4, 1), number(segment, 9, 1)
            if precision > 8:
                flaw = _image_flaw(f"a JPEG of {precision} bits per channel")
            elif components == 4:
                flaw = _image_flaw("a CMYK JPEG")
            break
        if marker == b"\xda":  # the scan: entropy-coded data follows
            break
        # 0xFF before a marker is padding. Other segments have a big-endian length, which includes its own two bytes.
        size = 1 if marker == b"\xff" else 2 + int.from_bytes(segment[2:4], "big")
        if in_order and (count := _following(segment, size)):
            last = yield from file.at(offset + count * size, 16)
            in_order = (last[:2], last[4:]) == (segment[:2], segment[4:16])
            size *= count if in_order else 1
        offset += size
    return _JPEG if flaw is None else attrs.evolve(_JPEG, flaw=flaw)


def _following(segment: bytes, size: int) -> int:
    """Return how many segments continue a profile or an XMP, if each but the last has this size in bytes."""
    if segment.startswith(_ICC, 4):
        return max(number(segment, 17, 1) - number(segment, 16, 1), 0)
    if segment.startswith(_XMP, 4) and size > _PREFIX_SIZE:
        total, begin = (int.from_bytes(segment[start : start + 4], "big") for start in (71, 75))
        return max((total - begin - 1) // (size - _PREFIX_SIZE), 0)
    return 0


def png(head: bytes, _complete: bool) -> Signature:
    """Read the bit depth: the ninth byte of IHDR, which is always the first chunk (W3C PNG, 11.2.1)."""
    deep = head[12:16] == b"IHDR" and head[24:25] == b"\x10"
    animated = b"acTL" in head.partition(b"IDAT")[0]  # W3C PNG, 5.6
    return Signature(
        candidates=("image/png",),
        flaw=_image_flaw("a PNG of 16 bits per channel") if deep else None,
        remarks=(_STILL_PNG,) if animated else (),
    )


def webp(head: bytes, _complete: bool) -> Signature:
    """Read the size, the animation flag and the transparency flag (RFC 9649, 2.5 to 2.7). Only stickers are WebP."""
    form, flags = head[12:16], number(head, 20, 1)
    animated, flaw = form == b"VP8X" and bool(flags & 0x02), None
    transparent = (form == b"VP8X" and flags & 0x10) or (form == b"VP8L" and number(head, 24, 1) & 0x10)
    if (size := _canvas(head)) is not None and size != (512, 512):
        # Meta refuses it after the upload: "Sticker with dimensions 406x379 … expected dimension: 512x512".
        found, fix = f"a sticker of {size[0]}x{size[1]} pixels", "scale it to 512x512"
        fix = fix if animated else f"convert it to JPEG or PNG to send it as an image, or {fix}"
        flaw = Flaw(found=found, allowed="stickers of 512x512 pixels", fix=fix)
    remarks = () if animated or transparent else (_STILL_WEBP,)
    return Signature(candidates=("image/webp",), animated=animated, flaw=flaw, remarks=remarks)


def _canvas(head: bytes) -> tuple[int, int] | None:
    """Return width and height in pixels, by the first chunk; None if they cannot be read."""
    if head[12:16] == b"VP8X" and len(head) >= 30:
        return number(head, 24, 3) + 1, number(head, 27, 3) + 1
    if head[12:16] == b"VP8L" and len(head) >= 25:
        return (number(head, 21, 4) & 0x3FFF) + 1, (number(head, 21, 4) >> 14 & 0x3FFF) + 1
    if head[12:16] == b"VP8 " and head[23:26] == b"\x9d\x01\x2a" and len(head) >= 30:  # a key frame (RFC 6386, 9.1)
        return number(head, 26, 2) & 0x3FFF, number(head, 28, 2) & 0x3FFF
    return None
