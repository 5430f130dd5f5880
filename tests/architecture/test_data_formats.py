"""What comes from outside is JSON or TOML and never becomes code: nothing is loaded by which a text could run."""

import ast

from tests.architecture.source import Module, called_names, imported_names, modules

# Formats that run, build or fetch what the text says, and archives, which write where the text says.
NEVER_IMPORTED = {
    "cloudpickle", "dill", "joblib", "jsonpickle", "lxml", "marshal", "pickle", "ruamel", "shelve", "tarfile", "xml",
    "yaml", "zipfile",
}  # fmt: skip
NEVER_CALLED = {"eval", "exec", "compile", "__import__", "shutil.unpack_archive", "builtins.eval", "builtins.exec"}


def test_nothing_is_imported_that_runs_what_it_reads() -> None:
    strays = [stray for module in modules("src") for stray in _imports(module)]

    assert not strays, "\n".join(strays)


def test_no_text_becomes_code() -> None:
    strays = [
        module.at(call, f"calls {name}")
        for module in modules("src")
        for call, name in called_names(module.tree)
        if name in NEVER_CALLED
    ]

    assert not strays, "\n".join(strays)


def test_the_rules_see_what_they_forbid() -> None:
    text = "import pickle\nfrom yaml import load\nimport xml.etree.ElementTree\nimport json\nfrom pickle import loads"
    module = Module("src/x.py", text, ast.parse(text))

    assert [stray.split(":")[1] for stray in _imports(module)] == ["1", "2", "3", "5"]
    assert [name for _, name in called_names(ast.parse("eval(x); re.compile(x)")) if name in NEVER_CALLED] == ["eval"]


def _imports(module: Module) -> list[str]:
    return [
        module.at(node, f"imports {name}")
        for node, name in imported_names(module.tree)
        if name.split(".")[0] in NEVER_IMPORTED
    ]
