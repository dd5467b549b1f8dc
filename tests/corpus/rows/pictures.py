"""Images and stickers of programs and libraries."""

from __future__ import annotations

from typing import Final

from tests.corpus.rows.documents import ENV
from tests.corpus.table import Accepted, Input, Program, Refused, unpacked

__all__ = ["INPUTS", "PROGRAMS", "TABLE"]

_PINS: Final = {
    "Pillow": "pillow==13.0.0",
    "pillow-heif": "pillow-heif==1.8.1",
    "OpenCV (images)": "opencv-python-headless==5.0.0.93",
    "imageio (images)": "imageio==2.38.1",
    "pillow-jxl-plugin": "pillow-jxl-plugin==1.3.8",
    "tifffile": "tifffile==2026.3.3",
    "scikit-image": "scikit-image==0.26.0",
}
_APT: Final = {
    "ImageMagick": ("imagemagick",),
    "GraphicsMagick": ("graphicsmagick",),
    "Netpbm": ("netpbm",),
    "libjpeg-turbo": ("libjpeg-turbo-progs",),
    "ExifTool": ("libimage-exiftool-perl",),
    "librsvg": ("librsvg2-bin",),
    "libvips": ("libvips-tools",),
    "libwebp": ("webp",),
    "gifsicle": ("gifsicle",),
    "libheif": ("libheif-examples",),
}
PROGRAMS: Final = (
    *(Program(name, pip=(pin,), env=ENV) for name, pin in _PINS.items()),
    *(Program(name, apt=packages) for name, packages in _APT.items()),
    Program("imaging libraries", env=ENV, needs=tuple(_PINS)),
    Program("imaging programs", needs=(*_APT, "Ghostscript", "Poppler")),
)
_GIVEN: Final = "tar xf $IN/pictures.tar pillow.jpg pillow-rgb.png; tar xf $IN/libreoffice.tar libreoffice.pdf"
_MADE: Final = f"{_GIVEN}; bash $MAKERS/pictures.sh pillow.jpg pillow-rgb.png libreoffice.pdf"
INPUTS: Final = (
    Input("pictures.tar", "imaging libraries", 'cd "$(mktemp -d)"; python $MAKERS/pictures.py; tar cf "$OUT" *'),
    Input("pictures-of-debian.tar", "imaging programs", f'cd "$(mktemp -d)"; {_MADE}; tar cf "$OUT" *'),
)

_JPEG, _PNG, _STICKER = (Accepted(name) for name in ("image/jpeg", "image/png", "image/webp"))
_OPAQUE: Final = Accepted("image/webp", "JPEG or PNG")  # which may be a photo
_APNG: Final = Accepted("image/png", "animated PNG")
_CMYK: Final = Refused("CMYK JPEG", "8-bit RGB")
_DEEP: Final = Refused("16 bits per channel", "8-bit RGB")
_GIF: Final = Refused("image/gif", "MP4")
_NOT_512: Final = Refused("512x512", "JPEG or PNG")
_MOVING_NOT_512: Final = Refused("512x512", "scale it")
_BMP, _TIFF, _HEIC, _AVIF, _SVG = (Refused(f"image/{name}", "JPEG or PNG") for name in ("bmp", "tiff", "heic", "avif", "svg+xml"))
_JP2, _ICON, _PNM = (Refused(name, "JPEG or PNG") for name in ("image/jp2", "icon", "image/x-portable"))
_RARE: Final = Refused("JPEG or PNG")  # formats of images without an entry among the types

