"""Every op, forward and gradients, at sizes around what kernels are cut by: 1, 6, 8, 16, 256, 384.

A case is the call as TypeScript makes it: {"name", "op", "class", "args"}; an argument {"tensor": NAME} stands for a
tensor of the file, a list may hold some, anything else is passed as it is. NAME.grad is a gradient, and a tensor that
has none takes none. CASE.out is the result, CASE.dout what flows back into it.
"""

import numpy as np
import torch
import torch.nn.functional as F

from fixture import Fixture
from philox import dropout_mask

files = {}
random = np.random.Generator(np.random.PCG64(20261123))
worst = {}  # class -> largest error of PyTorch's own f32 kernels, as a share of 1 + |expected|


def normal(*shape, scale=1.0):
    return np.asarray(random.standard_normal(shape) * scale, np.float32)


def positive(*shape):
    return np.asarray(0.1 + random.random(shape) * 4, np.float32)


def away_from_zero(*shape):
    """Divisors: of either sign, none small."""
    return np.asarray((positive(*shape) + 0.4) * np.where(random.random(shape) < 0.5, -1, 1), np.float32)


def ids(high, *shape):
    return np.asarray(random.integers(0, high, shape), np.int32)


def case(op, name, fn, *args, file=None, kind=None):
    """Runs fn on the arguments in f64 and keeps everything; the same array twice is the same tensor twice."""
    fixture = files.setdefault(file or op, Fixture())
    kind = kind or op
    number = len(fixture.cases)
    known = {}

    def encode(value):
        if isinstance(value, np.ndarray):
            if id(value) not in known:
                known[id(value)] = f"{number}.{chr(ord('a') + len(known))}", value
            return {"tensor": known[id(value)][0]}
        return [encode(item) for item in value] if isinstance(value, list) else value

    encoded = [encode(arg) for arg in args]

    def run(dtype, dout):
        tensors = {}

        def decode(value):
            if isinstance(value, np.ndarray):
                if id(value) not in tensors:
                    tensor = torch.from_numpy(value)
                    if value.dtype == np.float32:
                        tensor = tensor.to(dtype).requires_grad_()
                    else:
                        tensor = tensor.long()
                    tensors[id(value)] = tensor
                return tensors[id(value)]
            return [decode(item) for item in value] if isinstance(value, list) else value

        out = fn(*[decode(arg) for arg in args])
        if dout is None:
            dout = normal(*out.shape)
        out.backward(torch.from_numpy(np.asarray(dout)).to(dtype))
        return dout, {"out": out.detach(), **{known[key][0] + ".grad": t.grad for key, t in tensors.items() if t.grad is not None}}

    dout, expected = run(torch.float64, None)
    for (key, value) in run(torch.float32, dout)[1].items():
        if not np.asarray(expected[key]).size:
            continue
        error = ((value.double() - expected[key]).abs() / (1 + expected[key].abs())).max().item()
        worst[kind] = max(worst.get(kind, 0), error)
    for key, array in known.values():
        fixture.put(key, array)
    fixture.put(f"{number}.dout", dout)
    for key, tensor in expected.items():
        fixture.put(f"{number}.out" if key == "out" else key, tensor)
    fixture.cases.append({"name": f"{op} {name}", "op": op, "class": kind, "args": encoded})


def shape_of(*arrays):
    return " ".join(f"[{','.join(map(str, array.shape))}]" for array in arrays)


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
        case(op, shape_of(x, y), fn, x, y, file="binary", kind=kind)
    x = away_from_zero(3, 3)
    case(op, "of a tensor and itself", fn, x, x, file="binary", kind=kind)
x = np.array([1, 2, -3, 0, 5], np.float32)
case("maximum", "ties", torch.maximum, x, np.array([1, 3, -3, 0, 4], np.float32), file="binary", kind="arithmetic")

