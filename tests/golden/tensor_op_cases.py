"""Elementwise ops, reductions and shape ops, at sizes around the tile sizes of kernels: 1, 8, 16, 256."""

import numpy as np
import torch

from recorder import away_from_zero, case, ids, normal, positive, shape_of

# Elementwise

SIZES = [1, 7, 8, 9, 16, 17, 257]
PAIRS = [
    ((), ()), ((3, 5), ()), ((), (3, 5)), ((19, 9), (9,)), ((9,), (19, 9)), ((33, 7), (33, 1)), ((2, 1, 3), (4, 1)),
    ((2, 3, 4), (3, 1)), ((1,), (1, 1, 1)), ((3, 1, 2, 1), (1, 4, 1, 5)), ((2, 300), (2, 1)), ((300, 2), (2,)),
]  # fmt: skip
for op, fn, right, kind in [
    ("add", torch.add, normal, "arithmetic"),
    ("sub", torch.sub, normal, "arithmetic"),
    ("mul", torch.mul, normal, "arithmetic"),
    ("div", torch.div, away_from_zero, "arithmetic"),
    ("maximum", torch.maximum, normal, "arithmetic"),
]:
    for a, b in [((n,), (n,)) for n in SIZES] + PAIRS:
        x, y = normal(*a), right(*b)
        case(op, shape_of(x, y), fn, x, y, kind=kind)
    x = away_from_zero(3, 3)
    case(op, "of a tensor and itself", fn, x, x, kind=kind)
x = np.array([1, 2, -3, 0, 5], np.float32)
case("maximum", "ties", torch.maximum, x, np.array([1, 3, -3, 0, 4], np.float32), kind="arithmetic")

for op, fn, draw, kind in [
    ("neg", torch.neg, normal, "arithmetic"),
    ("exp", torch.exp, normal, "transcendental"),
    ("log", torch.log, positive, "transcendental"),
    ("sqrt", torch.sqrt, positive, "arithmetic"),
    ("tanh", torch.tanh, normal, "transcendental"),
]:
    for shape in [(n,) for n in SIZES] + [(), (3, 1, 5)]:
        x = draw(*shape)
        case(op, shape_of(x), fn, x, kind=kind)
far = np.array([-100, -20, -6, -1e-3, -1e-20, 0, 1e-20, 1e-3, 6, 20, 100], np.float32)
case(
    "exp",
    "far from zero",
    torch.exp,
    np.array([-100, -60, -1, -1e-6, 0, 1e-6, 1, 9], np.float32),
    kind="transcendental",
)
case("tanh", "far from zero", torch.tanh, far, kind="transcendental")
case(
    "log",
    "far from one",
    torch.log,
    np.array([1e-3, 0.999999, 1, 1.000001, 1e20, 100], np.float32),
    kind="transcendental",
)
for exponent in [2, 3, 1, 0.5, -1]:
    for n in [1, 9, 257]:
        x = positive(n) if exponent == 0.5 else away_from_zero(n)
        case("pow", f"{shape_of(x)} to {exponent}", torch.pow, x, exponent, kind="transcendental")


def where(condition, a, b):
    return torch.where(condition != 0, a, b)


for shapes in [((n,),) * 3 for n in [1, 8, 9, 257]] + [
    ((4, 1), (4, 5), ()),
    ((3, 5), (5,), (3, 1)),
    ((2, 1, 3), (4, 1), (2, 4, 3)),
]:
    condition, a, b = ids(2, *shapes[0]), normal(*shapes[1]), normal(*shapes[2])
    case("where", shape_of(condition, a, b), where, condition, a, b, kind="arithmetic")

# Reductions


def reduction(fn):
    def run(x, options):
        axis = options.get("axis", None)
        return fn(x, dim=axis, keepdim=options["keepDim"]) if "keepDim" in options else fn(x, dim=axis)

    return run


for op, fn in [("sum", torch.sum), ("mean", torch.mean)]:
    for shape, options in [
        ((), {}), ((1,), {}), ((7,), {}), ((9,), {}), ((257,), {}), ((3, 400), {}), ((2, 3, 4), {"keepDim": True}),
        ((2, 3, 4), {"axis": 0}), ((2, 3, 4), {"axis": 1}), ((2, 3, 4), {"axis": 2}), ((2, 3, 4), {"axis": -2}),
        ((2, 3, 4), {"axis": [0, 2]}), ((2, 3, 4), {"axis": [0, 1]}), ((2, 3, 4), {"axis": [1, -1]}),
        ((2, 3, 4), {"axis": [0, 1, 2]}), ((2, 3, 2, 5), {"axis": [0, 2]}), ((2, 3, 2, 5), {"axis": [1, 3], "keepDim": True}),
        ((2, 3, 4), {"axis": 1, "keepDim": True}), ((5, 130), {"axis": -1}), ((300, 2), {"axis": 0}),
        ((17, 9), {"axis": 0}), ((300, 1), {"axis": 1, "keepDim": True}),
    ]:  # fmt: skip
        x = normal(*shape)
        case(op, f"{shape_of(x)} {options}", reduction(fn), x, options, kind="reduction")


