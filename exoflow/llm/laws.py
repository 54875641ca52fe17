"""The laws of voting: how often K answers, of which the most frequent wins, are right. Pure functions.

Chen et al., "Are More LLM Calls All You Need? Towards Scaling Properties of Compound Inference Systems", NeurIPS '24.
Not followed where it is wrong: its Theorems 2 and 4 are printed with their condition inverted, and its formula of the
best K without rounding.

Arithmetic is that of what is given: exact for ints, ``Fraction`` and ``Decimal``, else float. Where values are
compared, floats are taken at their digits (.85 is 17/20) and compared exactly.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Mapping, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from numbers import Real
from typing import Any, Literal, overload

Exact = int | Fraction | Decimal
Number = Exact | float
Shape = Literal["constant", "up", "down", "up then down", "down then up"]


def exact(number: Number) -> Fraction:
    """The number; a float is what its digits say."""
    return Fraction(repr(float(number))) if isinstance(number, float) else Fraction(number)


def _taken(*numbers: Number) -> list[Fraction] | list[float]:
    """As floats if one of them is a float, else exact."""
    if any(isinstance(number, float) for number in numbers):
        return [float(number) for number in numbers]
    return [Fraction(number) for number in numbers]


def _chances(**chances: Number) -> None:
    for name, chance in chances.items():
        given: object = chance
        if not isinstance(given, Real | Decimal):
            raise TypeError(f"{name}={chance!r} must be a number, from 0 to 1")
        if given != given or not 0 <= chance <= 1:
            raise ValueError(f"{name}={chance!r} is no probability")


def _votes(k: int) -> None:
    given: object = k
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise ValueError(f"k={k!r} must be a whole number, 1 or more")


# -- two kinds of items ------------------------------------------------------------------------------------------------


@overload
def binary(alpha: Exact, p1: Exact, p2: Exact, k: int) -> Fraction: ...


@overload
def binary(alpha: float, p1: float, p2: float, k: int) -> float | Fraction: ...


def binary(alpha: Number, p1: Number, p2: Number, k: int) -> float | Fraction:
    """F(k): the accuracy of a k-vote where a share ``alpha`` of the items is answered rightly with p1, the others p2.

    An even k with fair ties is as good as k - 1.
    """
    _chances(alpha=alpha, p1=p1, p2=p2)
    _votes(k)
    share, one, two = _taken(alpha, p1, p2)
    return share * _right(one, k) + (1 - share) * _right(two, k)


def _right(p: float | Fraction, k: int) -> float | Fraction:
    """I_p((k+1)/2, (k+1)/2) by its increments: from 2m-1 votes to 2m+1 it grows by (2p-1) C(2m-1, m) (p(1-p))^m."""
    term, total = p * (1 - p), p - p
    for m in range(1, (k - 1) // 2 + 1):
        total += term
        term = term * 2 * (2 * m + 1) / (m + 1) * (p * (1 - p))
    return p + (2 * p - 1) * total


def _signs(alpha: Number, p1: Number, p2: Number) -> tuple[Fraction, Fraction, Fraction, Fraction]:
    """a, b, u, v: F(2m+1) - F(2m-1) has the sign of a·u^m - b·v^m."""
    _chances(alpha=alpha, p1=p1, p2=p2)
    share, one, two = exact(alpha), exact(p1), exact(p2)
    if not two <= Fraction(1, 2) <= one:
        raise ValueError(f"p1={p1!r}, p2={p2!r}: an easy item has p1 of 1/2 or more, a hard one p2 of 1/2 or less")
    return share * (2 * one - 1), (1 - share) * (1 - 2 * two), one * (1 - one), two * (1 - two)


def shape(alpha: Number, p1: Number, p2: Number) -> Shape:
    """How F goes over odd k.

    It begins by rising where alpha > 1 - 1/t, t = p2 q2 (1/2 - p2) / (p1 q1 (p1 - 1/2)) + 1: Chen et al., Theorem 2,
    which is printed with this condition inverted.
    """
    a, b, u, v = _signs(alpha, p1, p2)
    up, down = a * u, b * v
    if not up and not down:
        return "constant"
    if not up or not down:
        return "up" if up else "down"
    if u == v:
        return "constant" if a == b else "up" if a > b else "down"
    if u < v:  # p1 + p2 > 1: what rises fades first
        return "up then down" if up > down else "down"
    return "up" if up >= down else "down then up"


def best_k(alpha: Number, p1: Number, p2: Number) -> float:
    """The smallest k whose F(k) is the greatest; ``math.inf`` where more votes are always better in the end.

    Compared exactly, floats at their digits.
    """
    a, b, u, v = _signs(alpha, p1, p2)
    how = shape(alpha, p1, p2)
    if how in ("constant", "down"):
        return 1
    if how == "up":
        return math.inf
    if how == "up then down":
        return 2 * _last_rise(b / a, u / v) + 1
    first, limit = binary(exact(alpha), exact(p1), exact(p2), 1), exact(alpha)
    return 1 if first >= limit else math.inf


def _last_rise(least: Fraction, ratio: Fraction) -> int:
    """The greatest m with ratio^m > least, where ratio < 1 and it holds for m = 1."""
    with localcontext() as context:
        context.prec = 60

        def log(x: Fraction) -> Decimal:
            return Decimal(x.numerator).ln() - Decimal(x.denominator).ln()

        m = log(least) / log(ratio)
        near = int(m.to_integral_value())
        if abs(m - near) < Decimal("1e-30"):  # as good as whole: there it neither rises nor falls
            return near - 1
        return math.floor(m)


def three_vote_bounds(m1: Number, m2: Number) -> tuple[float | Fraction, float | Fraction]:
    """Between what F(3) lies if the items' p have the moments m1 = E[p], m2 = E[p²]; two samples an item give them."""
    _chances(m1=m1, m2=m2)
    if not exact(m1) ** 2 <= exact(m2) <= exact(m1):
        raise ValueError(f"m1={m1!r}, m2={m2!r}: the second moment of probabilities lies between m1² and m1")
    one, two = _taken(m1, m2)
    least = two + 2 * (one - two) ** 2 / (1 - one) if one < 1 else one
    most = 3 * two - 2 * two**2 / one if one > 0 else one
    return least, most