for op, fn, draw, kind in [
    ("neg", torch.neg, normal, "arithmetic"),
    ("exp", torch.exp, normal, "transcendental"),
    ("log", torch.log, positive, "transcendental"),
    ("sqrt", torch.sqrt, positive, "arithmetic"),
    ("tanh", torch.tanh, normal, "transcendental"),
]:
    for shape in [(n,) for n in SIZES] + [(), (3, 1, 5)]:
        x = draw(*shape)
        case(op, shape_of(x), fn, x, file="unary", kind=kind)
wide = np.array([-100, -20, -6, -1e-3, -1e-20, 0, 1e-20, 1e-3, 6, 20], np.float32)
case("exp", "far from zero", torch.exp, np.array([-100, -60, -1, -1e-6, 0, 1e-6, 1, 9], np.float32), file="unary", kind="transcendental")
case("tanh", "far from zero", torch.tanh, np.append(wide, np.float32(100)), file="unary", kind="transcendental")
case("log", "far from one", torch.log, np.array([1e-3, 0.999999, 1, 1.000001, 1e20], np.float32), file="unary", kind="transcendental")
for exponent in [2, 3, 1, 0.5, -1]:
    for n in [1, 9, 257]:
        x = positive(n) if exponent == 0.5 else away_from_zero(n)
        case("pow", f"{shape_of(x)} to {exponent}", torch.pow, x, exponent, file="unary", kind="transcendental")


def where(condition, a, b):
    return torch.where(condition != 0, a, b)


for shapes in [((n,),) * 3 for n in [1, 8, 9, 257]] + [((4, 1), (4, 5), ()), ((3, 5), (5,), (3, 1)), ((2, 1, 3), (4, 1), (2, 4, 3))]:
    condition, a, b = ids(2, *shapes[0]), normal(*shapes[1]), normal(*shapes[2])
    case("where", shape_of(condition, a, b), where, condition, a, b, file="binary", kind="arithmetic")

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
        case(op, f"{shape_of(x)} {options}", reduction(fn), x, options, file="reduction", kind="reduction")


def maximum_of(x, options):
    if "axis" not in options:
        return x.amax(tuple(range(x.dim())), True) if options.get("keepDim") else x.max()
    return x.max(options["axis"], options.get("keepDim", False)).values


for shape, options in [
    ((), {}), ((1,), {}), ((9,), {}), ((257,), {}), ((3, 5), {"keepDim": True}), ((2, 3, 4), {"axis": 0}),
    ((2, 3, 4), {"axis": 1}), ((2, 3, 4), {"axis": -1, "keepDim": True}), ((5, 130), {"axis": 1}), ((300, 2), {"axis": 0}),
]:  # fmt: skip
    x = normal(*shape)
    case("max", f"{shape_of(x)} {options}", maximum_of, x, options, file="reduction", kind="reduction")
ties = np.array([[1, 3, 3, 2], [5, 5, 5, 5], [-1, -2, -1, -1]], np.float32)
case("max", "ties along an axis: the gradient goes to the first", maximum_of, ties, {"axis": 1}, file="reduction", kind="reduction")

# Shapes: exact but for what gather adds up


def move(op, name, fn, *args):
    case(op, name, fn, *args, file="shape", kind="movement")


for shape, to in [((6,), [2, 3]), ((2, 3, 4), [6, -1]), ((2, 3, 4), [-1]), ((1,), []), ((), [1, 1]), ((257,), [257, 1])]:
    x = normal(*shape)
    move("reshape", f"{shape_of(x)} to {to}", lambda x, to: x.reshape(to), x, to)
for shape, axes in [((3, 5), [0, 1]), ((17, 33), [0, 1]), ((2, 3, 4), [1, 2]), ((2, 3, 4), [0, -1]), ((1, 9), [0, 1]), ((2, 3, 4, 5), [1, 2]), ((300, 3), [0, 1])]:
    x = normal(*shape)
    move("transpose", f"{shape_of(x)} {axes}", lambda x, axes: x.transpose(*axes), x, axes)
for shape, axes in [((3, 5), [1, 0]), ((2, 3, 4), [2, 0, 1]), ((2, 3, 4), [1, 0, -1]), ((2, 9, 3, 4), [0, 2, 1, 3]), ((2, 3, 2, 3, 2), [4, 2, 0, 3, 1]), ((7,), [0])]:
    x = normal(*shape)
    move("permute", f"{shape_of(x)} {axes}", lambda x, axes: x.permute(axes), x, axes)
