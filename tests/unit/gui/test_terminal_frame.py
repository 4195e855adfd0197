"""A frame as text: exact where it can be, and in each terminal's own graphics the same pixels again."""

import base64
import io
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.cells import cell_len

from runlane.gui.terminal_frame import (
    KITTY_CHUNK,
    TerminalSize,
    ViewFigures,
    absence,
    colours_256,
    fitted,
    graphic,
    graphics_of,
    half_blocks,
    hud_fields,
    hud_lines,
    image_of,
    is_truecolor,
    opaque,
    plain_hud,
    resized,
    text_lines,
)
from runlane.transport.ring_files import FoundRing, newest_ring
from runlane.transport.ring_layout import Geometry, HeadHeader, Hud, RingInfo

RED, GREEN, BLUE, BLACK, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)
INFO = RingInfo(run="01m8", worker="left", run_name="cart pole")
HUD = Hud(place=3 + (14 << 32), last_reward=1.0, episode_return=14.0, rolling_return=21.125, step_rate_hz=512.25)


def _picture(*rows: tuple[tuple[int, int, int], ...]) -> Image.Image:
    return Image.fromarray(np.array(rows, np.uint8))


def _noise(width: int, height: int, colours: int = 256) -> Image.Image:
    values = np.random.default_rng(7).integers(0, colours, (height, width, 3)) * (255 // (colours - 1))
    return Image.fromarray(values.astype(np.uint8))


# ---- half blocks -----------------------------------------------------------------------------------------


def test_a_cell_shows_two_pixels() -> None:
    """The upper one in front, the lower one behind."""
    rows = half_blocks(_picture((RED, GREEN), (BLUE, WHITE)), 2, 1)
    assert rows == ["\x1b[38;2;255;0;0;48;2;0;0;255m▀\x1b[38;2;0;255;0;48;2;255;255;255m▀\x1b[0m"]


def test_a_colour_is_said_when_it_changes() -> None:
    """Cells alike, exchanged, or of one colour cost a character and no more."""
    rows = half_blocks(_picture((RED, RED, BLUE, RED, BLUE, RED), (BLUE, BLUE, RED, RED, BLUE, BLUE)), 6, 1)
    assert rows == ["\x1b[38;2;255;0;0;48;2;0;0;255m▀▀▄█ ▀\x1b[0m"]


def test_a_row_does_not_end_with_a_space() -> None:
    """Whoever copies the screen cuts spaces off at the end, with their colour."""
    rows = half_blocks(_picture((RED, RED, RED), (RED, RED, RED)), 3, 1)
    assert rows == ["\x1b[48;2;255;0;0m  \x1b[38;2;255;0;0m█\x1b[0m"]


def test_an_odd_row_leaves_the_lower_half_alone() -> None:
    """What is below the picture is no part of it."""
    rows = half_blocks(_picture((RED,), (RED,), (BLUE,)), 1, 2)
    assert rows == ["\x1b[38;2;255;0;0m█\x1b[0m", "\x1b[38;2;0;0;255m▀\x1b[0m"]


def test_256_colours_are_those_of_the_cube_and_the_grays() -> None:
    """By their numbers, which every terminal shows alike."""
    row = half_blocks(_picture((RED, (118, 118, 118)), (BLUE, WHITE)), 2, 1, truecolor=False)
    assert row == ["\x1b[38;5;196;48;5;21m▀\x1b[38;5;243;48;5;231m▀\x1b[0m"]


def test_256_colours_are_the_nearest_ones() -> None:
    """Compared with all 240 one by one."""
    levels = (0, 95, 135, 175, 215, 255)
    known = [(red, green, blue) for red in levels for green in levels for blue in levels]
    known += [(level, level, level) for level in range(8, 248, 10)]
    pixels: NDArray[np.uint8] = np.asarray(_noise(40, 5))
    found = np.array(known)[colours_256(pixels).astype(np.int64) - 16]
    least = ((pixels[:, :, None, :].astype(np.int64) - np.array(known)) ** 2).sum(-1).min(-1)
    assert (((found - pixels.astype(np.int64)) ** 2).sum(-1) == least).all()


@pytest.mark.parametrize(
    ("frame", "columns", "rows", "expected"),
    [((640, 480), 120, 47, (120, 45)), ((640, 480), 200, 20, (53, 20)), ((2, 2), 10, 10, (10, 5))],
)
def test_the_picture_keeps_its_shape(
    frame: tuple[int, int], columns: int, rows: int, expected: tuple[int, int]
) -> None:
    """As great as fits, whichever side is the limit; a cell is two pixels high."""
    lines = half_blocks(Image.new("RGB", frame, RED), columns, rows)
    assert (lines[0].count(" ") + 1, len(lines)) == expected


@pytest.mark.parametrize("size", [(1, 1000), (1000, 1), (1, 1)])
def test_no_frame_is_too_thin(size: tuple[int, int]) -> None:
    """Something of it is always there, and never more than fits."""
    width, height = fitted(*size, 80, 24)
    assert 1 <= width <= 80
    assert 1 <= height <= 24


def test_a_smaller_picture_is_the_mean_of_its_pixels() -> None:
    """So that a thin line does not come and go while it moves."""
    small = resized(_picture((BLACK, (100, 100, 100)), ((100, 100, 100), (200, 200, 200))), (1, 1))
    assert small.getpixel((0, 0)) == (100, 100, 100)


def test_a_greater_picture_keeps_its_edges() -> None:
    """A world of eight by eight squares stays one."""
    great = resized(_picture((RED, BLUE)), (4, 2))
    assert np.asarray(great).tolist() == [[list(RED), list(RED), list(BLUE), list(BLUE)]] * 2


@pytest.mark.parametrize(
    ("channels", "pixels", "expected"),
    [(1, bytes([0, 128]), [(0, 0, 0), (128, 128, 128)]), (3, bytes([1, 2, 3, 4, 5, 6]), [(1, 2, 3), (4, 5, 6)])],
)
def test_a_frame_is_its_pixels(channels: int, pixels: bytes, expected: list[tuple[int, int, int]]) -> None:
    """Gray and RGB, rows from the top."""
    image = opaque(image_of(bytearray(pixels), Geometry(1, 2, channels)))
    assert [image.getpixel((0, row)) for row in range(2)] == expected


def test_what_is_transparent_is_black() -> None:
    """And what is half so, half as bright; the frame itself keeps its fourth channel."""
    image = image_of(bytes([200, 100, 50, 255, 200, 100, 50, 0]), Geometry(2, 1, 4))
    assert image.getpixel((0, 0)) == (200, 100, 50, 255)
    assert [opaque(image).getpixel((column, 0)) for column in range(2)] == [(200, 100, 50), BLACK]


# ---- graphics --------------------------------------------------------------------------------------------


def _kitty_image(text: str) -> tuple[dict[str, str], Image.Image]:
    """The picture as a terminal would read it, and what is said of it."""
    chunks = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text)
    assert "".join(f"\x1b_G{keys};{data}\x1b\\" for keys, data in chunks) == text
    assert [keys.rpartition("m=")[2] for keys, _ in chunks] == ["1"] * (len(chunks) - 1) + ["0"]
    assert max(len(data) for _, data in chunks) <= KITTY_CHUNK
    keys = dict(key.split("=") for key in chunks[0][0].split(","))
    pixels = zlib.decompress(base64.b64decode("".join(data for _, data in chunks)))
    return keys, Image.frombytes("RGB", (int(keys["s"]), int(keys["v"])), pixels)


