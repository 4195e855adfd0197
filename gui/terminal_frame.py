"""A frame of the fast lane as text for a terminal: half blocks or a terminal's graphics, and the words beside it.

Only draws: pixels and a size in, text out. Who reads frames and writes to a terminal is `runlane.watch`.
"""

import base64
import io
import re
import textwrap
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import zip_longest
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.cells import cell_len, set_cell_size

from runlane.config.errors import FastLaneError
from runlane.transport.ring_files import FoundRing
from runlane.transport.ring_layout import Geometry, Hud, RingInfo

Graphics = Literal["kitty", "iterm", "sixel", "blocks"]
GRAPHICS: tuple[Graphics, ...] = ("kitty", "iterm", "sixel", "blocks")

SYNC_ON, SYNC_OFF = "\x1b[?2026h", "\x1b[?2026l"
RESET = "\x1b[0m"
KITTY_CHUNK = 4096  # characters of base64 in one escape sequence, at most
KITTY_CLEAR = "\x1b_Ga=d,d=I,i=1,q=2\x1b\\"
SIXEL_COLOURS = 128
SIXEL_ROWS = 6
FIELD_COLUMNS = 7  # so much room for a figure, that its neighbours stand still while it changes
LINE_STARTS = ("episode", "fps")
CACHED_ROWS = 1024

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class TerminalSize(NamedTuple):
    """Cells of a terminal, and the pixels of one cell; a cell is taken to be twice as high as wide where unknown."""

    columns: int
    rows: int
    cell_width: int = 10
    cell_height: int = 20


# ---- pictures --------------------------------------------------------------------------------------------


def image_of(pixels: Any, geometry: Geometry) -> Image.Image:
    """The whole frame, as it was published."""
    return Image.frombytes(_MODES[geometry.channels], (geometry.width, geometry.height), bytes(pixels))


def opaque(image: Image.Image) -> Image.Image:
    """The picture in RGB; what is transparent shows black."""
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image.convert("RGB")


