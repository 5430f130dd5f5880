"""Makes `src.orchestrator.main`, imported from the root of the repository, the module `orchestrator.main` itself.

Each module exists once in a process, under both names: the app of `src.orchestrator.main` takes an override whose key
is `src.orchestrator.api.get_orchestrator_service`. See docs/decisions/0001-package-names.md.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent
PREFIX = f"{__name__}."


class Alias(Loader):
    """Puts a module that is imported by its installed name under its second name."""

    def exec_module(self, module: ModuleType) -> None:
        # The import system returns what stands here when this is done, and not the module that it made.
        sys.modules[module.__name__] = import_module(module.__name__.removeprefix(PREFIX))


class Aliases(MetaPathFinder):
    """Finds `src.name` where `name` is found in this directory."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(PREFIX):
            return None
        found = find_spec(fullname.removeprefix(PREFIX))
        if found is None or found.origin is None or ROOT not in Path(found.origin).parents:
            return None
        alias = ModuleSpec(fullname, Alias(), origin=found.origin)
        alias.submodule_search_locations = found.submodule_search_locations
        return alias


# Without an installation the packages are found beside this file.
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))
sys.meta_path.insert(0, Aliases())
