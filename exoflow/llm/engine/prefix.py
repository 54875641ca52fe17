"""KV of prompts that were seen before, found block by block.

A tree for each adapter version (and one for the base model): a node is one full block of tokens, and its page. Keys
are the tokens themselves, not a hash of them, and the root is the adapter's content: KV of another adapter, or of an
earlier content under the same name, cannot be hit. RadixAttention (Zheng et al., 2023) with blocks for edges.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from exoflow.llm.engine.memory import Kept, Memory
from exoflow.llm.engine.request import Request


@dataclass(slots=True, eq=False)
class Block:
    """One full block: its place in the tree, its page, and who works on it."""

    tokens: tuple[int, ...]
    page: int
    parent: Block | Root
    children: dict[tuple[int, ...], Block] = field(default_factory=dict)
    holders: int = 0
    kept: Kept = field(init=False)


@dataclass(slots=True, eq=False)
class Root:
    version: str | None
    children: dict[tuple[int, ...], Block] = field(default_factory=dict)


class PrefixCache:
    """Which blocks are known; each owns its page once, each request that works on it once more."""

    def __init__(self, memory: Memory, block: int, *, token_cost_s: float = 1e-3) -> None:
        self._memory = memory
        self._pool = memory.pool
        self._block = block
        self._cost_s = block * token_cost_s
        self._roots: dict[str | None, Root] = {}
        self._paths: dict[Request, list[Block]] = {}
        self.hits = 0
        """Tokens that were found so far."""

    def begin(self, request: Request) -> int:
        """Give a request the pages of the longest known beginning of its tokens; how many tokens they are.

        At least one token is left to compute, since somebody has to make the logits.
        """
        assert not request.pages
        path: list[Block] = []
        node: Block | Root | None = self._roots.get(_version(request))
        tokens = request.tokens
        for start in range(0, (len(tokens) - 1) // self._block * self._block, self._block):
            node = node and node.children.get(tuple(tokens[start : start + self._block]))
            if not isinstance(node, Block):
                break
            path.append(node)
        for block in path:
            block.kept.uses += 1
            self._hold(block)
        self._pool.share([block.page for block in path])
        request.pages = [block.page for block in path]
        self._paths[request] = path
        self.hits += len(path) * self._block
        return len(path) * self._block

    def known(self, request: Request) -> int:
        """How many tokens ``begin`` would find."""
        count, node = 0, self._roots.get(_version(request))
        tokens = request.tokens
        children = node.children if node else {}
        while count + self._block < len(tokens):
            found = children.get(tuple(tokens[count : count + self._block]))
            if found is None:
                break
            count, children = count + self._block, found.children
        return count

    def extend(self, request: Request) -> None:
        """Make known what the request has computed since. Where another was first, the request works on its block from
        now on.
        """
        path = self._paths[request]
        node: Block | Root = path[-1] if path else self._roots.setdefault(_version(request), Root(_version(request)))
        for index in range(len(path), request.computed // self._block):
            start = index * self._block
            tokens = tuple(request.tokens_between(start, start + self._block))
            block = node.children.get(tokens)
            if block is None:
                block = self._add(node, tokens, request.pages[index])
            elif block.page != request.pages[index]:
                self._pool.share([block.page])
                self._pool.release([request.pages[index]])
                request.pages[index] = block.page
            self._hold(block)
            path.append(block)
            node = block

    def end(self, request: Request) -> None:
        """The request works on its blocks no more (its own share of the pages is its owner's to release)."""
        for block in reversed(self._paths.pop(request)):
            block.holders -= 1
            if block.holders == 0:
                self._memory.reclaimable += 1
                if not block.children:
                    self._memory.loosen(block.kept)

    def forget(self, version: str | None) -> None:
        """Nobody is likely to ask for this version again: what nobody works on is dropped now, the rest when memory is
        short.
        """
        root = self._roots.get(version, Root(version))
        for block in reversed(list(_below(root))):  # leaves first
            if block.holders == 0:
                self._memory.hold(block.kept)
                self._drop(block)
        if not root.children:
            self._roots.pop(version, None)

    def owned(self) -> Iterator[list[int]]:
        """The pages of the tree. For tests."""
        for root in self._roots.values():
            yield [block.page for block in _below(root)]

    def _add(self, node: Block | Root, tokens: tuple[int, ...], page: int) -> Block:
        if isinstance(node, Block):
            self._memory.hold(node.kept)  # not a leaf any more
        block = Block(tokens, page, node)
        block.kept = Kept(1, self._cost_s, lambda: self._drop(block))
        node.children[tokens] = block
        self._pool.share([page])
        self._memory.reclaimable += 1  # until the hold that follows
        return block

    def _hold(self, block: Block) -> None:
        if block.holders == 0:
            self._memory.reclaimable -= 1
            self._memory.hold(block.kept)
        block.holders += 1

    def _drop(self, block: Block) -> None:
        """A leaf that nobody holds. Its parent may be the next."""
        assert not block.children
        assert block.holders == 0
        parent = block.parent
        del parent.children[block.tokens]
        self._pool.release([block.page])
        self._memory.reclaimable -= 1
        if isinstance(parent, Root):
            if not parent.children:
                self._roots.pop(parent.version, None)
        elif not parent.children and parent.holders == 0:
            self._memory.loosen(parent.kept)


def _version(request: Request) -> str | None:
    return request.adapter.version if request.adapter else None


def _below(root: Root) -> Iterator[Block]:
    waiting: list[Block] = list(root.children.values())
    while waiting:
        block = waiting.pop()
        yield block
        waiting.extend(block.children.values())
