"""A supervisor of toys: runs the plan in the file it is given."""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from runlane.actors.supervisor import Supervisor
from runlane.actors.topology import ChildSpec, Topology
from runlane.config.settings import Settings
from runlane.transport.log import configure_log


class ToyTopology(Topology):
    """Specs from the plan instead of the settings."""

    def __init__(self, settings: Settings, plan: dict[str, Any]) -> None:
        super().__init__(settings, 0)
        self._plan = plan

    def specs(self) -> list[ChildSpec]:
        return [ChildSpec(**spec) for spec in self._plan["specs"]]

    def proxy(self, worker: str, run: str, run_name: str, keeper_pid: int = 0) -> ChildSpec:
        del keeper_pid
        command = self._plan["broken" if worker == "broken" else "proxy"]
        return ChildSpec(
            name=f"proxy-{worker}",
            kind="proxy",
            command=command,
            restart="transient",
            reports_heartbeat=True,
            environment={"TOY_RUN_NAME": run_name},
            worker=worker,
            run=run,
        )


def main() -> int:
    plan = json.loads(Path(sys.argv[1]).read_text())
    settings = msgspec.convert(plan["settings"], Settings)
    configure_log("supervisor", "INFO")
    return Supervisor(settings, topology=ToyTopology(settings, plan)).run()


if __name__ == "__main__":
    sys.exit(main())
