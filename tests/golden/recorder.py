"""Records calls of ops: inputs, PyTorch's result, and the gradient of every input under a random upstream gradient.

A case is the call as TypeScript makes it: {"name", "op", "class", "args"}, the class being that of tolerances.ts. An
argument {"tensor": NAME} stands for a tensor of the file, a list may hold some, anything else is passed as it is.
NAME.grad is a gradient, and a tensor that has none takes none. CASE.out is the result, CASE.dout what flows back into it.
"""

import numpy as np
import torch

from fixture import Fixture

files = {}
SEED = 20261123
random = np.random.Generator(np.random.PCG64(SEED))
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
        return dout, {
            "out": out.detach(),
            **{known[key][0] + ".grad": t.grad for key, t in tensors.items() if t.grad is not None},
        }

    dout, expected = run(torch.float64, None)
    for key, value in run(torch.float32, dout)[1].items():
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
