"""mosaik: two simulators in its own process that hand each other one number a step."""

import sys
import time
from collections.abc import Callable
from typing import Any

DISTRIBUTION = "mosaik"
STEPS = 2000


def ready() -> Callable[[], tuple[float, Any]]:
    import mosaik
    import mosaik_api_v3
    from loguru import logger

    logger.remove()
    model = {"Model": {"public": True, "params": [], "attrs": ["x", "y"]}}

    class Counter(mosaik_api_v3.Simulator):  # type: ignore[misc]
        """Says the step it is at, and keeps what it hears."""

        def __init__(self) -> None:
            super().__init__({"api_version": "3.0", "type": "time-based", "models": model})
            self.said, self.steps = 0, 0

        def init(self, sid: str, time_resolution: float = 1.0, **given: Any) -> Any:
            return self.meta

        def create(self, num: int, model: str, **given: Any) -> Any:
            return [{"eid": "only", "type": model}]

        def step(self, time: int, inputs: Any, max_advance: int) -> int:
            self.said, self.steps = time, self.steps + 1
            return time + 1

        def get_data(self, outputs: Any) -> Any:
            return {"only": {"x": self.said}}

    sys.modules["counter"] = type(sys)("counter")
    sys.modules["counter"].Counter = Counter  # type: ignore[attr-defined]

    def run() -> tuple[float, Any]:
        with mosaik.World({name: {"python": "counter:Counter"} for name in "AB"}) as world:
            a, b = (world.start(name).Model() for name in "AB")
            world.connect(a, b, ("x", "y"))
            world.connect(b, a, ("x", "y"), time_shifted=True, initial_data={"x": 0})
            begun = time.perf_counter()
            world.run(until=STEPS, print_progress=False)
            return (time.perf_counter() - begun) / STEPS, STEPS

    run()
    return run