# -- any number of options ---------------------------------------------------------------------------------------------


@overload
def plurality(chances: Sequence[Exact], k: int) -> list[Fraction]: ...


@overload
def plurality(chances: Sequence[float], k: int) -> list[float] | list[Fraction]: ...


def plurality(chances: Sequence[Number], k: int) -> list[Fraction] | list[float]:
    """Each option's chance to be the most frequent of k answers; ties are broken fairly. ``chances`` sum to 1.

    Of floats it is as exact as they are, and quick where numpy is installed: ten options and 200 answers take 0.1 s. Of
    exact numbers it takes minutes there.
    """
    _votes(k)
    _chances(**{f"chances[{i}]": chance for i, chance in enumerate(chances)})
    total = sum(map(exact, chances), start=Fraction(0))
    if abs(total - 1) > Fraction(1, 10**9):
        raise ValueError(f"the chances {list(chances)} sum to {float(total)}, not to 1")
    ps = _taken(*chances)
    if k > _FEW and (quick := _in_floats(ps, k)) is not None:
        return quick
    whole = math.lcm(*(p.denominator for p in ps if isinstance(p, Fraction)))  # 1 for floats; else integers from here
    ones = [p if isinstance(p, float) else int(p * whole) for p in ps]
    powers = [[one**j for j in range(k + 1)] for one in ones]
    won: list[Any] = []  # all of them floats, or none
    for y, own in enumerate(powers):
        others = powers[:y] + powers[y + 1 :]
        wins = [
            math.comb(k, m) * own[m] * _shared(_beside(others, m, k - m, ordered=True), k - m) for m in range(1, k + 1)
        ]
        won.append(sum(wins, start=Fraction(0)) / whole**k)
    return won


_FEW = 20
"""Answers: so many are counted at once in any way."""


def _in_floats(chances: Sequence[Fraction] | Sequence[float], k: int) -> list[float] | None:
    """None: they are exact, or numpy is not at hand."""
    floats = [chance for chance in chances if isinstance(chance, float)]
    if not floats:
        return None
    try:
        from exoflow.llm.plurality import in_floats
    except ModuleNotFoundError:
        return None
    return in_floats(floats, k)


def _shared(table: Sequence[Sequence[float]], votes: int) -> float | Fraction:
    """Of the ways in which the others have so many votes, the share that a fair draw leaves to the one beside them."""
    ways = [(ties + 1, row[votes]) for ties, row in enumerate(table)]
    return sum(
        ((Fraction(way, first) if isinstance(way, int) else way / first) for first, way in ways), start=Fraction(0)
    )


def _beside(weights: Sequence[Sequence[float]], m: int, most: int, *, ordered: bool) -> list[list[float]]:
    """``table[t][d]``: the weight of the ways in which options have d votes together, d ≤ most, none has more than m,
    and t of them have m. This is the integral over z of the generating functions, coefficient by coefficient.

    Args:
        weights: of each option, by its votes; a shorter row ends with zeros.
        ordered: votes are a sequence, and their places are chosen.
    """
    table: list[list[float]] = [[1, *[0] * most]]
    for row in weights:
        after: list[list[float]] = [[0] * (most + 1) for _ in range(len(table) + 1)]
        for ties, ways in enumerate(table):
            for d, way in enumerate(ways):
                if not way:
                    continue
                for j in range(min(m, most - d, len(row) - 1) + 1):
                    places = math.comb(d + j, j) if ordered else 1
                    after[ties + (j == m)][d + j] += way * row[j] * places
        table = after
    return table


