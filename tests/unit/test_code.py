"""I4: what counts as a change of a function's code, and what does not."""

import ast
import dis
import functools
import importlib
import pathlib
import subprocess
import sys
import threading
import types

import pytest

from exoflow.codec import code_fingerprint, code_mark, home_of, same_code, source_of


def f(x, y=0, *rest, z=None): ...


def source(text, name="g"):
    scope = {}
    exec(compile(text, "<test>", "exec", dont_inherit=True), scope)
    return scope[name]


BASE = "def g(x, y=1):\n    def h(z):\n        return z in {'a', 'b'}\n    return h(x) + 1\n"


@pytest.mark.parametrize(
    "text",
    [
        "\n\n# moved\n" + BASE,
        BASE.replace("    def h", '    """Documented."""\n    def h', 1),
        BASE.replace("        return z", '        "Documented."\n        return z'),
        BASE.replace("    return h", "    # why\n    return h"),
    ],
)
def test_docstrings_comments_and_lines_do_not_matter(text):
    assert code_fingerprint(source(text)) == code_fingerprint(source(BASE))


@pytest.mark.parametrize(
    ("old", "new"),
    [("+ 1", "+ 2"), ("+ 1", "- 1"), ("+ 1", "+ 1.0"), ("'b'", "'c'"), ("y=1", "y=2"), ("h(x)", "h(y)"),
     ("def g", "async def g"), ("y=1", "*, y=1")],
)  # fmt: skip
def test_every_change_of_the_code_matters(old, new):
    assert code_fingerprint(source(BASE.replace(old, new))) != code_fingerprint(source(BASE))


def test_a_class_inside_may_have_a_docstring():
    text = "def g():\n    class C:\n        n = 1\n    return C\n"
    documented = text.replace("        n", '        """Documented."""\n        n')
    other = documented.replace("Documented", "Documented otherwise")
    assert code_fingerprint(source(documented)) == code_fingerprint(source(other))
    assert code_fingerprint(source(documented)) != code_fingerprint(source(documented.replace("n = 1", "n = 2")))


def test_the_fingerprint_is_the_same_in_every_process():
    program = (
        f"from exoflow.codec import code_fingerprint\nscope = {{}}\nexec({BASE!r}, scope)\n"
        "print(code_fingerprint(scope['g']).hex())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
            check=True, capture_output=True, text=True,
        ).stdout.strip()
        for seed in "123"
    }  # fmt: skip
    assert seen == {code_fingerprint(source(BASE)).hex()}


def test_what_is_no_plain_function_has_a_fingerprint_too():
    class Callable:
        def __call__(self):
            return 1

    @functools.wraps(source(BASE))
    def wrapper():
        return 2

    prints = [code_fingerprint(thing) for thing in (len, Callable(), functools.partial(f, 1), wrapper, [].append)]
    assert len(set(prints)) == len(prints)
    assert all(len(print_) == 9 for print_ in prints)
    assert code_fingerprint(functools.partial(f, 1)) != code_fingerprint(functools.partial(f, 2))


def test_the_source_can_be_shown_where_there_is_one():
    assert source_of(test_the_source_can_be_shown_where_there_is_one).startswith("def test_the_source")
    assert source_of(len) == ""
    assert source_of(source(BASE)) == ""


# --- try and with


def made(guarded):
    def step(risky, other):
        risky()
        try:
            other()
        except ValueError:
            return "caught"

    def mended(risky, other):
        try:
            risky()
            other()
        except ValueError:
            return "caught"

    return mended if guarded else step


def test_a_line_moved_into_a_try_is_another_code_though_no_instruction_differs():
    instructions = [
        [i.opname for i in dis.get_instructions(made(which)) if i.opname != "NOP"] for which in (True, False)
    ]
    assert instructions[0] == instructions[1]
    assert code_fingerprint(made(True)) != code_fingerprint(made(False))


@pytest.mark.parametrize("module", ["ast", "argparse", "contextlib", "json.decoder", "tarfile"])
def test_another_layout_of_the_lines_does_not_matter(module):
    text = pathlib.Path(importlib.import_module(module).__file__).read_text()
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            node.body[0] = ast.Expr(ast.Constant("another docstring"))
    one, other = (list(functions(compile(each, "x", "exec"))) for each in (text, "\n\n" + ast.unparse(tree)))
    assert len(one) == len(other) > 10
    assert [a.__name__ for a, b in zip(one, other, strict=True) if code_fingerprint(a) != code_fingerprint(b)] == []


def functions(code):
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            cells = tuple(types.CellType() for _ in constant.co_freevars)
            yield types.FunctionType(constant, {}, constant.co_name, None, cells)
            yield from functions(constant)


# --- defaults, closures, decorators


