"""Imports point left only, there is no cycle, files and functions stay short."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# Left to right; rooms of one layer do not import each other.
LAYERS = [
    ["core"],
    ["data", "diffusion", "ot", "nn"],
    ["training"],
    ["models", "baselines", "metrics"],
    ["registry", "report"],
    ["runs"],
    ["api"],
    ["jobs"],
    ["devices", "progress"],
    ["commands"],
    ["cli"],
    ["__main__"],
    ["experiments"],
]
RANK = {room: rank for rank, layer in enumerate(LAYERS) for room in layer}
FILES = [
    path
    for folder in ("jaxehr", "experiments")
    for path in sorted((ROOT / folder).rglob("*.py"))
    # The first holds the public names, loaded on first use.
    if path not in (ROOT / "jaxehr/__init__.py", ROOT / "jaxehr/runs/__init__.py")
]


def room(module: str) -> str | None:
    """ "jaxehr.nn.gru" -> "nn"; None for what is not ours."""
    top, _, rest = module.partition(".")
    return (
        top if top == "experiments" else rest.split(".")[0] if top == "jaxehr" else None
    )


def imports(path: pathlib.Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            package = (ROOT / str(node.module).replace(".", "/")).is_dir()
            found += names if package else [str(node.module)]
    return [name for name in found if room(name)]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_left(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    mine = room(".".join(parts))
    for name in imports(path):
        other = room(name)
        assert other in RANK, f"{path}: {name} is in no layer"
        assert other == mine or RANK[other] < RANK[mine], f"{path} imports {name}"


def test_no_cycle_between_modules():
    graph = {}
    for path in FILES:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        graph[module.removesuffix(".__init__")] = imports(path)

    def visit(module, trail):
        assert module not in trail, f"cycle: {' -> '.join([*trail, module])}"
        for other in graph.get(module, []):
            visit(other, [*trail, module])

    for module in graph:
        visit(module, [])


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno + 1 <= 50, f"{path}: {node.name}"
