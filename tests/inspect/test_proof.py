"""The proof, on networks whose precision is known: by what they were made of, and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import relaxquant as rq
from relaxquant.inspect import ir
from relaxquant.inspect.macs import INTEGER, multiply_accumulates
from tests.networks import make

AVX512 = {"kind": "llvm", "mcpu": "cascadelake"}
QUANTIZED = rq.QConfig.best()


class Wide(nn.Module):
    """Two layers with channels enough for loops over them; no padding, so that counts are exact."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(64, 64, 3)
        self.second = nn.Conv2d(64, 32, 1)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


def compiled(module, **options):
    return rq.compile(module, cache=False, **({"target": AVX512} | options))


def quantized(module, x, config=QUANTIZED):
    return rq.quantize(module, config, calibration=[x.numpy()])


@pytest.fixture(scope="module")
def residual():
    network, x = make("residual")
    module = rq.frontends.from_torch(network, x)
    return module, quantized(module, x), x


@pytest.fixture(scope="module")
def wide():
    torch.manual_seed(0)
    x = torch.randn(1, 64, 18, 18)
    module = rq.frontends.from_torch(Wide().eval(), x)
    return module, quantized(module, x), x


@pytest.fixture(scope="module")
def libraries(wide):
    module, qmod, _ = wide
    options = {"schedule": "nchw_spatial_pack"}
    return compiled(module, **options), compiled(qmod, **options)


def test_every_multiply_accumulate_is_found_in_the_code(libraries):
    for library, precision in zip(libraries, ("float32", "int8"), strict=True):
        found = rq.proof(library)
        assert [row.macs for row in found.rows] == [64 * 9 * 64 * 256, 64 * 32 * 256]
        assert [row.executed for row in found.rows] == [{precision: row.macs} for row in found.rows]
        assert all(row.exact for row in found.rows)


def test_loops_that_accumulate_are_in_one_type_only(libraries):
    """No integer vector is multiplied in fp32's loops, and no float in int8's."""
    fp32, int8 = (_accumulating_loops(library) for library in libraries)
    assert fp32 and int8
    opcodes = {one.opcode for one in fp32 if one.lanes > 1}
    assert "mul" not in opcodes
    assert not [one for one in int8 if one.opcode in ("fmul", "fadd") or ".fm" in one.callee]
    assert any("vpdpbusd" in one.callee for one in int8)


def _accumulating_loops(library) -> list[ir.Instruction]:
    """Instructions of the first layer's innermost loops with a multiply-accumulate in them."""
    symbol = "__tvm_ffi_" + library.kernels.where(op="conv2d")[0].name
    parts = ir.parse(library.source("ll")).parts
    entry = next(part.functions[symbol] for part in parts if symbol in part.functions)
    found = []
    for function in entry.reached():
        blocks = {mac.instruction.block for mac in multiply_accumulates(function)}
        inner = [loop for loop in function.loops if blocks & loop.nodes and not loop.inner]
        found += [one for loop in inner for block in loop.nodes for one in block.instructions]
    return found


def test_hot_loops_hold_the_instructions(libraries):
    fp32, int8 = (rq.proof(library).rows[0].hot_loop for library in libraries)
    assert fp32.classes["vfmadd"] > 0 and fp32.classes["vpdpbusd"] == 0
    assert int8.classes["vpdpbusd"] > 0 and int8.classes["vfmadd"] == int8.classes["vmul"] == 0
    assert "vpdpbusd" in int8.text and "#" not in int8.text and ".loc" not in int8.text


def test_int8_is_all_integers_and_fp32_none(residual):
    module, qmod, _ = residual
    assert rq.proof(compiled(qmod)).integer_share == 1
    found = rq.proof(compiled(module))
    assert found.integer_share == 0
    assert {row.reason for row in found.rows} == {"not quantized"}


def test_naive_int8_multiplies_floats(residual):
    """Stock TVM's int8: its layers are found by function, and multiply exactly as often."""
    found = rq.proof(compiled(residual[1], executor="naive"))
    assert found.integer_share == 0
    assert [row.precision for row in found.rows] == ["float32"] * 5
    convolutions = [row for row in found.rows if row.record.op == "conv2d"]
    assert [sum(row.executed.values()) for row in convolutions] == [r.macs for r in convolutions]
    assert all("no integer lowering" in row.reason for row in found.rows)


@pytest.mark.filterwarnings("ignore:no layer of the network is quantized")
@pytest.mark.parametrize(
    "fields",
    [
        {"skip_conv_layers": range(4), "skip_dense_layer": True},
        {"debug_enabled_ops": []},
    ],
)
def test_all_layers_skipped_is_none(residual, fields):
    """The negative control: "quantized", and yet not a layer is."""
    module, _, x = residual
    qmod = quantized(module, x, rq.QConfig.best(**fields))
    assert rq.proof(compiled(qmod)).integer_share == 0