for shape, axis, start, end in [((9,), 0, 2, 7), ((3, 5), 1, 1, 4), ((3, 5), 0, 2, 3), ((2, 7, 3), 1, 0, 7), ((2, 7, 3), -1, 1, 3), ((4, 130), 1, 64, 129), ((300,), 0, 1, 299), ((2, 7, 3), 1, -3, -1)]:
    x = normal(*shape)
    options = {"axis": axis, "start": start, "end": end}
    move("slice", f"{shape_of(x)} {options}", lambda x, o: x.narrow(o["axis"], o["start"] % x.shape[o["axis"]], (o["end"] - o["start"])), x, options)
for shapes, axis in [([(3,), (4,)], 0), ([(2, 3), (1, 3), (4, 3)], 0), ([(3, 2), (3, 5)], 1), ([(2, 1, 3), (2, 4, 3)], -2), ([(5, 1)], 0), ([(129, 1), (129, 2)], -1)]:
    parts = [normal(*shape) for shape in shapes]
    move("concat", f"{shape_of(*parts)} {axis}", lambda parts, o: torch.cat(parts, o["axis"]), parts, {"axis": axis})
x = normal(3, 2)
move("concat", "a tensor twice", lambda parts, o: torch.cat(parts, o["axis"]), [x, x], {"axis": 1})
for shape, index, axis in [((5,), (3,), 0), ((3, 7), (3, 1), 1), ((3, 7), (3, 9), -1), ((6, 3), (4, 2), 0), ((2, 5, 3), (2, 4, 3), 1), ((4, 300), (4, 257), 1), ((1,), (1,), 0)]:
    x = normal(*shape)
    index = ids(shape[axis], *index)
    case("gather", f"{shape_of(x, index)} {axis}", lambda x, index, o: x.gather(o["axis"], index), x, index, {"axis": axis}, file="shape", kind="arithmetic")

# Products


def matmul(a, b, note=""):
    case("matmul", shape_of(a, b) + note, torch.matmul, a, b, kind="matmul")


for m, k, n in [
    (1, 1, 1), (1, 5, 1), (5, 1, 7), (5, 7, 15), (6, 8, 16), (7, 9, 17), (6, 16, 8), (12, 8, 32), (13, 33, 47), (49, 17, 50),
    (1, 64, 65), (1, 400, 3), (3, 400, 2), (2, 769, 3), (3, 384, 1), (3, 385, 1), (300, 3, 2), (2, 3, 300), (257, 1, 1),
]:  # fmt: skip
    matmul(normal(m, k), normal(k, n))
for a, b in [
    ((3, 5, 7), (3, 7, 4)), ((1, 4, 5), (1, 5, 6)), ((2, 3, 4, 5), (2, 3, 5, 6)), ((2, 1, 4, 5), (3, 5, 2)), ((4, 5), (3, 5, 2)),
    ((3, 4, 5), (5, 2)), ((2, 7, 9), (9, 17)), ((5,), (5,)), ((3, 5), (5,)), ((5,), (5, 3)), ((2, 3, 5), (5,)), ((17, 1, 9), (17, 9, 1)),
]:  # fmt: skip
    matmul(normal(*a), normal(*b))
x = normal(5, 5)
matmul(x, x, " of a matrix and itself")

for shape, out in [
    ((1, 1), 1), ((4, 5), 3), ((5,), 3), ((2, 3, 8), 9), ((2, 2, 2, 5), 7), ((7, 9), 17), ((6, 16), 16), ((12, 15), 33), ((257, 3), 2),
    ((2, 400), 5), ((3, 769), 2), ((2, 9, 32), 31), ((1, 130), 9),
]:  # fmt: skip
    x, weight, bias = normal(*shape), normal(out, shape[-1]), normal(out)
    case("linear", shape_of(x, weight), F.linear, x, weight, kind="matmul")
    case("linear", shape_of(x, weight) + " with bias", F.linear, normal(*shape), normal(out, shape[-1]), bias, kind="matmul")