def u_statistic(counts: Mapping[Hashable, int], k: int, truth: Hashable) -> Fraction:
    """The unbiased estimate of a k-vote's accuracy on an item, from ``counts``: option → how often in its n samples.

    It is the mean over all choices of k among the n samples, without replacement, of the chance that ``truth`` wins.
    The key None counts samples that abstain: they are drawn, and vote for nobody.

    Raises:
        ValueError: k is more than n.
    """
    _votes(k)
    n = sum(counts.values())
    if k > n:
        raise ValueError(f"k={k}: there are {n} samples, and no more can be drawn without replacement")
    return u_curve(counts, truth)[k - 1]


def u_curve(counts: Mapping[Hashable, int], truth: Hashable) -> tuple[Fraction, ...]:
    """``u_statistic`` for k = 1 … n."""
    if any(count < 0 for count in counts.values()):
        raise ValueError(f"counts={dict(counts)}: a count is negative")
    if truth is None:
        raise ValueError("truth=None: None counts the samples that abstain")
    others = sorted(count for option, count in counts.items() if option is not None and option != truth and count)
    return _u_curve(counts.get(truth, 0), tuple(others), counts.get(None, 0))


@functools.lru_cache(maxsize=100_000)
def _u_curve(own: int, others: tuple[int, ...], abstained: int) -> tuple[Fraction, ...]:
    n = own + sum(others) + abstained
    if len(others) <= 1 and not abstained:
        return tuple(Fraction(_two_options(own, n, k), 2 * math.comb(n, k)) for k in range(1, n + 1))
    rows = [[math.comb(count, j) for j in range(count + 1)] for count in others]
    whole = math.lcm(*range(1, len(others) + 2))  # integers from here: a tie of t is won in whole / t of whole ways
    valid = [0] * (n - abstained + 1)
    for m in range(1, own + 1):
        ways = math.comb(own, m)
        for ties, row in enumerate(_beside(rows, m, sum(others), ordered=False)):
            for votes, way in enumerate(row):
                valid[m + votes] += ways * int(way) * whole // (ties + 1)
    right = [0] * (n + 1)
    for j in range(abstained + 1):
        silent = math.comb(abstained, j)
        for votes, ways in enumerate(valid):
            right[votes + j] += silent * ways
    return tuple(Fraction(right[k], whole * math.comb(n, k)) for k in range(1, n + 1))


def _two_options(own: int, n: int, k: int) -> int:
    """Twice the number of choices of k samples that the own option wins; a tie counts once."""
    return sum(
        math.comb(own, j) * math.comb(n - own, k - j) * (2 if 2 * j > k else 1) for j in range((k + 1) // 2, k + 1)
    )


# -- stopping, and choosing --------------------------------------------------------------------------------------------


def beta_confidence(first: int, second: int) -> Fraction:
    """1 - I_{1/2}(first + 1, second + 1): how likely the leader of two options is the more probable one.

    Aggarwal et al., "Let's Sample Step by Step: Adaptive-Consistency", EMNLP '23.
    """
    n = first + second + 1
    return Fraction(sum(math.comb(n, j) for j in range(first + 1)), 2**n)


def margin_accuracy(p: Number, margin: int) -> float | Fraction:
    """How often the right one of two options is the first to be ``margin`` votes ahead: 1 / (1 + (q/p)^margin)."""
    _chances(p=p)
    _votes(margin)
    (one,) = _taken(p)
    return one**margin / (one**margin + (1 - one) ** margin)


def margin_draws(p: Number, margin: int) -> float | Fraction:
    """How many votes it takes, on average, until one of two options is ``margin`` ahead."""
    _chances(p=p)
    _votes(margin)
    (one,) = _taken(p)
    ahead, behind = one**margin, (1 - one) ** margin
    if ahead == behind:
        return margin * margin + one - one
    return margin * (ahead - behind) / ((2 * one - 1) * (ahead + behind))


def verified_limit(p: Number, passes_right: Number, passes_wrong: Number) -> float | Fraction:
    """What best-of-n comes to for great n: pτ / (pτ + (1-p)φ), where a verifier passes τ of right answers, φ of wrong.

    Raises:
        ValueError: it passes nothing.
    """
    _chances(p=p, passes_right=passes_right, passes_wrong=passes_wrong)
    one, right, wrong = _taken(p, passes_right, passes_wrong)
    passed = one * right + (1 - one) * wrong
    if not passed:
        raise ValueError("nothing passes: there is no best one")
    return one * right / passed