def test_kitty_gets_the_pixels_in_chunks() -> None:
    """All of them, with one side of the box named, silent and without moving the cursor."""
    image = _noise(100, 60)
    keys, found = _kitty_image(graphic("kitty", image, TerminalSize(80, 20)))
    assert found.tobytes() == image.tobytes()
    assert {"a": "T", "f": "24", "q": "2", "C": "1", "r": "20"}.items() <= keys.items()
    assert "c" not in keys


def test_a_graphic_has_no_more_pixels_than_its_place() -> None:
    """A terminal behind a slow line is not sent what it cannot show."""
    keys, found = _kitty_image(graphic("kitty", Image.new("RGB", (1920, 1080), RED), TerminalSize(40, 30, 10, 20)))
    assert found.size == (400, 225)
    assert keys["c"] == "40"


def test_iterm_gets_a_png() -> None:
    """With its size in bytes and the box it has to fit into."""
    image = _noise(30, 20)
    found = re.fullmatch(r"\x1b\]1337;File=([^:]*):([^\x07]*)\x07", graphic("iterm", image, TerminalSize(80, 20)))
    assert found is not None
    keys, data = dict(key.split("=") for key in found[1].split(";")), base64.b64decode(found[2])
    assert (keys["inline"], keys["width"], keys["height"]) == ("1", "80", "20")
    assert int(keys["size"]) == len(data)
    assert Image.open(io.BytesIO(data)).tobytes() == image.tobytes()


def _sixel_image(text: str) -> Image.Image:
    """The picture as a terminal would draw it."""
    found = re.fullmatch(r'\x1bP0;1q"1;1;(\d+);(\d+)(.*)\x1b\\', text)
    assert found is not None
    picture = np.zeros((int(found[2]) + 6, int(found[1]), 3), np.uint8)
    palette: dict[str, list[int]] = {}
    column = row = 0
    colour = ""
    for defined, red, green, blue, chosen, count, mark in re.findall(
        r"#(\d+);2;(\d+);(\d+);(\d+)|#(\d+)|(?:!(\d+))?([$\-?-~])", found[3]
    ):
        if defined:
            palette[defined] = [round(int(part) * 2.55) for part in (red, green, blue)]
        elif chosen:
            colour = chosen
        elif mark in "$-":
            column, row = 0, row + 6 * (mark == "-")
        else:
            for bit in range(6):
                if (ord(mark) - 63) >> bit & 1:
                    picture[row + bit, column : column + int(count or 1)] = palette[colour]
            column += int(count or 1)
    return Image.fromarray(picture[: int(found[2])])


