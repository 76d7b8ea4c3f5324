"""Compiled loops that lay dashed contours for Pathfinder: in whole numbers, so that every machine draws the same.

Lengths are in units of 1/16 pixel; pixel (row, column) has its centre at (16·row + 8, 16·column + 8).
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

UNIT = 16
ANGLES = 64
"""Directions a dash can have."""
TRIES = 16
"""Directions tried for a dash before its contour counts as stuck."""
BACK = 3
"""Dashes of a long contour taken back where it is stuck."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_loop = njit(error_model="numpy")
"""What `draw` calls is compiled into it, and kept with it."""


class Plan(NamedTuple):
    """What is the same for all images of a task.

    Attributes:
        dashes: of a long contour. seed: distance between the first ends of the two. radius: of a dot.
        closeness: how much the distance of the dots may depend on the label.
        distractors, distractor: how many short contours are tried, and their dashes. peak: brightness of a dash.
    """

    dashes: int
    seed: int
    radius: int
    closeness: int
    distractors: int
    distractor: int
    peak: int


def directions() -> NDArray[np.int64]:
    """(cos, sin) of each direction in units of 2⁻¹⁴, rounded: shape (ANGLES, 2)."""
    angle = 2 * np.pi * np.arange(ANGLES) / ANGLES
    return np.rint(16384 * np.stack([np.cos(angle), np.sin(angle)], axis=1)).astype(np.int64)


def turns(continuity: float) -> NDArray[np.int64]:
    """Running sums of the weights of all turns δ: cos² min(continuity · |δ|, π/2), in units of 2⁻¹², rounded."""
    angle = np.minimum(np.arange(ANGLES), ANGLES - np.arange(ANGLES)) * 2 * np.pi / ANGLES
    return np.cumsum(np.rint(4096 * np.cos(np.minimum(continuity * angle, np.pi / 2)) ** 2).astype(np.int64))


class _Work(NamedTuple):
    """What is written on, made outside of the loops.

    Attributes:
        owner, before: to whom each pixel belongs, and belonged, (S, S). laid: dashes of each long contour, (2,).
        dashes: those of long contours, (2, count, 5): y0, x0, y1, x1, direction. short: of a short one, (count, 4).
        ends: see `_ends`, (3, 4). state: of the random numbers, (1,).
    """

    owner: NDArray[np.int16]
    before: NDArray[np.int16]
    laid: NDArray[np.int64]
    dashes: NDArray[np.int64]
    short: NDArray[np.int64]
    ends: NDArray[np.int64]
    state: NDArray[np.uint64]


@_loop
def _below(state: Any, n: int) -> int:
    """The next whole number in [0, n) of SplitMix64, for n far below 2³¹."""
    state[0] += _GOLDEN
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (np.int64((z ^ (z >> np.uint64(31))) >> np.uint64(33)) * np.int64(n)) >> 31


@_loop
def _near(y: int, x: int, dash: Any, reach: int) -> bool:
    """Whether a point is within `reach` of the segment `dash`: y0, x0, y1, x1."""
    ay, ax = dash[0], dash[1]
    dy, dx = dash[2] - ay, dash[3] - ax
    py, px = y - ay, x - ax
    along, length2 = py * dy + px * dx, dy * dy + dx * dx
    if along <= 0:
        return py * py + px * px <= reach * reach
    if along >= length2:
        py, px = y - dash[2], x - dash[3]
        return py * py + px * px <= reach * reach
    across = py * dx - px * dy
    return across * across <= reach * reach * length2


