import numpy as np
from PIL import Image

from arbooth.data.pictures import read_origin, write_picture
from arbooth.painting.sheet import contact_sheet


def test_pictures_carry_their_record(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    record = {"prompt": "a <S*> cat, 'été'", "seed": 7}
    write_picture(tmp_path / "a.png", pixels, record)
    assert read_origin(tmp_path / "a.png") == record
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), pixels)


def test_a_sheet_holds_every_picture_and_breaks_long_rows(tmp_path):
    pictures = [Image.new("RGB", (64, 64), (20 * i, 0, 0)) for i in range(10)]
    contact_sheet(tmp_path / "s.png", [("ten", pictures), ("one", pictures[:1])], tile=64, columns=8)
    sheet = Image.open(tmp_path / "s.png")
    colours = {c for _, c in sheet.convert("RGB").getcolors(100000)}
    assert {(20 * i, 0, 0) for i in range(10)} <= colours
    assert sheet.height > 3 * 64