def fitted(width: int, height: int, box_width: int, box_height: int) -> tuple[int, int]:
    """The greatest size of the same shape that fits into the box; at least a pixel a side."""
    scale = min(box_width / width, box_height / height)
    return max(1, min(box_width, round(width * scale))), max(1, min(box_height, round(height * scale)))


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Each new pixel is the mean of those it covers; a picture that grows keeps its edges."""
    return image if image.size == size else image.resize(size, Image.Resampling.BOX)


def graphics_of(environment: Mapping[str, str], asked: str = "auto") -> Graphics:
    """What was asked for, else what a terminal can draw by its variables, which inside of tmux are those around it."""
    for kind in GRAPHICS:
        if kind == asked:
            return kind
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if environment.get("TMUX") or term.startswith(("tmux", "screen")):
        return "blocks"
    if environment.get("KITTY_WINDOW_ID") or term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return "kitty"
    return "iterm" if program in ("iTerm.app", "WezTerm") else "blocks"


def is_truecolor(environment: Mapping[str, str]) -> bool:
    """Whether a terminal says that it has 24-bit colour."""
    return environment.get("COLORTERM", "").lower() in ("truecolor", "24bit")


# ---- half blocks -----------------------------------------------------------------------------------------


def half_blocks(image: Image.Image, columns: int, rows: int, *, truecolor: bool = True) -> list[str]:
    """The picture in cells, as great as fits: a cell shows two pixels, one above the other. One text a row."""
    small = resized(opaque(image), fitted(*image.size, columns, 2 * rows))
    pixels: NDArray[np.uint8] = np.asarray(small)
    lines = [line.tobytes() for line in (pixels if truecolor else colours_256(pixels))]
    return [_row(top, bottom, truecolor) for top, bottom in zip_longest(lines[::2], lines[1::2], fillvalue=b"")]


@lru_cache(maxsize=CACHED_ROWS)
def _row(top: bytes, bottom: bytes, truecolor: bool) -> str:
    """One row of cells; the lower half is left alone where `bottom` is empty. Colours are said when they change.

    No row ends with a space: whoever copies the screen would cut it off. Cached, because most rows of most frames are
    those of the frame before.
    """
    size = 3 if truecolor else 1
    upper = [top[start : start + size] for start in range(0, len(top), size)]
    lower: Sequence[bytes | None] = [bottom[start : start + size] for start in range(0, len(bottom), size)]
    text: list[str] = []
    front: bytes | None = None
    back: bytes | None = None
    for column, (above, below) in enumerate(zip(upper, lower or [None] * len(upper), strict=True), 1):
        if above == below == front:
            text.append("█")
        elif above == below and column == len(upper):
            text.append(f"\x1b[{_colour(38, above)}m█")
        elif above == below:
            text.append(" " if back == above else f"\x1b[{_colour(48, above)}m ")
            back = above
        elif above == back and below == front:
            text.append("▄")
        else:
            codes = [_colour(38, above)] if above != front else []
            codes += [_colour(48, below)] if below is not None and below != back else []
            text.append(f"\x1b[{';'.join(codes)}m▀" if codes else "▀")
            front, back = above, below
    return "".join(text) + RESET


def _colour(layer: int, colour: bytes) -> str:
    """An SGR code; layer 38 is the character, 48 what is behind it."""
    return f"{layer};{'2' if len(colour) == 3 else '5'};" + ";".join(map(str, colour))


def _nearest(levels: NDArray[np.int64], bytes_added: int) -> NDArray[np.uint8]:
    """For each value of so many bytes added up, the index of the level nearest to their mean."""
    sums = np.arange(255 * bytes_added + 1)[:, None]
    found: NDArray[np.uint8] = np.abs(sums - levels * bytes_added).argmin(axis=1).astype(np.uint8)
    return found


# The colours of xterm: 16 that everybody sets anew, a cube of six levels, and 24 grays.
_CUBE = np.array([0, 95, 135, 175, 215, 255])
_GRAYS = np.arange(8, 248, 10)
_IN_CUBE, _IN_GRAYS = _nearest(_CUBE, 1), _nearest(_GRAYS, 3)


def colours_256(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """For each pixel (last axis RGB) the nearest of the 240 colours that are alike in all terminals."""
    cube = _IN_CUBE[pixels]
    gray = _IN_GRAYS[pixels.sum(axis=-1)]
    wanted = pixels.astype(np.int64)
    cube_error = ((_CUBE[cube] - wanted) ** 2).sum(axis=-1)
    gray_error = ((_GRAYS[gray][..., None] - wanted) ** 2).sum(axis=-1)
    in_cube = 16 + cube.astype(np.int64) @ np.array([36, 6, 1])
    found: NDArray[np.uint8] = np.where(gray_error < cube_error, 232 + gray.astype(np.int64), in_cube).astype(np.uint8)
    return found


# ---- graphics --------------------------------------------------------------------------------------------


def graphic(kind: Graphics, image: Image.Image, size: TerminalSize) -> str:
    """The picture for a terminal with graphics, to be written where its upper left corner is to be."""
    box = size.columns * size.cell_width, size.rows * size.cell_height
    target = fitted(*image.size, *box)
    picture = opaque(image)
    if kind == "sixel":
        return sixel(resized(picture, target))
    if target[0] < picture.width:  # a terminal enlarges by itself, and needs no more pixels than it shows
        picture = resized(picture, target)
    is_wide = picture.width * box[1] >= picture.height * box[0]
    return kitty(picture, size, is_wide=is_wide) if kind == "kitty" else iterm(picture, size)


def kitty(image: Image.Image, size: TerminalSize, *, is_wide: bool) -> str:
    """Kitty's protocol: one image, replaced by each next one. It keeps the shape if one side only is named."""
    side = f"c={size.columns}" if is_wide else f"r={size.rows}"
    first = f"a=T,f=24,o=z,s={image.width},v={image.height},i=1,p=1,q=2,C=1,{side},"
    data = base64.standard_b64encode(zlib.compress(image.tobytes(), 1)).decode()
    chunks = [data[start : start + KITTY_CHUNK] for start in range(0, len(data), KITTY_CHUNK)]
    last = len(chunks) - 1
    return "".join(
        f"\x1b_G{'' if index else first}m={int(index < last)};{chunk}\x1b\\" for index, chunk in enumerate(chunks)
    )


def iterm(image: Image.Image, size: TerminalSize) -> str:
    """iTerm2's protocol, which WezTerm has too: a PNG, fitted into the box by the terminal."""
    png = io.BytesIO()
    image.save(png, "PNG", compress_level=1)
    data = png.getvalue()
    box = f"width={size.columns};height={size.rows};preserveAspectRatio=1;doNotMoveCursor=1"
    return f"\x1b]1337;File=inline=1;size={len(data)};{box}:{base64.standard_b64encode(data).decode()}\x07"


