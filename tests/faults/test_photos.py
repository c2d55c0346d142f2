"""Folders of photos as cameras, downloads and attackers leave them."""

import io
import os

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.faults.harness import check, damaged, drawn, seeds

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n(pwned) (w) file closefile\nshowpage\n%%EOF\n"
NAMES = (
    "a.jpg",
    "b.JPEG",
    "-rf.png",
    "c d.png",
    "e\u0301.jpg",
    "\x1b[31mred.jpg",
    "f\ng.png",
    "h.jfif",
    "i.tif",
    "j.webp",
)


def picture(rng, kind="PNG", size=None, mode="RGB", **options):
    size = size or (rng.randrange(40, 300), rng.randrange(40, 300))
    noise = np.random.default_rng(rng.randrange(2**32)).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(out, kind, **options)
    return out.getvalue()


def odd_file(rng):
    """A file that is no plain photo, but might be one."""
    pixels = np.full((80, 80), np.nan if rng.random() < 0.3 else rng.random(), np.float32)
    tiff = io.BytesIO()
    Image.fromarray(pixels).save(tiff, "TIFF")
    wide = bytearray(picture(rng))
    wide[16:24] = (60_000).to_bytes(4, "big") * 2  # a PNG that says it is enormous
    return rng.choice([
        EPS, b"", b"\xff\xd8\xff", tiff.getvalue(), bytes(wide), b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        picture(rng, "JPEG", mode="CMYK"), picture(rng, "GIF", mode="P"), picture(rng, "PNG", mode="I;16"),
        picture(rng, "PNG", icc_profile=rng.randbytes(300)), picture(rng, size=(3, 3)),
        damaged(rng, picture(rng, "JPEG")), damaged(rng, picture(rng, "WEBP")), damaged(rng, picture(rng, "TIFF")),
    ])  # fmt: skip


@pytest.mark.parametrize("number", seeds("photos"))
def test_any_folder_of_photos(case, number):
    rng = drawn("photos", number)
    folder = case.parent / "mine"
    folder.mkdir()
    for _ in range(rng.randrange(0, 5)):
        content = picture(rng, rng.choice(["PNG", "JPEG", "BMP"])) if rng.random() < 0.5 else odd_file(rng)
        (folder / rng.choice(NAMES)).write_bytes(content)
    odd = rng.randrange(8)
    if odd == 0:
        os.mkfifo(folder / "pipe.jpg")
    elif odd == 1:
        (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    elif odd == 2:
        (folder / "more.jpg").mkdir()
    elif odd == 3:
        (folder / ".DS_Store").write_bytes(b"x")
    done = check(case, "subject", "add", "mine", "--class", "cat", "--photos", str(folder))
    if done.code == 0:
        assert check(case, "stage", "preprocess", "mine").code == 0
    assert check(case, "stage", "preprocess", "poodle").code == 0  # whatever it was, the project still works


def test_a_picture_file_starts_no_program(case):
    folder = case.parent / "mine"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(EPS)
    done = check(case, "subject", "add", "mine", "--class", "cat", "--photos", str(folder))
    assert done.code == 2 and "not a picture that can be read" in done.err


def test_a_phones_colours_are_converted(tmp_path):
    """Display P3, which every iPhone writes: the green that was seen, not the numbers of another space."""
    from arbooth.data.photos import read_photos

    # A profile with other primaries: sRGB's own with its red and blue columns exchanged.
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    red, blue = profile.find(b"rXYZ"), profile.find(b"bXYZ")
    swapped = bytearray(profile)
    swapped[red : red + 4], swapped[blue : blue + 4] = b"bXYZ", b"rXYZ"
    named = bytes(swapped).replace("sRGB".encode("utf-16-be"), "wide".encode("utf-16-be")).replace(b"sRGB", b"wide")
    image = Image.new("RGB", (80, 80), (200, 40, 40))
    image.save(tmp_path / "a.png", icc_profile=named)
    image.save(tmp_path / "b.png", icc_profile=b"none")
    found = read_photos(tmp_path, 10, 10**6)
    r, _, b = found.photos[0].image.getpixel((5, 5))
    assert b > 150 and r < 100
    assert found.photos[1].image.getpixel((5, 5)) == (200, 40, 40)
    assert any("b.png: its colour profile can't be read" in note for note in found.warnings)


def test_floats_from_zero_to_one_are_not_black(tmp_path):
    from arbooth.data.photos import read_photos

    Image.fromarray(np.full((80, 80), 0.5, np.float32)).save(tmp_path / "a.tif")
    assert read_photos(tmp_path, 10, 10**6).photos[0].image.getpixel((0, 0)) == (128, 128, 128)


def test_crops_are_found_in_either_spelling(case):
    photo = case / "photos" / "poodle" / "00.jpg"
    photo.rename(photo.with_name("e\u0301.jpg"))
    text = (case / "params.yaml").read_text()
    (case / "params.yaml").write_text(text.replace("crops: {}", 'crops: {"\u00e9.jpg": [0, 0, 0.5, 1]}', 1))
    assert check(case, "stage", "preprocess", "poodle").code == 0
    (case / "params.yaml").write_text(text.replace("crops: {}", "crops: {other.jpg: [0, 0, 0.5, 1]}", 1))
    assert "photos that are not there: other.jpg" in check(case, "stage", "preprocess", "poodle").err
