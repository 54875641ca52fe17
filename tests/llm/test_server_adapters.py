"""Adapters come, change and go while the server answers."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from llm_served import BASE, Served
from llm_zoo import Zoo

from exoflow.llm import SamplingParams

TEXT = "The quick brown fox"
LONG: dict[str, Any] = {"max_tokens": 60, "temperature": 0, "extra_body": {"ignore_eos": True}}


@pytest.fixture
def folder(zoo: Zoo, tmp_path: Path) -> Path:
    """With the adapter ``one``, which is the zoo's r8."""
    shutil.copytree(zoo.folders["r8"], tmp_path / "adapters" / "one")
    return tmp_path / "adapters"


def expected(server: Served, path: Path, count: int = 60) -> str:
    server.engine.load_adapter("expected", path)
    params = SamplingParams(max_tokens=count, temperature=0, ignore_eos=True)
    (output,) = server.engine.generate([TEXT], params, "expected")
    server.engine.unload_adapter("expected")
    return output.text


async def post(server: Served, what: str, **body: object) -> tuple[int, dict[str, Any]]:
    async with server.http() as http:
        answer = await http.post(f"/v1/{what}", json=body)
    return answer.status_code, answer.json()


async def ask(client: openai.AsyncOpenAI, model: str, **params: Any) -> str:
    return (await client.completions.create(model=model, prompt=TEXT, **(LONG | params))).choices[0].text


async def test_two_thousand_adapters_are_there_at_once_and_loaded_when_asked_for(
    zoo: Zoo, open_server: Callable[..., Served], tmp_path: Path
) -> None:
    for number in range(2000):
        (tmp_path / f"user-{number}").symlink_to(zoo.folders["r8" if number % 2 else "mlp"])
    server = open_server(tmp_path)
    async with server.openai() as client:
        assert len([model async for model in client.models.list()]) == 2001
        assert server.engine.adapters() == []
        odd, even = await asyncio.gather(ask(client, "user-1999"), ask(client, "user-1998"))
        assert odd == expected(server, zoo.folders["r8"])
        assert even == expected(server, zoo.folders["mlp"])
    assert [adapter.name for adapter in server.engine.adapters()] == ["user-1998", "user-1999"]


async def test_an_adapter_that_appears_in_the_folder_is_found(
    zoo: Zoo, open_server: Callable[..., Served], folder: Path
) -> None:
    server = open_server(folder)
    async with server.openai() as client:
        with pytest.raises(openai.NotFoundError):
            await ask(client, "late")
        shutil.copytree(zoo.folders["mlp"], folder / "late")
        assert await ask(client, "late") == expected(server, zoo.folders["mlp"])


async def test_an_adapter_whose_folder_is_gone_is_listed_as_long_as_it_answers(
    open_server: Callable[..., Served], folder: Path
) -> None:
    server = open_server(folder)
    async with server.openai() as client:
        await ask(client, "one")
        shutil.rmtree(folder / "one")
        assert "one" in [model.id async for model in client.models.list()]
        assert await ask(client, "one")


async def test_many_who_ask_for_the_same_new_adapter_load_it_once(
    open_server: Callable[..., Served], folder: Path
) -> None:
    server = open_server(folder)
    async with server.openai() as client:
        answers = await asyncio.gather(*(ask(client, "one", max_tokens=5) for _ in range(20)))
    assert len(set(answers)) == 1
    assert server.engine._store.disk_reads == 1


async def test_a_reload_in_place_leaves_those_who_came_before_with_the_old_content(
    zoo: Zoo, open_server: Callable[..., Served], folder: Path
) -> None:
    server = open_server(folder)
    old, new = expected(server, zoo.folders["r8"]), expected(server, zoo.folders["mlp"])
    server.gate.close_after(10)
    async with server.openai() as client:
        stream = await client.completions.create(model="one", prompt=TEXT, stream=True, **LONG)
        text = (await anext(stream)).choices[0].text
        shutil.rmtree(folder / "one")
        shutil.copytree(zoo.folders["mlp"], folder / "one")
        taken, _ = await post(server, "load_lora_adapter", lora_name="one", lora_path="one")
        assert taken == 400
        done, _ = await post(server, "load_lora_adapter", lora_name="one", lora_path="one", load_inplace=True)
        assert done == 200
        server.gate.open()
        after, text = await asyncio.gather(ask(client, "one"), _rest(stream, text))
    assert text == old
    assert after == new != old


async def _rest(stream: Any, text: str) -> str:
    async for piece in stream:
        text += piece.choices[0].text
    return text