def test_one_layer_skipped_is_its_share(residual):
    module, _, x = residual
    qmod = quantized(module, x, rq.QConfig.best(skip_conv_layers=[0]))
    found = rq.proof(compiled(qmod))
    (stem,) = found.float_layers
    assert stem.macs == 2 * 3 * 16 * 49 * 16 * 16
    assert found.integer_share == pytest.approx(1 - stem.macs / found.macs)
    assert stem.reason


def test_few_bits_are_integers_of_their_own_kind(residual):
    module, _, x = residual
    qmod = quantized(module, x, rq.QConfig.best(nbit_weight=2, nbit_input=2))
    found = rq.proof(compiled(qmod, target={"kind": "llvm", "mcpu": "znver4"}))
    assert found.integer_share == 1
    assert found.by_precision["look-up"] > 0
    row = next(row for row in found.rows if row.record.schedule == "nchw_lookup")
    assert row.precision == "look-up" and "look-up" in row.instructions


def test_bits_are_counted(residual):
    module, _, x = residual
    qmod = quantized(module, x, rq.QConfig.best(nbit_weight=1, nbit_input=1))
    found = rq.proof(compiled(qmod, target={"kind": "llvm", "mcpu": "znver4"}))
    rows = [row for row in found.rows if row.record.schedule == "nchw_bit_serial"]
    assert rows and found.integer_share == 1
    # One pair of bits is a multiply-accumulate; a word of 32 may be half empty.
    assert all(row.executed["bits"] >= row.macs for row in rows)


@pytest.mark.parametrize("which, precision", [(0, "float32"), (1, "int16")])
def test_winograd_multiplies_less(wide, which, precision):
    schedule = ("nchw_winograd", "nchw_winograd_int")[which]
    target = {"kind": "llvm", "mcpu": "znver3"}
    found = rq.proof(compiled(wide[which], schedule=schedule, target=target)).rows[0]
    assert found.record.schedule == schedule
    assert found.precision == precision
    # F(2x2, 3x3); the last tiles of a register tile may be padding.
    assert 2 < found.macs / sum(found.executed.values()) <= 2.25


def test_the_border_of_an_image_is_not_multiplied():
    """Dilation 2, padding 2, 11 x 9: 29 of 33 rows of taps and 23 of 27 columns lie inside."""
    network, x = make("branches")
    library = compiled(quantized(rq.frontends.from_torch(network, x), x))
    row = next(r for r in rq.proof(library).rows if r.record.schedule == "reference")
    assert row.exact
    assert row.executed == {"int32": row.macs * 29 * 23 // (33 * 27)}


def test_what_stays_with_tvm_is_seen():
    """A product of two activations: no kernel of ours takes it, and it counts as float."""

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 16, 3)

        def forward(self, x):
            y = torch.flatten(self.conv(x), 2)
            return y @ y.transpose(1, 2)

    x = torch.randn(1, 3, 10, 10, generator=torch.manual_seed(0))
    qmod = quantized(rq.frontends.from_torch(Attention().eval(), x), x)
    found = rq.proof(compiled(qmod))
    (stays,) = found.float_layers
    assert stays.record.schedule == "tvm default"
    assert stays.executed == {"float32": 16 * 16 * 64}
    assert 0 < found.integer_share < 1


def test_a_symbolic_batch_counts_one_image(wide):
    _, _, x = wide
    module = rq.frontends.from_torch(Wide().eval(), x, dynamic_batch=True)
    library = compiled(quantized(module, x), executor="vm", schedule="nchw_spatial_pack")
    found = rq.proof(library)
    assert [row.executed for row in found.rows] == [{"int8": row.macs} for row in found.rows]


def test_another_architecture(wide):
    target = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a76"}
    try:
        library = compiled(wide[1], target=target)
    except rq.TargetError as error:
        pytest.skip(str(error))
    found = rq.proof(library)
    assert found.integer_share == 1
    # The products of -128 and the weights, which undo a shift, are not the layer's.
    assert found.rows[0].executed == {"int8": found.rows[0].macs}
    assert "sdot" in found.rows[0].instructions


def test_table_and_lines(libraries):
    found = rq.proof(libraries[1])
    text = str(found)
    assert text.splitlines()[0].split()[:2] == ["layer", "op"]
    assert "100.0 % of them in integers" in text
    assert f"{found.memory.weights['int8']:,} int8" in text
    lines = found.lines()
    assert [line["precision"] for line in lines] == ["int8", "int8"]
    assert sum(line["macs"] for line in lines) == found.macs
    assert set(found.by_precision) <= set(INTEGER)


def test_a_library_from_a_file_says_what_to_do(wide, tmp_path):
    library = rq.compile(wide[1], cache=False)
    loaded = rq.load(library.export(tmp_path / "net.so"))
    with pytest.raises(rq.InputError, match="compile the network again"):
        rq.proof(loaded)