def maximum_of(x, options):
    if "axis" not in options:
        return x.amax(tuple(range(x.dim())), True) if options.get("keepDim") else x.max()
    return x.max(options["axis"], options.get("keepDim", False)).values


for shape, options in [
    ((), {}), ((1,), {}), ((9,), {}), ((257,), {}), ((3, 5), {"keepDim": True}), ((2, 3, 4), {"axis": 0}),
    ((2, 3, 4), {"axis": 1}), ((2, 3, 4), {"axis": -1, "keepDim": True}), ((5, 130), {"axis": 1}), ((300, 2), {"axis": 0}),
]:  # fmt: skip
    x = normal(*shape)
    case("max", f"{shape_of(x)} {options}", maximum_of, x, options, kind="reduction")
ties = np.array([[1, 3, 3, 2], [5, 5, 5, 5], [-1, -2, -1, -1]], np.float32)
case(
    "max",
    "ties along an axis: the gradient goes to the first",
    maximum_of,
    ties,
    {"axis": 1},
    kind="reduction",
)

# Shapes: exact, except for the sums in gather's gradient


def move(op, name, fn, *args):
    case(op, name, fn, *args, kind="movement")


for shape, to in [
    ((6,), [2, 3]),
    ((2, 3, 4), [6, -1]),
    ((2, 3, 4), [-1]),
    ((1,), []),
    ((), [1, 1]),
    ((257,), [257, 1]),
]:
    x = normal(*shape)
    move("reshape", f"{shape_of(x)} to {to}", lambda x, to: x.reshape(to), x, to)
for shape, axes in [
    ((3, 5), [0, 1]),
    ((17, 33), [0, 1]),
    ((2, 3, 4), [1, 2]),
    ((2, 3, 4), [0, -1]),
    ((1, 9), [0, 1]),
    ((2, 3, 4, 5), [1, 2]),
    ((300, 3), [0, 1]),
]:
    x = normal(*shape)
    move("transpose", f"{shape_of(x)} {axes}", lambda x, axes: x.transpose(*axes), x, axes)
for shape, axes in [
    ((3, 5), [1, 0]),
    ((2, 3, 4), [2, 0, 1]),
    ((2, 3, 4), [1, 0, -1]),
    ((2, 9, 3, 4), [0, 2, 1, 3]),
    ((2, 3, 2, 3, 2), [4, 2, 0, 3, 1]),
    ((7,), [0]),
]:
    x = normal(*shape)
    move("permute", f"{shape_of(x)} {axes}", lambda x, axes: x.permute(axes), x, axes)
for shape, axis, start, end in [
    ((9,), 0, 2, 7),
    ((3, 5), 1, 1, 4),
    ((3, 5), 0, 2, 3),
    ((2, 7, 3), 1, 0, 7),
    ((2, 7, 3), -1, 1, 3),
    ((4, 130), 1, 64, 129),
    ((300,), 0, 1, 299),
    ((2, 7, 3), 1, -3, -1),
]:
    x = normal(*shape)
    options = {"axis": axis, "start": start, "end": end}
    move(
        "slice",
        f"{shape_of(x)} {options}",
        lambda x, o: x.narrow(o["axis"], o["start"] % x.shape[o["axis"]], (o["end"] - o["start"])),
        x,
        options,
    )
for shapes, axis in [
    ([(3,), (4,)], 0),
    ([(2, 3), (1, 3), (4, 3)], 0),
    ([(3, 2), (3, 5)], 1),
    ([(2, 1, 3), (2, 4, 3)], -2),
    ([(5, 1)], 0),
    ([(129, 1), (129, 2)], -1),
]:
    parts = [normal(*shape) for shape in shapes]
    move("concat", f"{shape_of(*parts)} {axis}", lambda parts, o: torch.cat(parts, o["axis"]), parts, {"axis": axis})
x = normal(3, 2)
move("concat", "a tensor twice", lambda parts, o: torch.cat(parts, o["axis"]), [x, x], {"axis": 1})
for shape, index, axis in [
    ((5,), (3,), 0),
    ((3, 7), (3, 1), 1),
    ((3, 7), (3, 9), -1),
    ((6, 3), (4, 2), 0),
    ((2, 5, 3), (2, 4, 3), 1),
    ((4, 300), (4, 257), 1),
    ((1,), (1,), 0),
]:
    x = normal(*shape)
    index = ids(shape[axis], *index)
    case(
        "gather",
        f"{shape_of(x, index)} {axis}",
        lambda x, index, o: x.gather(o["axis"], index),
        x,
        index,
        {"axis": axis},
        kind="arithmetic",
    )
