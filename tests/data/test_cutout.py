import numpy as np
import pytest
from PIL import Image, ImageDraw

from arbooth.data.cutout import LIGHT, MARGIN, cut_out
from arbooth.data.manifest import photo_files, photos_digest
from arbooth.data.photos import prepared, read_photos
from arbooth.errors import InputError
from tests.conftest import SHARED


def scene(size=(320, 240), box=(120, 90, 200, 150), seed=0):
    """A red ellipse before grained green."""
    grain = np.random.default_rng(seed).integers(60, 120, (size[1], size[0], 1))
    image = Image.fromarray(np.concatenate([grain // 2, grain, grain // 2], -1).astype(np.uint8))
    ImageDraw.Draw(image).ellipse(box, fill=(220, 30, 30))
    return image


def reds(image):
    pixels = np.asarray(image).astype(int)
    return (pixels[..., 0] > 150) & (pixels[..., 1] < 110)


@pytest.mark.parametrize("ratio", [1.0, 2.0, 0.5])
def test_the_subject_stands_in_the_middle_of_a_light_ground(ratio):
    cut = cut_out(scene(), ratio)
    assert cut.width / cut.height == pytest.approx(ratio, rel=0.02)
    inside = reds(cut)
    y, x = np.nonzero(inside)
    assert abs(y.mean() - cut.height / 2) < 4 and abs(x.mean() - cut.width / 2) < 4
    assert inside.sum() == pytest.approx(np.pi * 40 * 30, rel=0.06)  # all of it
    edges = np.asarray(cut)[[0, -1]].reshape(-1, 3)
    assert (edges == LIGHT).all()
    if ratio == 1:
        assert cut.width == pytest.approx(80 * (1 + 2 * MARGIN), rel=0.05)


def test_a_sky_is_not_taken_for_what_stands_before_it():
    image = scene()
    ImageDraw.Draw(image).rectangle((0, 20, 320, 70), fill=(60, 120, 250))  # larger than the subject
    pixels = np.asarray(cut_out(image, 1.0)).astype(int)
    assert reds(pixels).sum() > 2000 and (pixels[..., 2] > pixels[..., 0] + 100).sum() < 100


@pytest.mark.parametrize("size", [(320, 240), (165, 106), (1600, 1200)])
def test_a_thin_line_behind_the_subject_is_no_part_of_it(size):
    image = scene().resize(size)
    width, (x, y) = max(1, size[0] // 200), (size[0] // 2, size[1] // 2)
    pen = ImageDraw.Draw(image)
    pen.line((x, 0, x, size[1]), fill=(220, 30, 30), width=width)
    pen.line((0, y, size[0], y), fill=(220, 30, 30), width=width)
    cut = reds(cut_out(image, 1.0))
    found, expected = np.argwhere(cut), 1 / (1 + 2 * MARGIN)  # the ellipse alone fills the frame but for its margin
    high, wide = (found.max(0) - found.min(0) + 1) / cut.shape
    assert wide == pytest.approx(expected, abs=0.07) and high == pytest.approx(expected * 3 / 4, abs=0.07)


def test_a_mask_is_used_instead(tmp_path):
    image = scene()
    image.save(tmp_path / "a.png")
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).rectangle((20, 20, 60, 60), fill=255)
    alone = photos_digest(photo_files(tmp_path))
    mask.save(tmp_path / "a.mask.png")
    (photo,) = read_photos(tmp_path, 32, 10**6).photos  # the mask is no photo
    assert photos_digest(photo_files(tmp_path)) != alone
    cut = prepared(photo, 64, 64, None, "remove")
    assert not reds(cut).any() and cut.size == (64, 64)
    assert prepared(photo, 64, 64, None, "keep").tobytes() != cut.tobytes()
    both = Image.new("L", image.size)
    for left in (20, 240):  # of two shoes, both: what was drawn is meant
        ImageDraw.Draw(both).rectangle((left, 100, left + 60, 140), fill=255)
    pair = np.array(cut_out(Image.new("RGB", image.size, "red"), 1.0, both).convert("RGB")).astype(int)
    middle = pair[len(pair) // 2]
    assert np.flatnonzero(np.diff(middle[:, 1] < 100)).size == 4  # red, light, red
    mask.resize((100, 100)).save(tmp_path / "a.mask.png")
    whole = (tmp_path / "a.mask.png").read_bytes()
    for cut in (whole[: len(whole) // 2], whole[:20], b"", b"no picture"):
        (tmp_path / "a.mask.png").write_bytes(cut)
        with pytest.raises(InputError, match=r"a\.\w+: its mask a\.mask\.png"):
            read_photos(tmp_path, 32, 10**6)
    (tmp_path / "a.mask.png").write_bytes(whole)
    with pytest.raises(InputError, match="a.mask.png is 100x100 and the photo, upright, 320x240"):
        read_photos(tmp_path, 32, 10**6)


def test_a_crop_comes_first(tmp_path):
    image = scene(box=(20, 90, 100, 150))
    ImageDraw.Draw(image).ellipse((200, 60, 310, 180), fill=(240, 240, 0))
    image.save(tmp_path / "a.png")
    (photo,) = read_photos(tmp_path, 32, 10**6).photos
    left = np.asarray(prepared(photo, 64, 64, (0.0, 0.0, 0.5, 1.0), "remove")).astype(int)
    assert reds(left).sum() > 500 and ((left[..., 1] > 200) & (left[..., 2] < 60)).sum() == 0


@pytest.mark.parametrize("image", [Image.new("RGB", (64, 64), "white"), Image.new("RGB", (70, 33), (3, 200, 9))])
def test_nothing_that_stands_out_is_told(image, tmp_path):
    image.save(tmp_path / "flat.png")
    (photo,) = read_photos(tmp_path, 8, 10**6).photos
    with pytest.raises(InputError, match=r"flat.png: no subject stands out.*\(flat.mask.png, white where the subject is\)"):
        prepared(photo, 32, 32, None, "remove")


def test_the_same_photo_gives_the_same_bytes():
    assert cut_out(scene(), 1.0).tobytes() == cut_out(scene(), 1.0).tobytes()


def test_real_photos_lose_their_background():
    folder = SHARED / "data" / "vico"
    if not folder.is_dir():
        pytest.skip("no photos at hand")
    for name in ("duck_toy", "brown_cat"):
        for photo in read_photos(folder / name, 32, 10**8).photos[1:3]:
            pixels = np.asarray(prepared(photo, 64, 64, None, "remove"))
            ground = (np.abs(pixels.astype(int) - LIGHT).max(-1) < 6).mean()
            assert 0.25 < ground < 0.85, photo.path
