"""Counting the kernels of compiled programs: texts that XLA wrote for an H200, and counts made by hand.

The texts in golden/hlo are compiled programs of JAX 0.11.2. Paths, launch attributes and the code of Triton kernels are
taken out.
"""

from pathlib import Path

import pytest

from lra_bench.bench.hlo import ArrayType, arrays, parse
from lra_bench.bench.kernels import step_kernels
from lra_bench.bench.modules import UNKNOWN, module_of, pass_of
from lra_bench.bench.products import RATES
from lra_bench.bench.targets import H200, LAUNCH_SECONDS, MEASURED_FLOPS_PER_SECOND, TARGETS, find_target
from lra_bench.errors import UserError

TEXTS = Path(__file__).parent / "golden" / "hlo"


def program(name):
    return parse((TEXTS / f"{name}.txt").read_text())


def counted(name):
    """(kind, times, bytes, flops by rate) of each kernel of a text."""
    kernels, notes = step_kernels(program(name))
    assert not notes
    return [(kernel.kind, kernel.times, kernel.bytes_moved, dict(kernel.work)) for kernel in kernels]


MATRICES = 4 * (64 * 128 + 128 * 32 + 64 * 32)
"""The bytes of the product (64, 128) × (128, 32) in float32."""
MULTIPLIED = 2 * 64 * 128 * 32


