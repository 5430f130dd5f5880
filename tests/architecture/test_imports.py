"""Every package that the program imports is one that it asks for by name."""

import sys
import tomllib
from importlib.metadata import packages_distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.architecture.source import ROOT, imported_names, modules

OURS = frozenset({"agents", "chiffon", "common", "orchestrator"})
# Files that another program imports, with its own packages.
FOR_OTHERS = {"src/agents/executors/ansible_summary.py": "Ansible runs it"}


def test_every_package_that_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    provided = packages_distributions()

    missing = [
        module.at(node, f"imports {name}, which pyproject.toml does not declare")
        for module in modules("src")
        if module.path not in FOR_OTHERS
        for node, name in imported_names(module.tree)
        if (top := name.partition(".")[0]) not in sys.stdlib_module_names | OURS
        and not {canonicalize_name(one) for one in provided.get(top, [top])} & declared
    ]

    assert not missing, "\n".join(missing)


def test_the_version_is_said_in_one_place() -> None:
    from chiffon import __version__
    from common.version import VERSION

    said = [module.path for module in modules("src") if f'"{VERSION}"' in module.text]

    assert __version__ == VERSION
    assert said == ["src/common/version.py"]
    assert f'"{VERSION}"' not in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
