"""Images of Python libraries."""

import random

import cv2
import imageio.v3 as imageio
import numpy
import pillow_heif
import pillow_jxl  # noqa: F401  # it registers the format
import skimage.io
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

random.seed(1)
noise = Image.effect_noise((320, 240), 90)
photo = Image.merge("RGB", [Image.effect_noise((320, 240), 90) for _ in range(3)])
profile = random.randbytes(70000)
small = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
photo.save("pillow.jpg")
photo.save("pillow-nameless", "JPEG")
photo.save("pillow-jpeg-as-png.png", "JPEG")
photo.save("pillow-jpeg-as-pdf.pdf", "JPEG")
photo.save("pillow-progressive.jpg", progressive=True, quality=95)
photo.save("pillow-icc.jpg", icc_profile=small)
photo.save("pillow-large-icc.jpg", icc_profile=profile)
photo.save("pillow-icc-1mb.jpg", icc_profile=random.randbytes(1 << 20))
photo.save("pillow.jpeg", subsampling=0)
photo.save("pillow.jfif", "JPEG")
photo.convert("YCbCr").save("pillow-ycbcr.jpg")
noise.save("pillow-grey.jpg")
noise.save("pillow-grey-large-icc.jpg", icc_profile=profile)
exif = Image.Exif()
exif[0x010E] = "x" * 60000
exif[0x0112] = 6
cmyk = photo.convert("CMYK")
cmyk.save("pillow-cmyk.jpg")
cmyk.save("pillow-cmyk-progressive.jpg", progressive=True)
cmyk.save("pillow-cmyk-large-icc.jpg", icc_profile=profile)
swop = 557_168  # bytes of "U.S. Web Coated (SWOP) v2", which Photoshop embeds; its colour space stands at 16
cmyk_profile = swop.to_bytes(4, "big") + b"ADBE\2\x10\0\0prtrCMYKLab " + random.randbytes(swop - 24)
cmyk.save("pillow-cmyk-swop.jpg", icc_profile=cmyk_profile)
cmyk.save("pillow-cmyk-swop-exif.jpg", icc_profile=cmyk_profile, exif=exif, progressive=True)
cmyk.save("pillow-cmyk-2mb-icc.jpg", icc_profile=cmyk_profile * 4)
photo.save("pillow-exif.jpg", exif=exif)
cmyk.save("pillow-cmyk-exif-xmp.jpg", exif=exif, xmp=b"<x:xmpmeta>" + b" " * 60000)
photo.save("pillow-mpo.jpg", "MPO", save_all=True, append_images=[photo])
for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
    photo.convert(mode).save(f"pillow-{mode.lower()}.png")
Image.fromarray(numpy.full((32, 32), 9, "uint16")).save("pillow-i16.png")
info = PngImagePlugin.PngInfo()
info.add_text("Comment", "x" * 100000)
photo.save("pillow-text.png", pnginfo=info)
photo.save("pillow-icc.png", icc_profile=small)
photo.save("pillow-apng.png", save_all=True, append_images=[noise.convert("RGB")], duration=100)
photo.save("pillow-png-as-jpg.jpg", "PNG")
for suffix in ("gif", "bmp", "tiff", "ico", "jp2", "ppm", "tga", "pcx", "avif", "dds", "icns", "qoi"):
    photo.save(f"pillow.{suffix}")
photo.save("pillow-gif-as-jpg.jpg", "GIF")
photo.save("pillow-ico-as-png.png", "ICO")
photo.save("pillow-tiff-as-jpg.jpg", "TIFF")
photo.save("pillow-bmp-as-png.png", "BMP")
frames = [Image.new("RGBA", (512, 512), (step * 20, 90, 200, 255 - step * 10)) for step in range(6)]
frames[0].save("pillow-moving.gif", save_all=True, append_images=frames[1:], duration=80)
sticker = frames[0].convert("RGB")
sticker.save("pillow-sticker.webp")
sticker.save("pillow-sticker-lossless.webp", lossless=True)
frames[3].save("pillow-sticker-alpha.webp")
frames[3].save("pillow-sticker-alpha-lossless.webp", lossless=True)
sticker.save("pillow-sticker-nameless", "WEBP")
sticker.save("pillow-sticker-as-png.png", "WEBP")
sticker.save("pillow-sticker-exif.webp", exif=exif)
sticker.save("pillow-sticker-icc.webp", icc_profile=small)
frames[0].save("pillow-sticker-animated.webp", save_all=True, append_images=frames[1:], duration=80)
sticker.save("pillow-sticker-one-frame.webp", save_all=True, append_images=[sticker], duration=80)
frames[0].save("pillow-sticker-animated-lossless.webp", save_all=True, append_images=frames[1:], lossless=True)
for name, size in {"small": (200, 200), "high": (512, 511), "wide": (513, 512), "photo": (1600, 1200)}.items():
    resized = photo.resize(size)
    resized.save(f"pillow-{name}.webp")
    resized.save(f"pillow-{name}-lossless.webp", lossless=True)
    resized.convert("RGBA").resize(size).save(
        f"pillow-{name}-animated.webp", save_all=True, append_images=[frames[2].resize(size)], duration=90
    )
heavy = Image.merge("RGB", [Image.effect_noise((512, 512), 90) for _ in range(3)])
heavy.save("pillow-sticker-heavy.webp", lossless=True)
Image.merge("RGB", [Image.effect_noise((2400, 2400), 90) for _ in range(3)]).save("pillow-heavy.png")

pillow_heif.register_heif_opener()
photo.save("pillow-heif.heic")
photo.save("pillow-heif-as-jpg.jpg", "HEIF")
photo.save("pillow-heif.heif")

pixels = numpy.asarray(photo)
deep = (pixels.astype("uint16") << 8) | 7
for suffix in ("jpg", "png", "bmp", "tiff", "jp2", "webp", "ppm", "avif"):
    cv2.imwrite(f"opencv.{suffix}", pixels)
cv2.imwrite("opencv-grey.jpg", numpy.asarray(noise))
cv2.imwrite("opencv-deep.png", deep)
cv2.imwrite("opencv-deep-grey.png", deep[:, :, 0])
cv2.imwrite("opencv-float.hdr", pixels.astype("float32"))
cv2.imwrite("opencv-progressive.jpg", pixels, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
cv2.imwrite("opencv-sticker.webp", numpy.asarray(sticker))
cv2.imwrite("opencv-sticker-lossless.webp", numpy.asarray(sticker), [cv2.IMWRITE_WEBP_QUALITY, 101])
cv2.imwrite("opencv-float.png", pixels.astype("float32"))
cv2.imwrite("opencv-uint16.jpg", deep)
for name, array in {
    "imageio.jpg": pixels,
    "imageio.png": pixels,
    "imageio-deep.png": deep[:, :, 0],
    "imageio.gif": pixels,
}.items():
    imageio.imwrite(name, array)
skimage.io.imsave("scikit-image.png", pixels, check_contrast=False)
skimage.io.imsave("scikit-image-deep.png", deep[:, :, 0], check_contrast=False)
skimage.io.imsave("scikit-image.jpg", pixels, check_contrast=False)
tifffile.imwrite("tifffile.tif", pixels)
tifffile.imwrite("tifffile-big.tif", pixels, bigtiff=True)
tifffile.imwrite("tifffile-jpeg-name.jpg", pixels)
photo.save("pillow.jxl")
