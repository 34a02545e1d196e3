"""Every property with few trials; `make faults` runs the full number.

The trials are forked from one process that imports everything once and does nothing else.
"""

from collections.abc import Iterator

import pytest

from tests.faults import golden, soak
from tests.faults.properties import all_properties
from tests.faults.run import Server
from tests.faults.trial import Property

KILLS = 50
"""In `make test-slow`."""


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("faults"))
    yield started
    started.close()


def check(server: Server, name: str, seeds: range) -> None:
    for seed in seeds:
        result = server.run(name, seed)
        if result.outcome == "skipped":
            pytest.skip(result.message)
        assert result.outcome == "passed", (seed, result.message)


@pytest.mark.parametrize(
    "property_", [pytest.param(p, id=p.name) for p in all_properties() if p.quick]
)
def test_property(server: Server, property_: Property) -> None:
    check(server, property_.name, range(property_.quick))


@pytest.mark.parametrize("steps_for_one_more", [3_000, None])
def test_the_soak_tells_a_leak_from_a_file_that_is_open_for_a_moment(
    steps_for_one_more: int | None,
) -> None:
    readings = []
    for step in range(0, 20_000, 10):
        leaked = 0 if steps_for_one_more is None else step // steps_for_one_more
        open_now = (step % 170 == 0) + (step % 970 == 0)
        readings.append(soak._Reading(step, 10**9, descriptors=6 + open_now + leaked, threads=3))
    readings.append(soak._Reading(20_000, 0, descriptors=0, threads=1))  # it is ending
    if steps_for_one_more is None:
        soak._check(readings, 20_000)
    else:
        with pytest.raises(AssertionError, match="descriptors"):
            soak._check(readings, 20_000)


@pytest.mark.slow
def test_kills(server: Server) -> None:
    check(server, "kill_and_resume", range(KILLS))


@pytest.mark.slow
def test_all_golden_losses(server: Server) -> None:
    check(server, "golden_losses", range(len(golden.NAMES)))
