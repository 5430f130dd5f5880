"""A plugin of coverage.py: `--cov=src.orchestrator.api` measures the module that runs as `orchestrator.api`."""

from coverage.plugin import CoveragePlugin
from coverage.plugin_support import Plugins
from coverage.types import TConfigurable

PREFIX = "src."


class InstalledNames(CoveragePlugin):
    """Measures what is given by its name from the root of the repository under the name that it runs by."""

    def configure(self, config: TConfigurable) -> None:
        given = config.get_option("run:source")
        if isinstance(given, list):
            config.set_option("run:source", [name.removeprefix(PREFIX) for name in given])
        # Processes that the tests start inherit the names as they are now, and cannot import this.
        config.set_option("run:plugins", [])


def coverage_init(reg: Plugins, _options: object) -> None:
    reg.add_configurer(InstalledNames())
