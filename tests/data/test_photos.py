import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from arbooth.data.photos import MOST, cropped, fit_to, read_photos, to_rgb
from arbooth.errors import InputError

LIMIT = 1_000_000


def save(folder, name, image, **options):
    folder.mkdir(exist_ok=True)
    image.save(folder / name, **options)


def noise(width=64, height=48, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def read(folder, smallest=32):
    return read_photos(folder, smallest, LIMIT)


def test_orientation_is_applied(tmp_path):
    image = noise(64, 48)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter
    save(tmp_path, "a.png", image, exif=exif)
    upright = read(tmp_path).photos[0].image
    assert upright.size == (48, 64)
    assert np.array_equal(np.asarray(upright), np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize(
    "mode, suffix", [("CMYK", "jpg"), ("L", "png"), ("P", "png"), ("1", "png"), ("RGB", "webp"), ("LA", "png")]
)
def test_any_mode_becomes_rgb(tmp_path, mode, suffix):
    save(tmp_path, f"a.{suffix}", noise().convert(mode))
    image = read(tmp_path).photos[0].image
    assert image.mode == "RGB"
    assert np.asarray(image).std() > 5


def test_alpha_lies_on_white(tmp_path):
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 32, 64))
    save(tmp_path, "a.png", image)
    pixels = np.asarray(read(tmp_path).photos[0].image)
    assert pixels[0, 0].tolist() == [0, 0, 255]
    assert pixels[0, 63].tolist() == [255, 255, 255]


def test_sixteen_bits_are_scaled(tmp_path):
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    save(tmp_path, "a.png", Image.fromarray(ramp))
    pixels = np.asarray(read(tmp_path).photos[0].image)
    assert pixels.max() == 255 and pixels.min() == 0
    assert abs(float(pixels.mean()) - 127.5) < 1


def test_palette_with_transparency(tmp_path):
    image = noise().convert("P")
    save(tmp_path, "a.png", image, transparency=0)
    assert to_rgb(Image.open(tmp_path / "a.png"))[0].mode == "RGB"


def test_everything_wrong_is_named_in_one_error(tmp_path):
    save(tmp_path, "good.png", noise())
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture")
    whole = io.BytesIO()
    noise(400, 400).save(whole, "jpeg")
    (tmp_path / "cut.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (tmp_path / "phone.HEIC").write_bytes(b"x")
    save(tmp_path, "small.png", noise(20, 90))
    (tmp_path / "bomb.png").write_bytes(bomb(40_000, 40_000))
    with pytest.raises(InputError) as error:
        read(tmp_path)
    message = str(error.value)
    assert message.startswith("6 of 7 photos")
    for name, words in {
        "empty.jpg": "empty", "text.png": "not a picture", "cut.jpg": "damaged", "phone.HEIC": "export it as JPEG",
        "small.png": "20x90 is too small", "bomb.png": "over the limit",
    }.items():  # fmt: skip
        assert any(name in line and words in line for line in message.splitlines()), (name, message)


def bomb(width, height):
    """A PNG header that promises far more pixels than the file holds."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))  # noqa: E731
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_duplicates_are_a_warning(tmp_path):
    save(tmp_path, "a.png", noise())
    save(tmp_path, "b.bmp", noise())
    photos = read(tmp_path)
    assert len(photos.photos) == 2
    assert photos.warnings == ["b.bmp shows the same pixels as a.png: it counts twice"]


def test_counts_are_bounded_and_other_files_ignored(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.png").write_bytes(b"")
    with pytest.raises(InputError, match="holds no photos"):
        read(tmp_path)
    for index in range(MOST + 1):
        save(tmp_path, f"{index}.png", noise(seed=index))
    with pytest.raises(InputError, match=f"keep the best {MOST}"):
        read(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        read(tmp_path / "nowhere")


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (64, 64), (65, 1000)])
def test_photos_are_covered_and_cut_at_the_centre(size):
    assert fit_to(noise(*size), 64, 64).size == (64, 64)
    assert fit_to(noise(*size), 48, 96).size == (96, 48)


def test_a_given_crop_is_used():
    image = Image.new("RGB", (200, 100), "red")
    image.paste((0, 255, 0), (100, 0, 200, 100))
    assert np.asarray(fit_to(cropped(image, (0.5, 0, 1, 1)), 32, 32)).reshape(-1, 3).tolist() == [[0, 255, 0]] * 1024
