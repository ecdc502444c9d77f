"""The rules of the house that a reader cannot see in one file: who may import whom, and what only one room may do.

A room is a module or package directly below dcmerge (dcmerge/errors.py, dcmerge/methods/). Imports are read from
the syntax tree, those inside functions and below TYPE_CHECKING included; nothing is executed.
"""

import ast
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = "dcmerge"
FACADE = "__init__"  # dcmerge/__init__.py: the names for users of the library

#: From the ground up: a room may import only the rooms before it.
ORDER = ["errors", "runtime", "checkpoints", "spectral", "vectors", "evaluation", "zoo", "sets", "methods", "merging", "runs"]
ORDER += ["studies", "jobs", "plots", "reports", "cli", "ui"]
#: The two faces stand side by side: neither knows the other.
FACES = {"cli", "ui"}
DOORS = {FACADE, "__main__"}


def sources(*folders: str) -> list[Path]:
    """Every Python file below these files and folders of the repository, sorted."""
    found: list[Path] = []
    for folder in folders:
        path = REPOSITORY / folder
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path] * path.exists()
    return found


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported_modules(node: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported; "from a import b" gives "a.b", relative names are made absolute.

    package: the package that the module lies in ("dcmerge.methods" for dcmerge/methods/ties.py).
    """
    for statement in ast.walk(node):
        if isinstance(statement, ast.Import):
            yield from ((statement.lineno, alias.name) for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            base = statement.module or ""
            if statement.level:
                parents = package.split(".")
                kept = parents[: len(parents) - statement.level + 1]
                base = ".".join([*kept, *filter(None, [base])])
            yield from ((statement.lineno, f"{base}.{alias.name}") for alias in statement.names)


def package_of(path: Path) -> str:
    """Dotted name of the folder that a file lies in, relative to the repository."""
    return ".".join(path.relative_to(REPOSITORY).parent.parts)


def imports(path: Path) -> list[tuple[int, str]]:
    return list(imported_modules(tree(path), package_of(path)))


def room_of(path: Path) -> str:
    """The room that a file of the package belongs to."""
    return path.relative_to(REPOSITORY / PACKAGE).parts[0].removesuffix(".py")


def known_rooms() -> set[str]:
    return {room_of(path) for path in sources(PACKAGE)}


def room_named(dotted: str, rooms: set[str]) -> str | None:
    """The room that an import reaches, None outside the package; "dcmerge.merge" is a name of the facade."""
    first, _, rest = dotted.partition(".")
    if first != PACKAGE:
        return None
    second = rest.partition(".")[0]
    return second if second in rooms else FACADE


def between_rooms() -> Iterator[tuple[str, str, str]]:
    """(room, room it imports, "file:line imports name") for every import that leaves its room."""
    rooms = known_rooms()
    for path in sources(PACKAGE):
        for line, dotted in imports(path):
            target = room_named(dotted, rooms)
            if target not in (None, room_of(path)):
                yield room_of(path), target, f"{path.relative_to(REPOSITORY)}:{line} imports {dotted}"


def runs_back_up(room: str, target: str) -> bool:
    """Whether an import of `target` in `room` goes against the order; the doors see everything and nobody sees them."""
    if room in DOORS:
        return room == FACADE and target in FACES
    if target == FACADE:
        return room not in FACES
    return target not in ORDER[: ORDER.index(room)] or {room, target} == FACES


def test_the_house_has_these_rooms() -> None:
    assert known_rooms() == {*ORDER, *DOORS}


def test_imports_point_one_way() -> None:
    wrong = [text for room, target, text in between_rooms() if runs_back_up(room, target)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("room", "target", "expected"),
    [
        ("methods", "vectors", False),
        ("vectors", "methods", True),
        ("ui", "cli", True),
        ("cli", "ui", True),
        ("merging", FACADE, True),
        ("cli", FACADE, False),
        (FACADE, "ui", True),
        ("__main__", "cli", False),
    ],
)
def test_an_import_that_runs_back_up_is_seen(room: str, target: str, expected: bool) -> None:
    assert runs_back_up(room, target) is expected


def test_only_the_pages_know_streamlit() -> None:
    wrong = [
        f"{path.relative_to(REPOSITORY)}:{line} imports {dotted}"
        for path in sources(PACKAGE)
        if room_of(path) != "ui"
        for line, dotted in imports(path)
        if dotted.split(".")[0] == "streamlit"
    ]
    assert not wrong, "\n".join(wrong)


def test_pages_do_no_mathematics() -> None:
    computing = {"torch", "numpy", "scipy", "open_clip", "safetensors"}
    wrong = [
        f"{path.relative_to(REPOSITORY)}:{line} imports {dotted}"
        for path in sources("app.py", "pages")
        for line, dotted in imports(path)
        if dotted.split(".")[0] in computing
    ]
    assert not wrong, "\n".join(wrong)


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a file with the dotted text of what is called."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def is_constant(call: ast.Call, keyword: str, value: object) -> bool:
    """Whether the call passes this very value for the keyword."""
    return any(k.arg == keyword and isinstance(k.value, ast.Constant) and k.value.value is value for k in call.keywords)


UNPICKLERS = re.compile(r"((_?pickle|dill|joblib|cloudpickle)\.)?(_?Unpickler)")
#: The one reader of pickles: its class finds names in a vocabulary of its own, and never a module.
RESTRICTED_READER = f"{PACKAGE}/checkpoints/pickles/reading.py"


def unpickling(path: Path, place: str) -> Iterator[str]:
    """What in a file would run code out of a pickle."""
    for _, dotted in imports(path):
        if re.fullmatch(r"(_?pickle|dill|joblib|cloudpickle)\.(loads?|_?Unpickler)", dotted):
            yield f"{place} imports {dotted} by name"
    for called, call in calls(path):
        if re.fullmatch(r"(_?pickle|dill|joblib|cloudpickle)\.(loads?|_?Unpickler)", called):
            yield f"{place}:{call.lineno} calls {called}, which runs code from the file"
        elif called == "torch.load" and not is_constant(call, "weights_only", True):
            yield f"{place}:{call.lineno} calls torch.load without weights_only=True"
        elif called == "torch.load" and package_of(path) != f"{PACKAGE}.checkpoints":
            yield f"{place}:{call.lineno} calls torch.load: only dcmerge.checkpoints opens files"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ClassDef) and any(UNPICKLERS.fullmatch(ast.unparse(base)) for base in node.bases):
            own = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
            if place != RESTRICTED_READER:
                yield f"{place}:{node.lineno} derives from a pickle's reader: only {RESTRICTED_READER} may"
            elif not {"find_class", "persistent_load"} <= set(own):
                yield f"{place}:{node.lineno} leaves it to pickle to find classes or to load by reference"
            elif ast.unparse(own["find_class"].body[-1]) != "return self._words.find(module, name)":
                yield f"{place}:{node.lineno} finds classes elsewhere than in its vocabulary"


def test_weights_are_never_unpickled() -> None:
    wrong = [text for path in sources(PACKAGE, "app.py", "pages") for text in unpickling(path, str(path.relative_to(REPOSITORY)))]
    assert not wrong, "\n".join(wrong)


def test_the_reader_of_pickles_imports_nothing_by_name() -> None:
    """Neither of the modules that decide what a name in a pickle means can reach a module by its name."""
    wrong = []
    for path in sources(f"{PACKAGE}/checkpoints/pickles/reading.py", f"{PACKAGE}/checkpoints/pickles/vocabulary.py"):
        forbidden = r"(__import__|eval|exec|compile|globals|vars|importlib\..*|super\(\)\.find_class|operator\..*)"
        wrong += [f"{path.name}:{call.lineno} {called}" for called, call in calls(path) if re.fullmatch(forbidden, called)]
        names = {dotted.split(".")[0] for _, dotted in imports(path)}
        wrong += [f"{path.name} imports {name}" for name in names & {"importlib", "builtins", "operator", "os", "sys"}]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.loads(b'')",
        "from pickle import load",
        "import pickle\nclass A(pickle.Unpickler):\n    def find_class(self, m, n):\n        return None",
        "from pickle import Unpickler\nclass A(Unpickler): ...",
        "import torch\ntorch.load('a', weights_only=False)",
    ],
)
def test_every_way_to_unpickle_is_seen(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "REPOSITORY", tmp_path)
    path = tmp_path / PACKAGE / "elsewhere.py"
    path.parent.mkdir()
    path.write_text(source)
    assert list(unpickling(path, f"{PACKAGE}/elsewhere.py"))


def test_no_text_is_shown_as_raw_html() -> None:
    wrong = [
        f"{path.relative_to(REPOSITORY)}:{call.lineno}"
        for path in sources(f"{PACKAGE}/ui", "app.py", "pages")
        for _, call in calls(path)
        if any(keyword.arg == "unsafe_allow_html" for keyword in call.keywords)
    ]
    assert not wrong, "\n".join(wrong)


def test_pages_are_found_by_folder_alone() -> None:
    """st.navigation beside a folder pages/ breaks links into the app."""
    wrong = [
        f"{path.relative_to(REPOSITORY)}:{call.lineno}"
        for path in sources(f"{PACKAGE}/ui", "app.py", "pages")
        for called, call in calls(path)
        if called in ("st.navigation", "streamlit.navigation")
    ]
    assert not wrong, "\n".join(wrong)


def normalised(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_every_package_that_is_imported_is_required() -> None:
    """Only imports at the top of a module count: one inside a function is an extra with a message of its own."""
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    required = {normalised(found[0]) for line in lines if (found := re.match(r"[A-Za-z0-9][\w.-]*", line))}
    providers = importlib.metadata.packages_distributions()
    own = {PACKAGE, *sys.stdlib_module_names}
    wrong = []
    for path in sources(PACKAGE, "app.py", "pages"):
        if path.is_relative_to(REPOSITORY / PACKAGE / "zoo") and "build" in str(path.relative_to(REPOSITORY)):
            continue  # making the demo again needs data packages that using it does not
        top = ast.Module([node for node in tree(path).body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        for line, dotted in imported_modules(top, package_of(path)):
            name = dotted.split(".")[0]
            if name not in own and not required & set(map(normalised, providers.get(name, [name]))):
                wrong.append(f"{path.relative_to(REPOSITORY)}:{line} imports {name}, which requirements.txt lacks")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import torch.nn as nn", {"torch.nn"}),
        ("from dcmerge import plots, merge", {"dcmerge.plots", "dcmerge.merge"}),
        ("from dcmerge.checkpoints.names import align", {"dcmerge.checkpoints.names.align"}),
        ("from . import registry", {"dcmerge.methods.registry"}),
        ("from .registry import method", {"dcmerge.methods.registry.method"}),
        ("from .. import ui", {"dcmerge.ui"}),
        ("from ..linalg import SVD", {"dcmerge.linalg.SVD"}),
        ("def f():\n    import dcmerge.ui.state", {"dcmerge.ui.state"}),
        ("if TYPE_CHECKING:\n    from dcmerge.ui import state", {"dcmerge.ui.state"}),
    ],
)
def test_every_spelling_of_an_import_is_seen(source: str, expected: set[str]) -> None:
    assert {name for _, name in imported_modules(ast.parse(source), "dcmerge.methods")} == expected


def test_names_of_the_facade_are_told_from_rooms() -> None:
    rooms = {"spectral", FACADE}
    assert room_named("dcmerge.spectral.linalg.SVD", rooms) == "spectral"
    assert room_named("dcmerge.merge", rooms) == FACADE
    assert room_named("dcmerge", rooms) == FACADE
    assert room_named("torch.linalg", rooms) is None
