import pytest

from nnc.latency import hardware, medians_by_turns, turns_within


def test_calls_are_timed_by_turns_after_the_warm_up():
    order = []

    medians_by_turns([lambda: order.append("a"), lambda: order.append("b")], repeats=2, warm_up=1)

    assert order == ["a", "b"] * 3


def test_each_call_has_its_own_median(monkeypatch):
    ticks = iter([0, 1, 0, 10, 0, 2, 0, 20, 0, 9, 0, 90])
    monkeypatch.setattr("nnc.latency.perf_counter", lambda: next(ticks))

    assert medians_by_turns([int, int], repeats=3, warm_up=0) == [2, 20]


@pytest.mark.parametrize(("seconds", "turns"), [(0.001, 30), (1.0, 10), (60.0, 5)])
def test_slow_calls_take_fewer_turns(monkeypatch, seconds, turns):
    clock = iter([0.0, seconds, 0.0, seconds])
    monkeypatch.setattr("nnc.latency.perf_counter", lambda: next(clock))

    assert turns_within(20.0, [int, int]) == turns


def test_the_hardware_names_the_cores_and_the_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    assert "cores, OMP_NUM_THREADS=1" in hardware()
