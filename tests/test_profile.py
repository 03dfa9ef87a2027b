"""`bench --profile`: every traced second is in the table once, under the module that it belongs to."""

import json
import sys

import pytest

from lra_bench import cli
from lra_bench.bench.case import NetworkCase
from lra_bench.bench.costs import summed, total
from lra_bench.bench.hlo import parse
from lra_bench.bench.kernels import KINDS
from lra_bench.bench.plan import BenchRequest, plan
from lra_bench.bench.profile import PROFILED_STEPS, Event, covered, kernels_of, own_seconds, profile, read_trace
from tests.test_kernels import NESTED, TEXTS

SMALL = {"n_layers": 2, "d_model": 16}


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    request = BenchRequest(
        precision="float32", models=["s5"], tasks=["listops"], lengths="32", batch=2, overrides=SMALL
    )
    ((run, shape, _),) = plan(request)
    return profile(NetworkCase(run, shape, None, False), tmp_path_factory.mktemp("trace"))


@pytest.mark.slow
def test_kernels_add_up_to_what_was_traced(profiled):
    (trace,) = profiled.folder.glob("*.xplane.pb")
    own = own_seconds(read_trace(trace))
    traced = sum(seconds for _, seconds in own) / profiled.steps
    assert total(kernel.cost for kernel in profiled.kernels).seconds == pytest.approx(traced)
    assert sum(kernel.cost.kernels for kernel in profiled.kernels) == pytest.approx(len(own) / profiled.steps)
    assert all(seconds > -1e-9 for _, seconds in own)


def test_kernels_cover_a_part_of_the_wall_time(profiled):
    assert 0 < profiled.covered_seconds <= profiled.wall_seconds
    assert profiled.peak_bytes > 0
    assert profiled.peak_source == "compiler estimate"  # a CPU does not count


def test_every_part_of_the_network_has_its_time(profiled):
    modules = summed(profiled.kernels, lambda kernel: kernel.module)
    assert {"blocks/norm", "blocks/gate", "optimizer"} <= set(modules)
    assert any(name.startswith("blocks/layer") for name in modules)
    assert any(name.startswith("encoder") for name in modules)
    assert {kernel.kind for kernel in profiled.kernels} <= set(KINDS)
    assert summed(profiled.kernels, lambda kernel: kernel.kind)["product"].flops > 0
    gate = [kernel.part for kernel in profiled.kernels if kernel.module == "blocks/gate"]
    assert {"forward", "backward"} <= set(gate)


def test_an_event_owns_its_time_without_that_of_the_events_within_it():
    loop, first, second = (
        Event("while", "jit_f", "a", 0.0, 10.0),
        Event("add", "jit_f", "a", 1.0, 3.0),
        Event("mul", "jit_f", "a", 3.0, 4.0),
    )
    elsewhere = Event("dot", "jit_f", "b", 2.0, 9.0)
    assert dict(own_seconds([second, elsewhere, loop, first])) == {loop: 7.0, first: 2.0, second: 1.0, elsewhere: 7.0}


def test_a_kernel_is_found_by_its_own_name_and_what_is_not_in_the_program_is_kept_apart():
    program = parse((TEXTS / "loop.txt").read_text())
    names = ["input_reduce_fusion", "loop_add_fusion_1", "Memcpy D2D", "tanh"]
    events = [Event(name, "", "Stream #1", float(i), i + 0.5) for i, name in enumerate(names)]
    events.append(Event("input_reduce_fusion", "jit_another", "Stream #1", 9.0, 10.0))
    found = kernels_of(program, events, object())
    assert [(kernel.kind, kernel.op_name.split("/")[-1]) for kernel in found[:1]] == [("other", "input_reduce_fusion")]
    assert sorted(kernel.kind for kernel in found) == ["elementwise", "other", "other", "other", "reduction"]
    assert total(kernel.cost for kernel in found).seconds == pytest.approx((4 * 0.5 + 1) / PROFILED_STEPS)


def test_time_in_which_two_kernels_run_is_covered_once_and_a_loop_covers_none():
    events = [Event("w", "", "a", 0.0, 10.0), Event("b", "", "a", 1.0, 3.0), Event("lt", "", "b", 2.0, 4.0)]
    assert covered(parse(NESTED), events) == pytest.approx(3.0)


@pytest.mark.slow
def test_the_command_prints_a_table_and_writes_no_record(monkeypatch, capsys, tmp_path):
    words = ["--task", "listops", "--lengths", "32", "--batch", "2", "--smoke", "--profile"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lra-bench", "bench", *words, "--top", "2"])
    cli.app(standalone_mode=False)
    out = capsys.readouterr().out
    assert "S5 on listops, batch 2 × 32, float32: one training step" in out
    assert "100.0%" in out
    assert "Kernels ran in" in " ".join(out.split())
    monkeypatch.setattr(sys, "argv", ["lra-bench", "bench", *words, "--json"])
    cli.app(standalone_mode=False)
    (found,) = json.loads(capsys.readouterr().out)["profiles"]
    assert sum(cost["seconds"] for cost in found["by_module"].values()) == pytest.approx(found["total"]["seconds"])
    assert not (tmp_path / "results").exists()