@pytest.mark.parametrize(
    ("name", "rate", "nbytes"),
    [
        ("product_float32", "float32", MATRICES),
        ("product_tf32", "tf32", MATRICES),
        ("product_bfloat16", "bfloat16", MATRICES // 2 + 2 * 64 * 32),  # its result is float32
        ("cublas", "float32", MATRICES),  # without its workspace of 4 MiB
    ],
)
def test_a_product_counts_its_matrices_and_its_flops_at_its_precision(name, rate, nbytes):
    assert counted(name) == [("product", 1, nbytes, {rate: MULTIPLIED})]


def test_a_batched_product_counts_every_matrix():
    assert counted("cublas_batched") == [("product", 1, 8 * MATRICES, {"float32": 8 * MULTIPLIED})]


def test_a_product_split_over_the_contracted_axis_has_a_sum_behind_it():
    partial = 16 * 64 * 32 * 4
    product, reduction = counted("product_bfloat16_x3")
    assert product == ("product", 1, 4 * (64 * 128 + 128 * 32) + partial, {"bfloat16_x3": MULTIPLIED})
    assert reduction == ("reduction", 1, partial + 64 * 32 * 4, {})


def test_a_reduction_reads_its_operand_once_however_often_it_is_named():
    assert counted("reduce") == [("reduction", 1, 4 * (4096 * 64 + 64), {})]


def test_a_loop_of_known_length_counts_its_body_as_often():
    x, row, number = 4 * 256 * 64, 4 * 64, 4
    found = counted("loop")
    assert sorted(found, key=str) == sorted(
        [
            ("copy, slice, gather", 1, 2 * number, {}),
            ("copy, slice, gather", 1, 2 * x, {}),
            ("elementwise", 5, 2 * number, {}),
            ("reduction", 5, x + row, {}),
            ("elementwise", 5, x + row + x, {}),
        ],
        key=str,
    )


def test_the_loop_over_batches_counts_one_batch_and_nothing_outside_it():
    x = 4 * 256 * 64
    assert sorted(nbytes for _, _, nbytes, _ in counted("loop_unknown")) == [8, 4 + 4 + 1, 2 * x]


def test_what_takes_rows_or_changes_rows_counts_the_rows():
    rows, numbers, everything = 4 * 32 * 64, 4 * 32, 4 * 100_000 * 64
    assert counted("gather") == [("copy, slice, gather", 1, rows + numbers + rows, {})]
    copy, update = counted("update_slice")
    assert copy == ("copy, slice, gather", 1, 2 * everything, {})
    assert update[1:] == (1, rows + 4 + rows, {})
    assert counted("scatter")[1] == ("sort, scatter", 1, rows + rows + numbers + rows, {})


def test_concatenation_moves_both_operands():
    assert counted("concat") == [("transpose, concatenate", 1, 2 * 4 * 1000 * 96, {})]


def test_a_fourier_transform_counts_its_data_and_n_log_n():
    real, spectrum = 4 * 16 * 1024, 8 * 16 * 513
    flops = 2.5 * 16 * 1024 * 10
    there, product, back = counted("fft")
    assert there == back == ("FFT", 1, real + spectrum, {"float32": flops})
    assert product == ("elementwise", 1, 2 * spectrum, {})


def test_a_long_fourier_transform_takes_two_passes():
    text = (TEXTS / "fft.txt").read_text().replace("1024", "65536").replace("513", "32769")
    there = step_kernels(parse(text)).kernels[0]
    assert there.times == 2
    assert there.times * there.work["float32"] == 2.5 * 16 * 65536 * 16


def test_a_custom_kernel_counts_operands_and_results_or_what_it_declares():
    assert counted("pallas") == [("custom kernel", 1, 2 * 4 * 1024, {})]
    assert counted("pallas_declared") == [("custom kernel", 1, 12289, {})]
    in_loop = [kernel for kernel in counted("pallas_loop") if kernel[0] == "custom kernel"]
    assert in_loop == [("custom kernel", 3, 2 * 4 * 1024, {})]


NESTED = """HloModule nested

%inner (p: (f32[8], s32[])) -> (f32[8], s32[]) {
  %p = (f32[8]{0}, s32[]) parameter(0)
  %a = f32[8]{0} get-tuple-element(%p), index=0
  %i = s32[] get-tuple-element(%p), index=1
  %b = f32[8]{0} negate(%a)
  ROOT %t = (f32[8]{0}, s32[]) tuple(%b, %i)
}

%more (p.1: (f32[8], s32[])) -> pred[] {
  %p.1 = (f32[8]{0}, s32[]) parameter(0)
  %i.1 = s32[] get-tuple-element(%p.1), index=1
  ROOT %lt = pred[] compare(%i.1, %i.1), direction=LT
}

%step (p.2: (f32[8], s32[])) -> (f32[8], s32[]) {
  %p.2 = (f32[8]{0}, s32[]) parameter(0)
  ROOT %w = (f32[8]{0}, s32[]) while(%p.2), condition=%more, body=%inner
}

ENTRY %main (q: (f32[8], s32[])) -> (f32[8], s32[]) {
  %q = (f32[8]{0}, s32[]) parameter(0)
  ROOT %v = (f32[8]{0}, s32[]) while(%q), condition=%more, body=%step
}
"""


def test_a_loop_of_unknown_length_inside_a_step_counts_once_and_is_noted():
    kernels, notes = step_kernels(parse(NESTED))
    assert [kernel.instruction.name for kernel in kernels] == ["lt", "lt", "b"]
    assert notes == ["The loop w runs an unknown number of times. It is counted once."]


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no entry computation"):
        parse("HloModule nothing")


def test_types_are_read_with_their_bits():
    assert arrays("(f32[2,3]{1,0}, bf16[4]{0:S(5)}, pred[], /*index=3*/f8e4m3fn[5], token[])") == (
        ArrayType("f32", (2, 3), 32),
        ArrayType("bf16", (4,), 16),
        ArrayType("pred", (), 8),
        ArrayType("f8e4m3fn", (5,), 8),
    )
    assert ArrayType("s4", (3,), 4).nbytes == 2


def test_call_stacks_are_read_outermost_first():
    found = program("loop")
    tanh = found.find("tanh.1.1")[1]
    assert [frame.function for frame in found.stack(tanh)][-1].endswith("<lambda>")
    assert {frame.file for frame in found.stack(tanh)} == {"program.py"}
    assert pass_of(tanh) == "other"
    copy = found.find("copy.8")[1]
    assert found.stack(copy) == ()
    assert module_of(found, copy, object()) == UNKNOWN


def test_what_has_no_source_belongs_to_the_loop_around_it():
    found = program("pallas_loop")
    copy = found.find("copy.5")[1]
    assert found.attributed(copy).opcode == "while"
    assert found.attributed(found.find("copy.8")[1]).opcode == "copy"


def test_a_kernel_takes_its_bytes_or_its_flops_and_its_launch():
    assert H200.seconds(0, {}) == LAUNCH_SECONDS
    assert H200.seconds(4_148_000_000, {"float32": 1e6}) == pytest.approx(1e-3 + LAUNCH_SECONDS)
    assert H200.seconds(8, {"tf32": 250e9}) == pytest.approx(1e-3 + LAUNCH_SECONDS)


@pytest.mark.parametrize("name", TARGETS)
def test_rates_are_the_measured_share_of_the_nominal_ones(name):
    target = find_target(name)
    for rate in RATES:
        share = target.achieved(rate) / target.flops_per_second[rate]
        assert share == pytest.approx(MEASURED_FLOPS_PER_SECOND[rate] / H200.flops_per_second[rate])
        assert 0 < share < 1


def test_an_unknown_target_is_refused_with_the_legal_ones():
    with pytest.raises(UserError, match="unknown target 'b200'; --target takes h200 or a100"):
        find_target("b200")
