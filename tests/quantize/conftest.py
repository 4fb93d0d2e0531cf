"""Small networks built by hand, and stock TVM to run them."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.relax import op as R


class Layers:
    """Emits layers with random constants; every tensor has the name it is given."""

    def __init__(self, bb: relax.BlockBuilder, seed: int = 0):
        self.bb, self.rng = bb, np.random.default_rng(seed)
        self.constants: dict[str, np.ndarray] = {}

    def emit(self, expr, name):
        return self.bb.emit(expr, name_hint=name)

    def const(self, name, *shape, scale=1.0):
        self.constants[name] = (self.rng.normal(size=shape) * scale).astype("float32")
        return relax.const(self.constants[name])

    def conv(self, x, name, channels=8, kernel=3, groups=1, bias=True, **attrs):
        inputs = int(x.ty.shape[1]) // groups
        shape = (channels, inputs, kernel, kernel)
        weight = self.const(f"{name}.weight", *shape, scale=(inputs * kernel**2) ** -0.5)
        attrs.setdefault("padding", kernel // 2)
        y = self.emit(R.nn.conv2d(x, weight, groups=groups, **attrs), name)
        return self.bias(y, name, (1, channels, 1, 1)) if bias else y

    def dense(self, x, name, units=5, flip=False):
        inputs = int(x.ty.shape[-1])
        weight = self.const(f"{name}.weight", inputs, units, scale=inputs**-0.5)
        return self.bias(self.emit(R.matmul(x, weight), name), name, (units,), flip)

    def bias(self, y, name, shape, flip=False):
        bias = self.const(f"{name}.bias", *shape, scale=0.3)
        return self.emit(R.add(bias, y) if flip else R.add(y, bias), f"{name}_bias")

    def relu(self, x, name):
        return self.emit(R.nn.relu(x), name)

    def add(self, x, y, name):
        return self.emit(R.add(x, y), name)

    def head(self, x, name="fc"):
        """Global average pool, flatten, dense."""
        pooled = self.emit(R.mean(x, axis=[-1, -2], keepdims=True), "mean")
        shape = [x.ty.shape[0], x.ty.shape[1]]
        return self.dense(self.emit(R.reshape(pooled, shape), "flat"), name)


def build_net(body, shape=(2, 3, 8, 8), seed=0):
    """A module whose main is ``body(layers, x)``; `shape` may start with ``"n"``."""
    sizes = [tirx.Var(s, "int64") if isinstance(s, str) else s for s in shape]
    x = relax.Var("x", relax.TensorType(sizes, "float32"))
    bb = relax.BlockBuilder()
    layers = Layers(bb, seed)
    with bb.function("main", [x]):
        with bb.dataflow():
            output = bb.emit_output(body(layers, x), name_hint="out")
        bb.emit_func_output(output)
    mod = bb.get()
    return mod


def run_stock(mod):
    """Build with TVM's default pipeline; return a function from input to list of outputs."""
    machine = relax.VirtualMachine(relax.build(mod, "llvm"), tvm.cpu())

    def run(x):
        out = machine["main"](tvm.runtime.tensor(np.ascontiguousarray(x)))
        return [out.numpy()] if hasattr(out, "numpy") else [field.numpy() for field in out]

    return run


@pytest.fixture
def net():
    return build_net


@pytest.fixture
def stock():
    return run_stock


@pytest.fixture
def batches():
    rng = np.random.default_rng(7)
    return [rng.normal(size=(2, 3, 8, 8)).astype("float32") for _ in range(3)]