async def test_adapters_are_loaded_and_dropped_while_others_are_answered(
    zoo: Zoo, open_server: Callable[..., Served], folder: Path
) -> None:
    server = open_server(folder, pages=160)
    for name in ("r1", "r4-all", "mlp"):
        shutil.copytree(zoo.folders[name], folder / f"new-{name}")
    right = expected(server, folder / "one", 40)
    async with server.openai() as client:
        traffic = [asyncio.create_task(ask(client, "one", max_tokens=40)) for _ in range(20)]
        for name in ("r1", "r4-all", "mlp") * 3:
            status, told = await post(server, "load_lora_adapter", lora_name=f"x-{name}", lora_path=f"new-{name}")
            assert status == 200, told
            assert await ask(client, f"x-{name}", max_tokens=3) == expected(server, zoo.folders[name], 3)
            assert (await post(server, "unload_lora_adapter", lora_name=f"x-{name}"))[0] == 200
        assert set(await asyncio.gather(*traffic)) == {right}
    await server.is_idle()


async def test_who_is_being_answered_keeps_an_adapter_that_is_unloaded(
    open_server: Callable[..., Served], folder: Path
) -> None:
    server = open_server(folder)
    right = expected(server, folder / "one")
    server.gate.close_after(10)
    async with server.openai() as client:
        stream = await client.completions.create(model="one", prompt=TEXT, stream=True, **LONG)
        text = (await anext(stream)).choices[0].text
        assert (await post(server, "unload_lora_adapter", lora_name="one"))[0] == 200
        with pytest.raises(openai.NotFoundError):
            await ask(client, "one")
        assert "one" not in [model.id async for model in client.models.list()]
        server.gate.open()
        assert await _rest(stream, text) == right
        assert (await post(server, "unload_lora_adapter", lora_name="one"))[0] == 404
        assert (await post(server, "load_lora_adapter", lora_name="one", lora_path="one"))[0] == 200
        assert await ask(client, "one") == right
    await server.is_idle()


async def test_a_broken_adapter_is_refused_and_everything_else_goes_on(
    zoo: Zoo, open_server: Callable[..., Served], folder: Path
) -> None:
    server = open_server(folder)
    for name, damage in {"cut": lambda file: file.write_bytes(file.read_bytes()[:200]), "empty": Path.unlink}.items():
        shutil.copytree(zoo.folders["mlp"], folder / name)
        damage(folder / name / "adapter_model.safetensors")
    right = expected(server, folder / "one")
    async with server.openai() as client:
        for name in ("cut", "empty"):
            with pytest.raises(openai.BadRequestError) as refused:
                await ask(client, name)
            assert refused.value.code == "adapter_broken"
            status, told = await post(server, "load_lora_adapter", lora_name="one", lora_path=name, load_inplace=True)
            assert (status, told["error"]["code"]) == (400, "adapter_broken")
        assert await ask(client, "one") == right


@pytest.mark.parametrize("path", ["..", "../elsewhere", "/etc", "one/../../elsewhere", ".", "x\0y"])
async def test_paths_outside_of_the_folder_are_refused(
    zoo: Zoo, open_server: Callable[..., Served], folder: Path, path: str
) -> None:
    shutil.copytree(zoo.folders["mlp"], folder.parent / "elsewhere")
    status, told = await post(open_server(folder), "load_lora_adapter", lora_name="x", lora_path=path)
    assert (status, told["error"]["param"]) == (400, "lora_path")


async def test_a_server_without_a_folder_loads_what_it_was_given_and_nothing_else(
    zoo: Zoo, open_server: Callable[..., Served]
) -> None:
    server = open_server(named={"mine": zoo.folders["r8"]})
    async with server.openai() as client:
        assert await ask(client, "mine") == expected(server, zoo.folders["r8"])
    assert (await post(server, "load_lora_adapter", lora_name="x", lora_path=str(zoo.folders["mlp"])))[0] == 400


async def test_the_base_model_is_not_unloaded(open_server: Callable[..., Served], folder: Path) -> None:
    server = open_server(folder)
    async with server.http() as http:
        answer = await http.post("/v1/unload_lora_adapter", json={"lora_name": BASE})
    assert answer.status_code == 400
    assert "is the base model" in answer.json()["error"]["message"]


async def test_nothing_takes_the_base_models_name(zoo: Zoo, open_server: Callable[..., Served], folder: Path) -> None:
    shutil.copytree(zoo.folders["mlp"], folder / BASE)
    server = open_server(folder)
    async with server.openai() as client:
        assert [model.id async for model in client.models.list()] == [BASE, "one"]
        base = await ask(client, BASE)
    params = SamplingParams(max_tokens=60, temperature=0, ignore_eos=True)
    assert base == server.engine.generate([TEXT], params)[0].text
    status, _ = await post(server, "load_lora_adapter", lora_name=BASE, lora_path="one", load_inplace=True)
    assert status == 400


async def test_an_adapter_can_be_pinned_and_is_in_the_pool(open_server: Callable[..., Served], folder: Path) -> None:
    server = open_server(folder)
    status, told = await post(server, "load_lora_adapter", lora_name="one", lora_path="one", pinned=True)
    assert status == 200
    (info,) = server.engine.adapters()
    assert info.pinned
    assert info.version == told["version"]
