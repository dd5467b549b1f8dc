# Images of Debian's programs, in the folder that the script runs in. Its arguments are a JPEG, a PNG and a PDF.
set -e
photo=$1 picture=$2 pdf=$3
im() { convert-im6.q16 "$@"; }

# Ghostscript
page() { gs -q -dNOPAUSE -dBATCH -sDEVICE="$1" -r60 "-sOutputFile=$2" "$pdf"; }
page jpeg ghostscript.jpg; page jpeggray ghostscript-grey.jpg; page jpegcmyk ghostscript-cmyk.jpg
page png16m ghostscript.png; page pngalpha ghostscript-alpha.png; page pnggray ghostscript-grey.png; page pngmono ghostscript-mono.png; page png48 ghostscript-48.png
page tiff24nc ghostscript.tiff; page bmp16m ghostscript.bmp; page psdcmyk ghostscript.psd; page ppmraw ghostscript.ppm

# ImageMagick
im "$photo" imagemagick.jpg; im "$photo" imagemagick.png; im "$photo" imagemagick.gif; im "$photo" imagemagick.tiff; im "$photo" imagemagick.bmp
im "$photo" -resize 64x64 imagemagick.ico
im "$photo" imagemagick.pcx; im "$photo" imagemagick.tga; im "$photo" imagemagick.ppm; im "$photo" imagemagick.psd; im "$photo" imagemagick.jp2
im "$photo" -colorspace CMYK imagemagick-cmyk.jpg; im "$photo" -colorspace Gray imagemagick-grey.jpg; im "$photo" -interlace JPEG imagemagick-progressive.jpg
im -size 64x64 gradient: imagemagick-gradient.png; im -size 64x64 plasma: imagemagick-plasma.png; im -size 64x64 xc:red imagemagick-flat.png
im -size 64x64 plasma: -depth 8 imagemagick-plasma-8.png; im "$photo" -depth 16 imagemagick-depth.png
im "$photo" -resize '512x512!' imagemagick-sticker.webp; im "$photo" -resize 512x512 imagemagick-fitted.webp
im -delay 10 -size 512x512 xc:red xc:blue xc:green imagemagick-animated.webp; im -delay 10 -size 100x100 xc:red xc:blue imagemagick-moving.gif
im "$photo" PNG24:imagemagick-png-as-jpg.jpg; im "$photo" imagemagick-as-svg.svg

# GraphicsMagick, netpbm, libjpeg-turbo, ExifTool, librsvg, libvips
gm convert "$photo" graphicsmagick.jpg; gm convert "$photo" graphicsmagick.png; gm convert -colorspace CMYK "$photo" graphicsmagick-cmyk.jpg
gm convert "$photo" graphicsmagick.miff
djpeg "$photo" > photo.ppm
pnmtopng photo.ppm > netpbm.png; pamdepth 65535 photo.ppm | pnmtopng > netpbm-deep.png; ppmtopgm photo.ppm | pnmtopng > netpbm-grey.png; ppmtobmp photo.ppm > netpbm.bmp
cjpeg -quality 80 photo.ppm > cjpeg.jpg; cjpeg -progressive photo.ppm > cjpeg-progressive.jpg; cjpeg -arithmetic photo.ppm > cjpeg-arithmetic.jpg; cjpeg -grayscale photo.ppm > cjpeg-grey.jpg
cjpeg -rgb photo.ppm > cjpeg-rgb.jpg; jpegtran -progressive "$photo" > jpegtran.jpg; cjpeg -restart 1 photo.ppm > cjpeg-restart.jpg
printf '%0200000d' 7 > long.txt
cp "$photo" exiftool.jpg; exiftool -q -overwrite_original -Artist=Anna -GPSLatitude=48 -GPSLatitudeRef=N exiftool.jpg
cp "$photo" exiftool-long.jpg; exiftool -q -overwrite_original "-XMP-dc:Source<=long.txt" exiftool-long.jpg
cp imagemagick-cmyk.jpg exiftool-long-cmyk.jpg; exiftool -q -overwrite_original "-XMP-dc:Source<=long.txt" exiftool-long-cmyk.jpg
printf '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><circle r="30" cx="32" cy="32"/></svg>' > hand.svg
rsvg-convert hand.svg -o rsvg.png; rsvg-convert -f pdf hand.svg -o rsvg.pdf; rsvg-convert -f svg hand.svg -o rsvg.svg
vips copy "$photo" vips.png; vips copy "$photo" vips.jpg; vips copy "$photo" vips.tif; vips cast "$photo" deep.v ushort; vips pngsave deep.v vips-deep.png --bitdepth 16

# WebP, HEIF
cwebp -quiet "$photo" -resize 512 512 -q 60 -o cwebp-sticker.webp; cwebp -quiet "$picture" -o cwebp-photo.webp; cwebp -quiet -lossless imagemagick-flat.png -resize 512 512 -o cwebp-lossless.webp
cwebp -quiet "$photo" -resize 512 0 -o cwebp-width.webp; cwebp -quiet -metadata all exiftool.jpg -resize 512 512 -q 60 -o cwebp-exif.webp
im -delay 10 -size 512x512 xc:red xc:blue xc:green big.gif; gif2webp -quiet big.gif -o gif2webp.webp; gif2webp -quiet imagemagick-moving.gif -o gif2webp-small.webp
im "big.gif[0]" one.gif; gif2webp -quiet one.gif -o gif2webp-one.webp
for colour in red blue green; do im -size 512x512 xc:$colour $colour.png; done
img2webp -d 90 red.png blue.png green.png -o img2webp.webp >/dev/null; img2webp red.png -o img2webp-one.webp >/dev/null
webpmux -frame cwebp-sticker.webp +80 -frame cwebp-lossless.webp +80 -o webpmux.webp 2>/dev/null
gifsicle --delay 9 big.gif -o gifsicle.gif; cp gifsicle.gif gifsicle-as-mp4.mp4
heif-enc -q 50 "$photo" -o heif-enc.heic >/dev/null; heif-enc -q 50 -A "$photo" -o heif-enc.avif >/dev/null; cp heif-enc.heic heif-enc-as-jpg.jpg
pdftoppm -r 50 -singlefile -png "$pdf" pdftoppm; pdftoppm -r 50 -singlefile -jpeg "$pdf" pdftoppm; pdftoppm -r 50 -singlefile -jpegcmyk "$pdf" cmyk && mv cmyk.jpg pdftoppm-cmyk.jpg