_PYTHON: Final = unpacked(
    "pictures.tar",
    ("Pillow", _JPEG, "pillow.jpg pillow-nameless pillow-jpeg-as-png.png pillow-jpeg-as-pdf.pdf pillow-progressive.jpg pillow.jpeg pillow.jfif"),
    ("Pillow", _JPEG, "pillow-icc.jpg pillow-large-icc.jpg pillow-icc-1mb.jpg pillow-ycbcr.jpg pillow-grey.jpg pillow-grey-large-icc.jpg"),
    ("Pillow", _JPEG, "pillow-exif.jpg pillow-mpo.jpg"),
    ("Pillow", _CMYK, "pillow-cmyk.jpg pillow-cmyk-progressive.jpg pillow-cmyk-large-icc.jpg pillow-cmyk-exif-xmp.jpg"),
    ("Pillow", _CMYK, "pillow-cmyk-swop.jpg pillow-cmyk-swop-exif.jpg pillow-cmyk-2mb-icc.jpg"),
    ("Pillow", _PNG, "pillow-1.png pillow-l.png pillow-la.png pillow-p.png pillow-rgb.png pillow-rgba.png pillow-text.png pillow-icc.png"),
    ("Pillow", _PNG, "pillow-png-as-jpg.jpg"),
    ("Pillow", _APNG, "pillow-apng.png"),
    ("Pillow", _DEEP, "pillow-i16.png"),
    ("Pillow", Refused("5,242,880"), "pillow-heavy.png"),
    ("Pillow", _OPAQUE, "pillow-sticker.webp pillow-sticker-lossless.webp pillow-sticker-nameless pillow-sticker-as-png.png pillow-sticker-exif.webp"),
    ("Pillow", _OPAQUE, "pillow-sticker-icc.webp pillow-sticker-one-frame.webp"),
    ("Pillow", _STICKER, "pillow-sticker-alpha.webp pillow-sticker-alpha-lossless.webp pillow-sticker-animated.webp pillow-sticker-animated-lossless.webp"),
    ("Pillow", _NOT_512, "pillow-small.webp pillow-small-lossless.webp pillow-high.webp pillow-high-lossless.webp pillow-wide.webp"),
    ("Pillow", _NOT_512, "pillow-wide-lossless.webp pillow-photo.webp pillow-photo-lossless.webp"),
    ("Pillow", _MOVING_NOT_512, "pillow-small-animated.webp pillow-high-animated.webp pillow-wide-animated.webp pillow-photo-animated.webp"),
    ("Pillow", Refused("102,400"), "pillow-sticker-heavy.webp"),
    ("Pillow", _GIF, "pillow.gif pillow-moving.gif pillow-gif-as-jpg.jpg"),
    ("Pillow", _BMP, "pillow.bmp pillow-bmp-as-png.png"),
    ("Pillow", _TIFF, "pillow.tiff pillow-tiff-as-jpg.jpg"),
    ("Pillow", _AVIF, "pillow.avif"),
    ("Pillow", _JP2, "pillow.jp2"),
    ("Pillow", _ICON, "pillow.ico pillow-ico-as-png.png"),
    ("Pillow", _PNM, "pillow.ppm"),
    ("Pillow", Refused(), "pillow.tga pillow.pcx pillow.dds pillow.icns pillow.qoi"),
    ("pillow-jxl-plugin", Refused("image/jxl", "JPEG or PNG"), "pillow.jxl"),
    ("pillow-heif", _HEIC, "pillow-heif.heic pillow-heif-as-jpg.jpg pillow-heif.heif"),
    ("OpenCV (images)", _JPEG, "opencv.jpg opencv-grey.jpg opencv-progressive.jpg opencv-uint16.jpg"),
    ("OpenCV (images)", _PNG, "opencv.png opencv-float.png"),
    ("OpenCV (images)", _DEEP, "opencv-deep.png opencv-deep-grey.png"),
    ("OpenCV (images)", _OPAQUE, "opencv-sticker.webp opencv-sticker-lossless.webp"),
    ("OpenCV (images)", _NOT_512, "opencv.webp"),
    ("OpenCV (images)", _BMP, "opencv.bmp"),
    ("OpenCV (images)", _TIFF, "opencv.tiff"),
    ("OpenCV (images)", _JP2, "opencv.jp2"),
    ("OpenCV (images)", _AVIF, "opencv.avif"),
    ("OpenCV (images)", _PNM, "opencv.ppm"),
    ("OpenCV (images)", Refused(), "opencv-float.hdr"),
    ("imageio (images)", _JPEG, "imageio.jpg"),
    ("imageio (images)", _PNG, "imageio.png"),
    ("imageio (images)", _DEEP, "imageio-deep.png"),
    ("imageio (images)", _GIF, "imageio.gif"),
    ("scikit-image", _PNG, "scikit-image.png"),
    ("scikit-image", _DEEP, "scikit-image-deep.png"),
    ("scikit-image", _JPEG, "scikit-image.jpg"),
    ("tifffile", _TIFF, "tifffile.tif tifffile-big.tif tifffile-jpeg-name.jpg"),
)
_NODE: Final = unpacked(
    "npm.tar",
    ("sharp", _JPEG, "sharp.jpg sharp-progressive.jpg sharp-nameless sharp-grey.jpg sharp-again.jpg sharp-metadata.jpg"),
    ("sharp", _CMYK, "sharp-cmyk.jpg"),
    ("sharp", _PNG, "sharp.png sharp-palette.png"),
    ("sharp", _DEEP, "sharp-16.png sharp-grey-16.png"),
    ("sharp", _AVIF, "sharp.avif sharp.heif"),
    ("sharp", _TIFF, "sharp.tiff"),
    ("sharp", _GIF, "sharp.gif sharp-moving.gif"),
    ("sharp", _OPAQUE, "sharp-sticker.webp sharp-sticker-lossless.webp sharp-sticker-first-frame.webp"),
    ("sharp", _STICKER, "sharp-sticker-alpha.webp sharp-sticker-contained.webp sharp-sticker-animated.webp"),
    ("sharp", Refused("102,400"), "sharp-sticker-heavy.webp"),
    ("sharp", _NOT_512, "sharp-sticker-inside.webp sharp-photo.webp"),
    ("sharp", _MOVING_NOT_512, "sharp-small-animated.webp"),
    ("pngjs", _PNG, "pngjs.png pngjs-grey.png"),
    ("pngjs", _DEEP, "pngjs-16.png"),
    ("@napi-rs/canvas", _PNG, "canvas.png"),
    ("@napi-rs/canvas", _JPEG, "canvas.jpeg"),
    ("@napi-rs/canvas", _STICKER, "canvas.webp"),
    ("@napi-rs/canvas", _AVIF, "canvas.avif"),
    ("@napi-rs/canvas", _GIF, "canvas.gif"),
    ("upng-js", _PNG, "upng.png"),
    ("upng-js", _APNG, "upng-moving.png"),
    ("jpeg-js", _JPEG, "jpeg-js.jpg"),
    ("Jimp", _JPEG, "jimp.jpg"),
    ("Jimp", _PNG, "jimp.png"),
    ("Jimp", _BMP, "jimp.bmp"),
    ("Jimp", _GIF, "jimp.gif"),
    ("Jimp", _TIFF, "jimp.tiff"),
)
_DEBIAN: Final = unpacked(
    "pictures-of-debian.tar",
    ("Ghostscript", _JPEG, "ghostscript.jpg ghostscript-grey.jpg"),
    ("Ghostscript", _CMYK, "ghostscript-cmyk.jpg"),
    ("Ghostscript", _PNG, "ghostscript.png ghostscript-alpha.png ghostscript-grey.png ghostscript-mono.png"),
    ("Ghostscript", _DEEP, "ghostscript-48.png"),
    ("Ghostscript", _TIFF, "ghostscript.tiff"),
    ("Ghostscript", _BMP, "ghostscript.bmp"),
    ("Ghostscript", _PNM, "ghostscript.ppm"),
    ("Ghostscript", _RARE, "ghostscript.psd"),
    ("ImageMagick", _JPEG, "imagemagick.jpg imagemagick-grey.jpg imagemagick-progressive.jpg imagemagick-as-svg.svg"),  # .svg holds the JPEG
    ("ImageMagick", _CMYK, "imagemagick-cmyk.jpg"),
    ("ImageMagick", _PNG, "imagemagick.png imagemagick-flat.png imagemagick-plasma-8.png imagemagick-depth.png imagemagick-png-as-jpg.jpg"),
    ("ImageMagick", _DEEP, "imagemagick-gradient.png imagemagick-plasma.png"),
    ("ImageMagick", _OPAQUE, "imagemagick-sticker.webp"),
    ("ImageMagick", _STICKER, "imagemagick-animated.webp"),
    ("ImageMagick", _NOT_512, "imagemagick-fitted.webp"),
    ("ImageMagick", _GIF, "imagemagick.gif imagemagick-moving.gif"),
    ("ImageMagick", _TIFF, "imagemagick.tiff"),
    ("ImageMagick", _BMP, "imagemagick.bmp"),
    ("ImageMagick", _ICON, "imagemagick.ico"),
    ("ImageMagick", _JP2, "imagemagick.jp2"),
    ("ImageMagick", _PNM, "imagemagick.ppm"),
    ("ImageMagick", _RARE, "imagemagick.psd"),
    ("ImageMagick", Refused(), "imagemagick.pcx imagemagick.tga"),
    ("GraphicsMagick", _JPEG, "graphicsmagick.jpg"),
    ("GraphicsMagick", _CMYK, "graphicsmagick-cmyk.jpg"),
    ("GraphicsMagick", _PNG, "graphicsmagick.png"),
    ("GraphicsMagick", Refused(), "graphicsmagick.miff"),
    ("Netpbm", _PNG, "netpbm.png netpbm-deep.png netpbm-grey.png"),  # of 16 bits, pnmtopng writes those that are needed
    ("Netpbm", _BMP, "netpbm.bmp"),
    ("libjpeg-turbo", _JPEG, "cjpeg.jpg cjpeg-progressive.jpg cjpeg-arithmetic.jpg cjpeg-grey.jpg cjpeg-rgb.jpg cjpeg-restart.jpg jpegtran.jpg"),
    ("ExifTool", _JPEG, "exiftool.jpg exiftool-long.jpg"),
    ("ExifTool", _CMYK, "exiftool-long-cmyk.jpg"),
    ("librsvg", _PNG, "rsvg.png"),
    ("librsvg", Accepted("application/pdf"), "rsvg.pdf"),
    ("librsvg", _SVG, "rsvg.svg"),
    ("libvips", _PNG, "vips.png"),
    ("libvips", _JPEG, "vips.jpg"),
    ("libvips", _TIFF, "vips.tif"),
    ("libvips", _DEEP, "vips-deep.png"),
    ("libwebp", _OPAQUE, "cwebp-sticker.webp cwebp-lossless.webp cwebp-exif.webp gif2webp-one.webp img2webp-one.webp"),
    ("libwebp", _STICKER, "gif2webp.webp img2webp.webp webpmux.webp"),
    ("libwebp", _NOT_512, "cwebp-photo.webp cwebp-width.webp"),
    ("libwebp", _MOVING_NOT_512, "gif2webp-small.webp"),
    ("gifsicle", _GIF, "gifsicle.gif gifsicle-as-mp4.mp4"),
    ("libheif", _HEIC, "heif-enc.heic heif-enc-as-jpg.jpg"),
    ("libheif", _AVIF, "heif-enc.avif"),
    ("Poppler", _PNG, "pdftoppm.png"),
    ("Poppler", _JPEG, "pdftoppm.jpg"),
    ("Poppler", _CMYK, "pdftoppm-cmyk.jpg"),
)
TABLE: Final = (*_PYTHON, *_NODE, *_DEBIAN)