# Normalisation, activation, embedding

for c in [1, 3, 7, 8, 9, 31, 128, 130]:
    for rows in {1: [(1,), (5,)], 9: [(2, 3), (257,)], 128: [(5,)]}.get(c, [(3,)]):
        x, weight, bias = normal(*rows, c) + np.float32(0.5), normal(c), normal(c)
        norm = lambda x, weight, bias=None, options={}: F.layer_norm(x, weight.shape, weight, bias, options.get("epsilon", 1e-5))
        case("layerNorm", shape_of(x), norm, x, weight, kind="layerNorm")
        case("layerNorm", shape_of(x) + " with bias", norm, normal(*rows, c, scale=3), normal(c), bias, kind="layerNorm")
case("layerNorm", "epsilon 0.1", norm, normal(2, 5), normal(5), normal(5), {"epsilon": 0.1}, kind="layerNorm")

gelu = lambda x, options: F.gelu(x, approximate=options["approximate"])
for approximate in ["none", "tanh"]:
    for shape in [(n,) for n in SIZES] + [(2, 3, 5)]:
        x = normal(*shape, scale=2)
        case("gelu", f"{shape_of(x)} {approximate}", gelu, x, {"approximate": approximate}, kind="gelu")
    case("gelu", f"far from zero, {approximate}", gelu, np.append(np.arange(-8, 8.25, 0.25), wide).astype(np.float32), {"approximate": approximate}, kind="gelu")

for shape, v, c in [((), 3, 2), ((1,), 1, 1), ((3, 4), 7, 5), ((2, 9), 5, 8), ((300,), 3, 9), ((5,), 257, 3), ((2, 3), 4, 130)]:
    index = ids(v, *shape)
    case("embedding", f"{shape_of(index)} of [{v},{c}]", F.embedding, index, normal(v, c), kind="arithmetic")

# Softmax and cross-entropy

for op, fn in [("softmax", F.softmax), ("logSoftmax", F.log_softmax)]:
    soft = lambda x, options, fn=fn: fn(x, options["axis"])
    for shape, axis in [((1,), 0), ((7,), -1), ((3, 1), 1), ((2, 8), 1), ((3, 9), -1), ((2, 65), -1), ((2, 257), 1), ((4, 3), 0), ((2, 5, 3), 1), ((9, 2, 2), 0), ((2, 3, 4, 2), -2), ((257, 2), 1)]:
        x = normal(*shape, scale=2)
        case(op, f"{shape_of(x)} axis {axis}", soft, x, {"axis": axis}, kind="softmax")
    case(op, "large magnitudes", soft, normal(3, 9, scale=1000), {"axis": -1}, kind="softmax")
    case(op, "large and equal", soft, np.full((1, 5), 1e4, np.float32), {"axis": -1}, kind="softmax")
masked = normal(3, 9)
masked[:, 4:] = np.where(random.random((3, 5)) < 0.5, -np.inf, masked[:, 4:])
case("softmax", "with minus infinities", soft_masked := lambda x, o: F.softmax(x, o["axis"]), masked, {"axis": -1}, kind="softmax")

cross = lambda x, t, options={}: F.cross_entropy(x.reshape(-1, x.shape[-1]), t.reshape(-1), ignore_index=options.get("ignoreIndex", -100))
for shape in [(1, 1), (1, 5), (4, 8), (3, 65), (2, 3, 9), (2, 257), (257, 2), (2, 2, 17)]:
    x, target = normal(*shape, scale=2), ids(shape[-1], *shape[:-1])
    case("crossEntropy", shape_of(x), cross, x, target, kind="crossEntropy")
for ignore in [-1, -100, 3]:
    x, target = normal(3, 4, 7), ids(7, 3, 4)
    target[0, 1:] = target[2, 0] = ignore
    case("crossEntropy", f"some targets {ignore} ignored", cross, x, target, {"ignoreIndex": ignore}, kind="crossEntropy")
    target = np.full((9,), ignore, np.int32)
    target[5] = 2
    case("crossEntropy", f"all but one {ignore} ignored", cross, normal(9, 5), target, {"ignoreIndex": ignore}, kind="crossEntropy")