def sixel(image: Image.Image) -> str:
    """Sixels: bands of six rows, one pass over a band for each of its colours."""
    indexed = image.quantize(SIXEL_COLOURS, dither=Image.Dither.NONE)
    palette = np.array(indexed.getpalette(), np.float64).reshape(-1, 3) / 255 * 100
    defined = "".join(
        f"#{index};2;{red:.0f};{green:.0f};{blue:.0f}" for index, (red, green, blue) in enumerate(palette.tolist())
    )
    pixels: NDArray[np.uint8] = np.asarray(indexed)
    bands = (_band(pixels[start : start + SIXEL_ROWS]) for start in range(0, image.height, SIXEL_ROWS))
    return f'\x1bP0;1q"1;1;{image.width};{image.height}{defined}{"-".join(bands)}\x1b\\'


def _band(band: NDArray[np.uint8]) -> str:
    weights = 1 << np.arange(len(band))
    return "$".join(
        f"#{colour}{_packed((63 + weights @ (band == colour)).astype(np.uint8).tobytes().decode('ascii'))}"
        for colour in np.unique(band).tolist()
    )


def _packed(sixels: str) -> str:
    return re.sub(r"(.)\1{3,}", lambda found: f"!{len(found[0])}{found[1]}", sixels)


# ---- words -----------------------------------------------------------------------------------------------


class ViewFigures(NamedTuple):
    """What the viewer counts itself. `age_ms` is None before the first frame."""

    fps: float = 0.0
    age_ms: float | None = None
    lapped: int = 0
    torn: int = 0


def hud_fields(info: RingInfo, hud: Hud, figures: ViewFigures | None = None) -> dict[str, str]:
    """What stands under a frame, by name. Names of runs come from anywhere and get no say over the terminal."""
    fields = {"run": info.run, "name": info.run_name, "worker": info.worker}
    fields = {key: _printable(value) for key, value in fields.items() if value}
    if hud.tile:
        fields["tiles"] = str(hud.tile)
    elif info.env_count > 1:
        fields["env_index"] = str(hud.env_index)
    fields |= {"episode": str(hud.episode), "step": str(hud.step)}
    for key in ("last_reward", "episode_return", "rolling_return", "step_rate_hz"):
        fields[key] = f"{getattr(hud, key):.6g}"
    if figures is not None:
        age = "-" if figures.age_ms is None else f"{figures.age_ms:.0f}"
        fields |= {"fps": f"{figures.fps:.1f}", "age_ms": age}
        fields |= {"lapped": str(figures.lapped), "torn": str(figures.torn)}
    return fields


def plain_hud(fields: Mapping[str, str]) -> str:
    """The fields as one line for a log or a program."""
    return " ".join(f"{key}={repr(value) if ' ' in value else value}" for key, value in fields.items())


def hud_lines(fields: Mapping[str, str], columns: int) -> list[str]:
    """The fields in as many lines as they need, each as wide as the terminal: whose frame, the frame, our figures."""
    lines: list[str] = []
    for key, value in fields.items():
        field = f"{key} {set_cell_size(value, max(cell_len(value), FIELD_COLUMNS))}"
        if lines and key not in LINE_STARTS and cell_len(lines[-1]) + 2 + cell_len(field.rstrip()) <= columns:
            lines[-1] += f"  {field}"
        else:
            lines.append(field)
    return [set_cell_size(line, columns) for line in lines]


def text_lines(text: str, columns: int) -> list[str]:
    """A sentence in as many lines as it needs, each as wide as the terminal."""
    return [set_cell_size(line, columns) for line in textwrap.wrap(_printable(text), columns)]


def _printable(text: str) -> str:
    return "".join(mark if mark.isprintable() else "?" for mark in text)


# ---- whose frames ----------------------------------------------------------------------------------------


def check_tile(info: RingInfo, tile: int) -> None:
    """Raise `FastLaneError` for an environment that a worker has not; they count from 1, and 0 is none."""
    if tile > info.env_count:
        raise FastLaneError(
            f"worker {info.worker} has {info.env_count} environments: choose --tile 1 to {info.env_count}"
        )


def absence(rings: Sequence[FoundRing], run: str, worker: str) -> str:
    """Why there is nothing to see, and what mends it."""
    whose = f"worker {worker}" if worker else "no worker"
    shown = f"{whose}{' of run ' if run else ''}{run} shows {'no ' if worker else ''}frames yet"
    if rings:
        others = sorted({f"{ring.info.run_name or ring.info.run}/{ring.info.worker}" for ring in rings})
        return f"{shown}; these do: {_printable(', '.join(others))}"
    return (
        f"{shown}: start one on this host with the same settings, its environment made with "
        'render_mode="rgb_array", and without FASTLANE=0'
    )
