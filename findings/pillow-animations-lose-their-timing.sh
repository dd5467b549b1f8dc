#!/usr/bin/env bash
# What becomes of the durations of an animation's frames when Pillow 13.0.0 saves it in another format: `image.save(…, save_all=True)`.
#   - To WebP, also from WebP: all frames get the duration of the frame that the image stands at, which is the first one after opening.
#   - To AVIF: each frame gets one millisecond.
#   - To GIF and APNG: each frame keeps its own, but for the first one from WebP to APNG, which gets none.
# Nothing is said in any case.
# The usual way to make a sticker, frames resized one by one and passed as `append_images`, keeps none but the first, too.
# WhatsApp's animated stickers are WebP: one made in this way runs at another speed. `duration=[…]`, one number a frame, is needed.
# Output seen: see EXPECTED below.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"; "$folder/env/bin/pip" install -q pillow==13.0.0
cat >"$folder/try.py" <<'PYTHON'
import io

from PIL import Image, ImageSequence

DURATIONS = [100, 500, 1000, 2000]  # ms

def saved(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, save_all=True, **options)
    return Image.open(file)

def durations(image):
    found = []
    for number in range(image.n_frames):
        image.seek(number)
        image.load()
        found.append(round(image.info["duration"]))
    return found

frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green", "blue", "white")]
FORMATS = ("GIF", "PNG", "WEBP", "AVIF")
for source in FORMATS:
    for target in FORMATS:
        image = saved(frames[0], source, append_images=frames[1:], duration=DURATIONS)
        print(f"{source} to {target}: {durations(saved(image, target))}")
    assert durations(image) == DURATIONS

gif = saved(frames[0], "GIF", append_images=frames[1:], duration=DURATIONS)
gif.seek(3)
print("GIF to WEBP from its last frame:", durations(saved(gif, "WEBP")))
large = [frame.convert("RGBA").resize((512, 512)) for frame in ImageSequence.Iterator(gif)]
print("GIF to WEBP, resized:", durations(saved(large[0], "WEBP", append_images=large[1:])))
PYTHON
cat >"$folder/expected" <<'EXPECTED'
GIF to GIF: [100, 500, 1000, 2000]
GIF to PNG: [100, 500, 1000, 2000]
GIF to WEBP: [100, 100, 100, 100]
GIF to AVIF: [1, 1, 1, 1]
PNG to GIF: [100, 500, 1000, 2000]
PNG to PNG: [100, 500, 1000, 2000]
PNG to WEBP: [100, 100, 100, 100]
PNG to AVIF: [1, 1, 1, 1]
WEBP to GIF: [100, 500, 1000, 2000]
WEBP to PNG: [0, 500, 1000, 2000]
WEBP to WEBP: [100, 100, 100, 100]
WEBP to AVIF: [1, 1, 1, 1]
AVIF to GIF: [100, 500, 1000, 2000]
AVIF to PNG: [100, 500, 1000, 2000]
AVIF to WEBP: [100, 100, 100, 100]
AVIF to AVIF: [1, 1, 1, 1]
GIF to WEBP from its last frame: [2000, 2000, 2000, 2000]
GIF to WEBP, resized: [100, 100, 100, 100]
EXPECTED
"$folder/env/bin/python" "$folder/try.py" | tee "$folder/seen"
diff "$folder/expected" "$folder/seen"