def evaluated(text):
    return eval(text, {"functools": functools, "f": f})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("lambda x=['a']: x", "lambda x=['a', 'b']: x"),
        ("lambda x={'limit': 1}: x", "lambda x={'limit': 2}: x"),
        ("lambda *, x={'limit': 1}: x", "lambda *, x={'limit': 2}: x"),
        ("lambda x=(1, [2]): x", "lambda x=(1, [3]): x"),
        ("lambda x=1: x", "lambda x=True: x"),
        ("(lambda n: lambda: n)([1, 2])", "(lambda n: lambda: n)([1, 3])"),
        ("(lambda n: lambda: n)({'a': 1})", "(lambda n: lambda: n)({'a': 2})"),
        ("(lambda n: lambda: n)(lambda: 1)", "(lambda n: lambda: n)(lambda: 2)"),
        ("functools.partial(f, [1])", "functools.partial(f, [2])"),
        ("functools.partial(f, z={1: 2})", "functools.partial(f, z={1: 3})"),
    ],
)
def test_plain_data_in_defaults_and_closures_counts(one, other):
    assert code_fingerprint(evaluated(one)) == code_fingerprint(evaluated(one))
    assert code_fingerprint(evaluated(one)) != code_fingerprint(evaluated(other))


def scaled(by, wraps=True):
    def decorated(function):
        def wrapper(*args):
            return function(*args) * by

        return functools.wraps(function)(wrapper) if wraps else wrapper

    return decorated


def test_the_argument_of_a_decorator_counts_and_so_does_what_is_behind_it():
    def one(x):
        return x

    def other(x):
        return x + 1

    for wraps in (True, False):
        prints = {code_fingerprint(scaled(by, wraps)(each)) for by in (2, 3) for each in (one, other)}
        assert len(prints) == 4
        assert code_fingerprint(scaled(2, wraps)(one)) in prints


def test_what_is_no_data_counts_by_its_type_and_a_function_that_holds_itself_ends():
    def made(what):
        def again(n):
            return what and again(n - 1)

        return again

    assert code_fingerprint(made(threading.Lock())) == code_fingerprint(made(threading.Lock()))
    assert code_fingerprint(made(threading.Lock())) != code_fingerprint(made(object()))


def test_captured_sets_and_dicts_are_the_same_in_every_process():
    program = (
        "from exoflow.codec import code_fingerprint\n"
        "def made(words, table, flags=frozenset({'x', 'y', 'z'})):\n"
        "    def g(x={'p', 'q', 'r'}): return x in words or x in table or x in {'k', 'l', 'm'}\n"
        "    return g\n"
        "print(code_fingerprint(made({'a', 'b', 'c'}, {'a': {'b', 'c'}, None: 1})).hex())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
            check=True, capture_output=True, text=True,
        ).stdout.strip()
        for seed in "1234"
    }  # fmt: skip
    assert len(seen) == 1


def test_a_file_loaded_under_two_names_is_the_same_code(tmp_path):
    path = tmp_path / "job.py"
    path.write_text(
        "import enum\nclass Kind(enum.Enum):\n    A = 1\n\ndef step(x, kind=Kind.A, *, y=[Kind.A]):\n    return x\n"
    )
    scopes = []
    for name in ("__main__", "job"):
        scope = {"__name__": name, "__file__": str(path)}
        exec(compile(path.read_text(), str(path), "exec", dont_inherit=True), scope)
        scopes.append(scope)
    assert code_fingerprint(scopes[0]["step"]) == code_fingerprint(scopes[1]["step"])


# --- marks


def test_a_mark_tells_the_code_from_its_home():
    one, moved, other = code_mark(f, "a.f"), code_mark(f, "b.f"), code_mark(scaled, "a.f")
    assert same_code(one, moved) and home_of(one) != home_of(moved)
    assert not same_code(one, other) and home_of(one) == home_of(other)
    assert same_code(code_mark(f, "a.f", "2"), code_mark(scaled, "a.f", "2"))
    assert not same_code(code_mark(f, "a.f", "2"), code_mark(f, "a.f", "3"))


def test_a_mark_of_the_older_scheme_cannot_be_compared_and_so_is_not_called_changed():
    assert same_code(b"8 bytes.", code_mark(f, "a.f"))
    assert same_code(b"version 2", code_mark(f, "a.f", "2"))
    assert not same_code(b"version 1", code_mark(f, "a.f", "2"))
    assert not same_code(b"8 bytes.", code_mark(f, "a.f", "2"))
    assert home_of(b"8 bytes.") == home_of(b"version 2") == b""


def test_the_source_tells_what_was_captured_and_keeps_secrets():
    def made(rate, password):
        def step():
            return rate, password

        return step

    one, other = source_of(made(0.5, "swordfish")), source_of(made(0.5, "sesame"))
    assert "= 0.5\n" in one
    assert "swordfish" not in one.partition("# captured")[2]
    assert one != other