def test_sixels_are_the_pixels() -> None:
    """Colours in percent, in bands of six rows, of which the last one may be short."""
    image = _noise(40, 15, colours=2)
    assert _sixel_image(graphic("sixel", image, TerminalSize(4, 1, 10, 15))).tobytes() == image.tobytes()


def test_sixels_of_many_colours_are_near() -> None:
    """A palette is chosen for each frame."""
    image = Image.linear_gradient("L").resize((64, 48)).convert("RGB")
    found = _sixel_image(graphic("sixel", image, TerminalSize(8, 3, 8, 16)))
    assert np.abs(np.asarray(found, np.int64) - np.asarray(image, np.int64)).max() <= 6


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm-256color"}, "blocks"),
        ({}, "blocks"),
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM_PROGRAM": "WezTerm"}, "iterm"),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1"}, "blocks"),
        ({"TERM": "screen", "TERM_PROGRAM": "iTerm.app"}, "blocks"),
        ({"TERM": "xterm-256color", "TMUX": "/tmp/tmux-0/default", "KITTY_WINDOW_ID": "1"}, "blocks"),
    ],
)
def test_a_terminal_is_known_by_its_variables(environment: dict[str, str], expected: str) -> None:
    """Those that tmux hands on are of another terminal. What was asked for goes before all."""
    assert graphics_of(environment) == expected
    assert graphics_of(environment, "sixel") == "sixel"


def test_truecolor_is_what_a_terminal_says() -> None:
    """Without a word of it 256 colours are safe."""
    assert is_truecolor({"COLORTERM": "truecolor"})
    assert is_truecolor({"COLORTERM": "24bit"})
    assert not is_truecolor({"TERM": "xterm-256color"})


# ---- words -----------------------------------------------------------------------------------------------


def test_the_plain_hud_names_every_figure() -> None:
    """In one line, as key=value; what has spaces is quoted."""
    assert plain_hud(hud_fields(INFO, HUD, ViewFigures(14.96, 12.4, 3, 1))) == (
        "run=01m8 name='cart pole' worker=left episode=3 step=14 last_reward=1 episode_return=14 "
        "rolling_return=21.125 step_rate_hz=512.25 fps=15.0 age_ms=12 lapped=3 torn=1"
    )


def test_a_vector_environment_names_its_environments() -> None:
    """How many of them the frame shows, or which one."""
    info = RingInfo(run="r", worker="w", env_count=8)
    assert hud_fields(info, HUD._replace(tile=4))["tiles"] == "4"
    assert hud_fields(info, HUD._replace(env_index=5))["env_index"] == "5"


@pytest.mark.parametrize("columns", [20, 80, 120, 300])
def test_the_hud_fits_its_terminal(columns: int) -> None:
    """Each line is as wide as the terminal, so that it covers what was there."""
    lines = hud_lines(hud_fields(INFO, HUD, ViewFigures()), columns)
    assert {cell_len(line) for line in lines} == {columns}
    assert len(lines) == {20: 13, 80: 4, 120: 3, 300: 3}[columns]


def test_a_name_has_no_say_over_the_terminal() -> None:
    """A run may be called anything."""
    info = RingInfo(run="r", worker="w\x1b]0;title\x07", run_name="\x1b[2J")
    assert "\x1b" not in plain_hud(hud_fields(info, HUD))
    assert "\x1b" not in "".join(text_lines("worker \x1b[2J", 40))


# ---- whose frames ----------------------------------------------------------------------------------------


def _rings(*names: tuple[str, str, str]) -> list[FoundRing]:
    return [
        FoundRing(Path(f"rl-{number}"), HeadHeader(1, 1, number), RingInfo(run=run, worker=worker, run_name=name))
        for number, (run, worker, name) in enumerate(names)
    ]


def test_the_newest_ring_that_fits_is_meant() -> None:
    """By the run's id, its beginning or its name, and by the worker."""
    rings = _rings(("01a", "left", "walk"), ("01a", "right", "walk"), ("02b", "left", "run"))
    expected = {("", ""): 2, ("01a", ""): 1, ("01", "left"): 0, ("walk", ""): 1, ("", "right"): 1, ("run", "left"): 2}
    for (run, worker), index in expected.items():
        assert newest_ring(rings, run, worker) is rings[index]
    assert newest_ring(rings, "run", "right") is None
    assert newest_ring([], "", "") is None


def test_why_there_is_nothing_to_see() -> None:
    """Who does show frames; and where nobody does, what mends it."""
    assert absence(_rings(("01a", "left", "walk")), "nope", "") == (
        "no worker of run nope shows frames yet; these do: walk/left"
    )
    assert absence(_rings(("01a", "left", "")), "", "x") == "worker x shows no frames yet; these do: 01a/left"
    nobody = absence([], "", "")
    assert nobody.startswith("no worker shows frames yet: ")
    assert 'render_mode="rgb_array"' in nobody
    assert "FASTLANE=0" in nobody