@_loop
def _box(dash: Any, reach: int, side: int) -> tuple[int, int, int, int]:
    """Rows and columns, ends excluded, of the pixels that `_near` may hold for."""
    top, bottom = min(dash[0], dash[2]) - reach, max(dash[0], dash[2]) + reach
    left, right = min(dash[1], dash[3]) - reach, max(dash[1], dash[3]) + reach
    return max(top // UNIT, 0), min(bottom // UNIT + 1, side), max(left // UNIT, 0), min(right // UNIT + 1, side)


@_loop
def _free(owner: Any, dash: Any, reach: int, low: int, high: int) -> bool:
    """Whether every pixel within `reach` of a dash belongs to nobody, or to one of `low` up to `high`."""
    top, bottom, left, right = _box(dash, reach, len(owner))
    for row in range(top, bottom):
        for column in range(left, right):
            other = owner[row, column] != 0 and not low <= owner[row, column] <= high
            if other and _near(UNIT * row + UNIT // 2, UNIT * column + UNIT // 2, dash, reach):
                return False
    return True


@_loop
def _stamp(image: Any, dash: Any, reach: int, peak: int) -> None:
    """Light what is within `reach` of a dash: 4 × 4 points per pixel, each a sixteenth of `peak`."""
    top, bottom, left, right = _box(dash, reach, len(image))
    for row in range(top, bottom):
        for column in range(left, right):
            points = 0
            for i in range(2, UNIT, 4):
                for j in range(2, UNIT, 4):
                    points += _near(UNIT * row + i, UNIT * column + j, dash, reach)
            image[row, column] = max(image[row, column], peak * points // 16)


@_loop
def _claim(owner: Any, dash: Any, reach: int, own: int) -> None:
    """Give the pixels that a dash of half-thickness `reach` touches to `own`, or back to nobody, 0."""
    top, bottom, left, right = _box(dash, reach + UNIT // 2, len(owner))
    for row in range(top, bottom):
        for column in range(left, right):
            if _near(UNIT * row + UNIT // 2, UNIT * column + UNIT // 2, dash, reach + UNIT // 2):
                owner[row, column] = own


@_loop
def _place(dash: Any, y: int, x: int, angle: int, start: int, length: int, table: Any) -> None:
    """Write the dash that begins `start` beyond (y, x) in direction `angle`."""
    cos, sin = table[angle, 0], table[angle, 1]
    dash[0], dash[1] = y + ((start * sin) >> 14), x + ((start * cos) >> 14)
    dash[2], dash[3] = y + (((start + length) * sin) >> 14), x + (((start + length) * cos) >> 14)


@_loop
def _inside(dash: Any, border: int, side: int) -> bool:
    """Whether both ends of a dash are at least `border` from the edges."""
    low, high = border, UNIT * side - border
    return low <= min(dash[0], dash[1], dash[2], dash[3]) and max(dash[0], dash[1], dash[2], dash[3]) <= high


@_loop
def _extend(
    state: Any, owner: Any, last: Any, angle: int, number: int, size: Any, table: Any, sums: Any, dash: Any
) -> int:
    """Lay the dash behind `last`, and return its direction; −1 where there is no room for it.

    Args:
        number: what `last` is claimed under in `owner`; the new dash gets the number after it.
        size: dash length, gap, half-thickness, distance to others, distance to the edges.
    """
    length, gap, half, apart, border = size[0], size[1], size[2], size[3], size[4]
    half_gap = gap // 2
    y, x = last[2] + ((half_gap * table[angle, 1]) >> 14), last[3] + ((half_gap * table[angle, 0]) >> 14)
    for _ in range(TRIES):
        drawn, turn = _below(state, sums[-1]), 0
        while sums[turn] <= drawn:
            turn += 1
        new = (angle + turn) % ANGLES
        _place(dash, y, x, new, half_gap, length, table)
        if _inside(dash, border, len(owner)) and _free(owner, dash, half + apart, number, number):
            _claim(owner, dash, half, number + 1)
            return new
    return -1


@_loop
def _copy(source: Any, target: Any) -> None:
    """Write one array (S, S) over another: an assignment of slices takes numba five seconds to compile."""
    for row in range(len(source)):
        for column in range(len(source)):
            target[row, column] = source[row, column]


@_loop
def _pair(work: _Work, seed: int, size: Any, table: Any, sums: Any) -> bool:
    """Try to lay two long contours, always extending the shorter one.

    Where one is stuck, its last dashes are taken back. False where that happened too often.
    """
    owner, dashes, laid, state = work.owner, work.dashes, work.laid, work.state
    side, count, border = len(owner), dashes.shape[1], size[4]
    owner.fill(0)
    laid.fill(1)
    y = border + _below(state, UNIT * side - 2 * border)
    x = border + _below(state, UNIT * side - 2 * border)
    for which in range(2):
        if which == 1:
            around = _below(state, ANGLES)
            y, x = y + ((seed * table[around, 1]) >> 14), x + ((seed * table[around, 0]) >> 14)
        first = dashes[which, 0]
        first[4] = _below(state, ANGLES)
        _place(first, y, x, first[4], 0, size[0], table)
        if not (_inside(first, border, side) and _free(owner, first, size[2] + size[3], 0, 0)):
            return False
        _claim(owner, first, size[2], 100 * which + 1)
    stuck = 0
    while laid[0] < count or laid[1] < count:
        which = 0 if laid[0] <= laid[1] else 1
        i = laid[which]
        last, new = dashes[which, i - 1], dashes[which, i]
        new[4] = _extend(state, owner, last, last[4], 100 * which + i, size, table, sums, new)
        if new[4] >= 0:
            laid[which] += 1
            continue
        stuck += 1
        if stuck > count:
            return False
        for back in range(i - 1, max(i - 1 - BACK, 0), -1):
            _claim(owner, dashes[which, back], size[2], 0)
            laid[which] -= 1
    return True


@_loop
def _ends(dashes: Any, owner: Any, state: Any, radius: int, closeness: int, farther: int, ends: Any) -> bool:
    """Choose where dots may stand: `ends` (3, 4) gets one end of a contour, its other end, and an end of the other one.

    The second and third are equally far from the first, up to `closeness`, the second or third (`farther` 0 or 1) no
    nearer than the other, and nothing else is near any of the three.
    """
    count = dashes.shape[1]
    start = _below(state, 8)
    for k in range(8):
        choice = (start + k) % 8
        which, tip, other = choice & 1, (choice >> 1) & 1, (choice >> 2) & 1
        if tip == other == 0:  # the first ends of both are always equally far apart, which would tell
            continue
        for place in range(3):
            contour = which if place < 2 else 1 - which
            end = (tip, 1 - tip, other)[place]
            dash = dashes[contour, 0 if end == 0 else count - 1]
            ends[place, 0] = ends[place, 2] = dash[0 if end == 0 else 2]
            ends[place, 1] = ends[place, 3] = dash[1 if end == 0 else 3]
        a2 = (ends[0, 0] - ends[1, 0]) ** 2 + (ends[0, 1] - ends[1, 1]) ** 2
        b2 = (ends[0, 0] - ends[2, 0]) ** 2 + (ends[0, 1] - ends[2, 1]) ** 2
        near, far = (b2, a2) if farther == 0 else (a2, b2)
        # √far − √near ≤ c, without roots: far ≤ near + c² + 2c√near, squared
        rest = far - near - closeness * closeness
        if rest > 0 and rest * rest > 4 * closeness * closeness * near:
            continue
        if far < near or near < (4 * radius) ** 2:
            continue
        clear = True
        for place in range(3):
            contour = 100 * (which if place < 2 else 1 - which)
            clear = clear and _free(owner, ends[place], radius + UNIT, contour, contour + 99)
        if clear:
            return True
    return False


def draw(seeds: Any, labels: Any, sizes: Any, plan: Plan, continuity: float, side: int) -> NDArray[np.uint8]:
    """One image (S, S) per label; everything but the place of the second dot is the same whatever the label.

    Args:
        seeds: where the random numbers of each image begin, uint64 (N,). labels: 0 or 1, (N,).
        sizes: what `_extend` calls `size`, (M, 5); each image draws one of them.
    """
    laid, dashes, short, ends = (
        np.zeros(shape, dtype=np.int64) for shape in (2, (2, plan.dashes, 5), (plan.distractor, 4), (3, 4))
    )
    owner, before = np.zeros((2, side, side), dtype=np.int16)
    work = _Work(owner, before, laid, dashes, short, ends, np.zeros(1, dtype=np.uint64))
    images = np.zeros((len(labels), side, side), dtype=np.uint8)
    _draw(seeds, labels, sizes, plan, directions(), turns(continuity), work, images)
    return images


@njit(nogil=True, cache=True, error_model="numpy")
def _draw(seeds: Any, labels: Any, sizes: Any, plan: Plan, table: Any, sums: Any, work: _Work, images: Any) -> None:
    """Draw into `images` (N, S, S), which hold zeros; `table` and `sums` are what `directions` and `turns` give."""
    owner, dashes, short, ends, state = work.owner, work.dashes, work.short, work.ends, work.state
    side, count, distractor = len(owner), plan.dashes, plan.distractor
    for n in range(len(labels)):
        image = images[n]
        state[0] = seeds[n]
        size = sizes[_below(state, len(sizes))]
        farther = _below(state, 2)
        while not (
            _pair(work, plan.seed, size, table, sums)
            and _ends(dashes, owner, state, plan.radius, plan.closeness, farther, ends)
        ):
            pass
        for which in range(2):
            for i in range(count):
                _stamp(image, dashes[which, i], size[2], plan.peak)
        for place in range(3):
            _claim(owner, ends[place], plan.radius, 300)
        for k in range(plan.distractors):
            for _ in range(4 * TRIES):
                _copy(owner, work.before)
                angle = _below(state, ANGLES)
                y = size[4] + _below(state, UNIT * side - 2 * size[4])
                x = size[4] + _below(state, UNIT * side - 2 * size[4])
                _place(short[0], y, x, angle, 0, size[0], table)
                number = 400 + 100 * k
                if not (_inside(short[0], size[4], side) and _free(owner, short[0], size[2] + size[3], 0, 0)):
                    continue
                _claim(owner, short[0], size[2], number + 1)
                for i in range(1, distractor):
                    angle = _extend(state, owner, short[i - 1], angle, number + i, size, table, sums, short[i])
                    if angle < 0:
                        break
                if angle >= 0:
                    for i in range(distractor):
                        _stamp(image, short[i], size[2], plan.peak)
                    break
                _copy(work.before, owner)
        _stamp(image, ends[0], plan.radius, 255)
        _stamp(image, ends[2 - labels[n]], plan.radius, 255)
