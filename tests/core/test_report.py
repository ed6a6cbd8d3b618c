"""The report's numbers and its three forms; measuring on real models is under test in tests/core/test_cli.py."""

import json

import pytest

from nnc.graph.plan import Group, Kept, Member, Plan
from nnc.latency import Latency
from nnc.report import Footprint, Report


@pytest.fixture(name="report")
def give_report():
    before = Footprint(parameters=1000, bytes=4096, macs=2000, channels={"conv1": 20, "fc<2>": 10})
    after = Footprint(parameters=250, bytes=1024, macs=500, channels={"conv1": 10, "fc<2>": 10})
    latency = Latency(before=0.004, after=0.001, batch=8, repeats=30, hardware="an abacus, 2 cores")
    heads = {"start": 0, "outer": 1, "size": 12, "inner": 64, "removed": (2, 5)}
    group = Group((Member("layers.3.query.weight", 0, **heads), Member("layers.3.output.weight", 1, **heads)))
    plan = Plan(groups=(group,), kept=(Kept("conv9 output channels", 3, "aten.cumsum pins them"),))
    return Report(before, after, latency, plan, difference=1.5e-7)


def test_the_table_shows_before_after_and_ratio(report):
    lines = [line.split() for line in str(report).splitlines()]

    assert ["│", "parameters", "│", "1,000", "│", "250", "│", "0.25", "│"] in lines
    assert ["│", "latency", "│", "4.00", "ms", "│", "1.00", "ms", "│", "0.25", "│"] in lines


def test_the_conditions_of_the_latency_are_named(report):
    assert "batch 8, median of 30 runs by turns on an abacus, 2 cores" in str(report)


def test_what_had_to_stay_is_named_with_its_reason(report):
    assert "kept: 3 of conv9 output channels: aten.cumsum pins them" in str(report)


def test_the_removed_heads_of_each_layer_are_named(report):
    assert "layer 3 prune 2 head: [2, 5]" in str(report)


def test_the_difference_between_masked_and_small_is_shown(report):
    assert "1.5e-07" in str(report)


def test_the_dict_is_plain_data(report):
    data = json.loads(report.to_json())

    assert data["parameters"] == [1000, 250]
    assert data["channels"] == {"conv1": [20, 10], "fc<2>": [10, 10]}
    assert Plan.from_dict(data["plan"]) == report.plan


def test_the_page_is_self_contained(report, tmp_path):
    report.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")

    assert page.count("data:image/svg+xml;base64,") == 2
    assert "http" not in page
    assert "src=" in page and 'src="data:' in page and page.count("src=") == 2


def test_a_model_without_macs_still_has_a_report(tmp_path):
    nothing = Footprint(parameters=1, bytes=4, macs=0, channels={})
    report = Report(nothing, nothing, Latency(1.0, 1.0, 1, 1, "here"))

    report.to_html(tmp_path / "report.html")

    assert report.to_dict()["plan"] is None
    assert "MACs per sample" in str(report)