target = ids(7, 4)
target[1] = -100
case("crossEntropy", "-100 ignored by default", cross, normal(4, 7), target, kind="crossEntropy")
case("crossEntropy", "large magnitudes", cross, normal(5, 9, scale=1000), ids(9, 5), kind="crossEntropy")

# Attention and dropout


def attention(qkv, heads, options={}):
    """softmax(q kᵀ / √hs, causal) v, written out; dropout falls on the probabilities."""
    B, T, C = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    q, k, v = (part.reshape(B, T, heads, C // heads).transpose(1, 2) for part in qkv.split(C, 2))
    scores = q @ k.transpose(-2, -1) / (C // heads) ** 0.5
    later = torch.ones(T, T, dtype=torch.bool).triu(1)
    probabilities = F.softmax(scores.masked_fill(later, -torch.inf), -1)  # (B, nh, T, T)
    if dropout := options.get("dropout"):
        T4 = (T + 3) // 4 * 4
        mask = dropout_mask(B * heads * T * T4, **dropout).reshape(B, heads, T, T4)[..., :T]
        probabilities = probabilities * torch.from_numpy(mask).to(qkv.dtype)
    return (probabilities @ v).transpose(1, 2).reshape(B, T, C)


for B, T, heads, width in [
    (1, 1, 1, 1), (2, 1, 2, 4), (1, 2, 1, 4), (2, 2, 3, 1), (2, 5, 1, 8), (1, 5, 4, 15), (2, 5, 3, 32), (1, 5, 2, 64), (1, 7, 4, 8),
    (1, 17, 2, 15), (2, 33, 1, 4), (1, 63, 1, 8), (1, 64, 2, 4), (1, 65, 1, 15), (1, 65, 2, 8), (1, 66, 1, 32), (1, 130, 1, 4),
    (1, 130, 2, 1), (1, 16, 1, 64), (3, 9, 2, 8),
]:  # fmt: skip
    case("causalSelfAttention", f"B {B}, T {T}, {heads} heads of {width}", attention, normal(B, T, 3 * heads * width), heads, kind="attention")
case("causalSelfAttention", "large scores", attention, normal(1, 9, 48, scale=8), 2, kind="attention")
for B, T, heads, width, p, seed, offset, stream in [
    (2, 5, 2, 8, 0.2, 1337, 0, 3), (1, 9, 3, 4, 0.5, 2**32 - 1, 7, 0), (1, 66, 1, 4, 0.1, 42, 1, 2**31), (2, 7, 1, 15, 0.25, 0, 2**32 - 1, 1), (1, 4, 1, 1, 0.2, 9, 0, 0),
]:  # fmt: skip
    options = {"dropout": {"p": p, "seed": seed, "offset": offset, "stream": stream}}
    case("causalSelfAttention", f"B {B}, T {T}, {heads} heads of {width}, dropout {p}", attention, normal(B, T, 3 * heads * width), heads, options, kind="attention")

dropout = lambda x, options: x * torch.from_numpy(dropout_mask(x.numel(), **options).reshape(x.shape)).to(x.dtype)
for shape, p, seed, offset, stream in [
    ((1,), 0.1, 1, 0, 0), ((7,), 0.5, 1337, 0, 0), ((8,), 0.5, 1337, 1, 0), ((9,), 0.5, 1337, 0, 1), ((3, 5), 0.2, 2**32 - 1, 3, 2), ((257,), 0.1, 7, 2**31, 5),
    ((2, 3, 67), 0.25, 2**31, 2**32 - 1, 2**32 - 1), ((5, 5), 0.0, 1, 0, 0),
]:  # fmt: skip
    x = normal(*shape)
    options = {"p": p, "seed": seed, "offset": offset, "stream": stream}
    case("dropout", f"{shape_of(x)} {options}", dropout, x, options, kind="arithmetic")
