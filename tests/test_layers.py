"""The rooms import only from rooms above them, and the light ones never load torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sfumato
from tests import ROOT

SOURCE = Path(sfumato.__file__).parent

# Earlier layers may not import from later ones; modules of one layer may import each other without a cycle.
LAYERS = [
    ["units", "words", "config", "systems", "frames", "files"],
    ["execution"],
    ["graph", "metrics", "report"],
    ["io", "reference.scans"],
    ["potentials.potential"],
    ["models"],
    ["potentials"],
    ["dynamics"],
    ["reference"],
    ["datasets"],
    ["jobs"],
    ["training", "testing", "campaigns"],
    ["protocols"],
    ["study"],
    ["commands", "cli"],
]
LIGHT = ["systems", "metrics", "reference.scans", "execution", "report", "dynamics", "jobs", "protocols"]


def modules():
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        yield name.removesuffix(".__init__"), path


def layer(module):
    """The number of a module's layer; the longest matching room counts."""
    matches = [
        (len(room), number)
        for number, rooms in enumerate(LAYERS)
        for room in rooms
        if module == room or module.startswith(room + ".")
    ]
    return max(matches)[1] if matches else None


def imports(path):
    """Names inside sfumato that a file imports, at the top, lazily or for type checking only."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("sfumato.") for name in names if name.startswith("sfumato."))


def edges():
    known = {name for name, _ in modules()}
    for name, path in modules():
        for wanted in imports(path):
            parts = wanted.split(".")
            heads = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
            target = next((head for head in heads if head in known), name)
            if target != name:
                yield name, target


def test_every_module_has_a_room():
    assert [name for name, _ in modules() if layer(name) is None] == ["__init__"]


def test_imports_go_up_only():
    wrong = [f"{a} → {b}" for a, b in edges() if a != "__init__" and layer(b) > layer(a)]
    assert not wrong, wrong


def test_there_is_no_cycle():
    graph = {}
    for a, b in edges():
        graph.setdefault(a, set()).add(b)
    done, open_ = set(), []

    def visit(name):
        assert name not in open_, f"import cycle: {' → '.join([*open_, name])}"
        if name not in done:
            open_.append(name)
            for target in graph.get(name, ()):
                # A package's __init__ and its own submodules are one unit.
                if not target.startswith(name + ".") and not name.startswith(target + "."):
                    visit(target)
            open_.pop()
            done.add(name)

    for name in list(graph):
        visit(name)


def test_the_layer_test_sees_a_wrong_import(tmp_path):
    file = tmp_path / "bad.py"
    file.write_text("def f():\n    from sfumato.protocols import run\n")
    (target,) = imports(file)
    assert target == "protocols.run"
    assert layer(target) > layer("metrics.stats")


def loaded(statement):
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


@pytest.mark.parametrize("room", LIGHT)
def test_light_rooms_import_without_torch(room):
    names = [name for name, _ in modules() if name == room or name.startswith(room + ".")]
    assert names
    statement = "import " + ", ".join(f"sfumato.{name}" for name in names)
    assert not {"torch", "rdkit", "tblite", "pyscf"} & loaded(statement)


def test_importing_the_package_loads_nothing_heavy():
    assert not {"torch", "ase", "scipy", "h5py", "numpy", "plotly"} & loaded("import sfumato")


def test_files_and_functions_stay_small():
    for name, path in modules():
        text = path.read_text()
        assert text.count("\n") <= 500, f"{name} has more than 500 lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                limit = 100 if node.name == "forward" else 60
                length = node.end_lineno - node.lineno + 1
                assert length <= limit, f"{name}.{node.name} has {length} lines"


def test_files_of_tests_and_benchmarks_stay_small():
    files = [path for folder in ("tests", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    assert [str(path) for path in files if path.read_text().count("\n") > 500] == []
