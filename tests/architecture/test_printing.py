"""Text reaches a terminal through one module, which makes it safe, and through no other."""

import ast

from tests.architecture.source import Module, called_names, dotted_name, imported_names, modules, walked

LAYER = "src/chiffon/cli/console.py"
# What the layer writes to: streams that never fail.
BELOW = "src/chiffon/cli/streams.py"
PRINTS = {"print", "pprint.pprint", "os.write", "traceback.print_exc", "traceback.print_exception"}
STREAMS = {"stdout", "stderr", "__stdout__", "__stderr__"}


def test_no_module_prints_but_the_one_that_makes_text_safe() -> None:
    wrong = [
        line for module in modules("src/chiffon") if module.path not in (LAYER, BELOW) for line in printing(module)
    ]

    assert wrong == []


def test_the_layer_prints_nothing_that_did_not_pass_the_filter() -> None:
    [layer] = [module for module in modules("src/chiffon") if module.path == LAYER]
    unsafe = [
        function.name
        for function in walked(layer.tree)
        if isinstance(function, ast.FunctionDef)
        and not function.name.startswith("_")
        and printing_in(layer, function)
        and not {"shown", "shown_output"} & {name for _, name in called_names(ast.Module([function], []))}
    ]

    # The sequence that clears a line is the layer's own, and whether a terminal reads it prints nothing.
    assert set(unsafe) <= {"clear_last_line", "is_terminal"}


def test_a_module_that_prints_is_found() -> None:
    text = (
        "import sys, rich\n"
        "from rich.console import Console\n"
        "print('a')\n"
        "sys.stdout.write('b')\n"
        "to = sys.stderr\n"
        "from sys import stdout\n"
    )

    assert len(printing(Module("src/chiffon/cli/made_up.py", text, ast.parse(text)))) == 6


def printing(module: Module) -> list[str]:
    """Return where a module prints, or takes hold of a stream with which it could."""
    imported = [
        module.at(node, f"imports {name}") for node, name in imported_names(module.tree) if name.split(".")[0] == "rich"
    ]
    return imported + printing_in(module, module.tree)


def printing_in(module: Module, part: ast.AST) -> list[str]:
    found = []
    for node in walked(part):
        match node:
            case ast.Call(func=ast.Name(id="print")):
                found.append(module.at(node, "prints"))
            case ast.Call() if dotted_name(node.func) in PRINTS:
                found.append(module.at(node, f"calls {dotted_name(node.func)}"))
            case ast.Attribute(value=ast.Name(id="sys"), attr=str(name)) if name in STREAMS:
                found.append(module.at(node, f"uses sys.{name}"))
            case ast.ImportFrom(module="sys", names=names) if STREAMS & {one.name for one in names}:
                found.append(module.at(node, "imports a stream"))
            case _:
                pass
    return found
