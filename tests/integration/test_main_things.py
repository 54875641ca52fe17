"""Classes and functions of ``__main__``: pickled by one kind of process, found by another."""

import os
import subprocess
import sys
import textwrap

import pytest

SCRIPT = """
    import sys
    from dataclasses import dataclass
    from pathlib import Path
    from exoflow.codec import decode, encode, from_bytes, to_bytes

    class Wrapped:
        def __init__(self, function):
            self.function = function

    @dataclass
    class Order:
        hotel: str

        class Line:
            pass

    def price(order):
        assert isinstance(order, Order), "another copy of the class"
        return len(order.hotel)

    @Wrapped
    def decorated(order):
        return price(order) + 1

    def write(path):
        value = [Order("Ritz"), Order.Line, price, decorated.function, lambda order: price(order) + 2]
        Path(path).write_bytes(to_bytes(encode(value)))

    def read(path):
        order, line, plain, inner, by_value = decode(from_bytes(Path(path).read_bytes()))
        assert type(order) is Order and line is Order.Line, (type(order), Order)
        assert inner is decorated.function and plain is price
        print(plain(order), inner(order), by_value(order))

    if __name__ == "__main__":
        globals()[sys.argv[1]](sys.argv[2])
"""

ELSEWHERE = """
    import sys
    from pathlib import Path
    from exoflow.codec import decode, from_bytes, encode, to_bytes
    data = Path(sys.argv[1]).read_bytes()
    order, line, plain, inner, by_value = decode(from_bytes(data))
    print(plain(order), inner(order), by_value(order))
    # what came from a file goes back by its file
    Path(sys.argv[1]).write_bytes(to_bytes(encode([order, line, plain, inner, by_value])))
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "orders.py").write_text(textwrap.dedent(SCRIPT))
    (tmp_path / "elsewhere.py").write_text(textwrap.dedent(ELSEWHERE))
    (tmp_path / "other").mkdir()

    def run(*args, cwd="."):
        paths = [path for path in sys.path if path and "site-packages" in path or os.path.isdir(f"{path}/exoflow")]
        done = subprocess.run(
            [sys.executable, *args],
            cwd=tmp_path / cwd,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([*paths, str(tmp_path)])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


AS_SCRIPT = ("orders.py",)
AS_MODULE = ("-m", "orders")
IMPORTED = ("-c", "import sys, orders; getattr(orders, sys.argv[1])(sys.argv[2])")
WAYS = [AS_SCRIPT, AS_MODULE, IMPORTED]


@pytest.mark.parametrize("writer", WAYS, ids=["script", "module", "import"])
@pytest.mark.parametrize("reader", WAYS, ids=["script", "module", "import"])
def test_what_one_way_of_starting_writes_every_other_reads(run, tmp_path, writer, reader):
    value = str(tmp_path / "value")
    run(*writer, "write", value)
    assert run(*reader, "read", value) == "4 5 6"


@pytest.mark.parametrize("writer", WAYS, ids=["script", "module", "import"])
def test_a_process_that_never_heard_of_the_file_loads_it_and_hands_it_back(run, tmp_path, writer):
    value = str(tmp_path / "value")
    run(*writer, "write", value)
    assert run("elsewhere.py", value) == "4 5 6"
    assert run(*AS_SCRIPT, "read", value) == "4 5 6"


def test_a_script_that_was_moved_finds_its_own_values(run, tmp_path):
    value = str(tmp_path / "value")
    run(*AS_SCRIPT, "write", value)
    (tmp_path / "orders.py").rename(tmp_path / "other" / "orders.py")
    assert run("orders.py", "read", value, cwd="other") == "4 5 6"


def test_a_name_that_is_gone_and_a_file_that_is_gone_are_told(run, tmp_path):
    value = str(tmp_path / "value")
    run(*AS_SCRIPT, "write", value)
    source = (tmp_path / "orders.py").read_text()
    tell = (
        "import sys; from pathlib import Path; from exoflow.codec import decode, from_bytes\n"
        "try: decode(from_bytes(Path(sys.argv[1]).read_bytes()))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    (tmp_path / "orders.py").write_text(source.replace("Order", "Booking"))
    assert "Order is not in" in run("-c", tell, value)
    (tmp_path / "orders.py").unlink()
    assert "which is not there" in run("-c", tell, value)


def test_what_a_program_without_a_file_defines_goes_by_value(run, tmp_path):
    value = str(tmp_path / "value")
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from exoflow.codec import decode, encode, from_bytes, to_bytes
        class Order:
            hotel = "Ritz"
        def price(order): return len(order.hotel)
        Path(sys.argv[1]).write_bytes(to_bytes(encode([Order(), price])))
        order, _ = decode(from_bytes(Path(sys.argv[1]).read_bytes()))
        assert isinstance(order, Order)
        """
    )
    read = (
        "import sys; from pathlib import Path; from exoflow.codec import decode, from_bytes\n"
        "order, price = decode(from_bytes(Path(sys.argv[1]).read_bytes()))\nprint(price(order))"
    )
    run("-c", program, value)
    assert run("-c", read, value) == "4"


def test_a_program_that_looks_at_its_arguments_finds_them_in_its_workers_too(tmp_path):
    (tmp_path / "words.py").write_text(
        textwrap.dedent(
            """
            import sys
            from exoflow import flow, task

            WORD = sys.argv[1]

            @task
            def word() -> str:
                return WORD

            @flow
            def words() -> str:
                return word()

            if __name__ == "__main__":
                print(words.options(store="store", executor="processes").run())
            """
        )
    )
    done = subprocess.run(
        [sys.executable, "words.py", "here"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "here\n"
