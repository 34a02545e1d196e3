import signal

import pytest

from yolo.engine.interruption import Interrupted, Interruption


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_remembered_and_the_handlers_come_back(number) -> None:
    seen = []
    before = {n: signal.signal(n, lambda n, frame: seen.append(n)) for n in (2, 15)}
    try:
        with Interruption() as interruption:
            assert not interruption()
            signal.raise_signal(number)  # neither ends the process nor raises
            assert interruption() and interruption.signal_number == number
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            assert interruption.signal_number == number
        assert seen == []
        signal.raise_signal(number)
        assert seen == [number]
        with pytest.raises(KeyError), Interruption():
            raise KeyError
        signal.raise_signal(number)
        assert seen == [number, number]
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)


def test_the_exit_code_is_the_shells() -> None:
    assert Interrupted(signal.SIGTERM).exit_code == 143
    assert Interrupted(signal.SIGINT).exit_code == 130
    assert str(Interrupted(signal.SIGINT)) == "stopped by SIGINT"
