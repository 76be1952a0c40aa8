#| export
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import singledispatch, wraps
from inspect import isgenerator
from typing import Any
from warnings import catch_warnings, simplefilter

import mpmath
import numpy as np
import sympy
from sympy import Derivative, Expr, Integral, Limit, Product, Subs, Sum, Symbol, symbols
from sympy.core.function import AppliedUndef
from sympy.core.relational import Equality, Relational
x_0, x_s, x_t, ε = symbols("x_0 x_s x_t varepsilon", real=True)
α_t, β_t, ᾱ_s, ᾱ_t, σ = symbols(
    "alpha_t beta_t alphabar_s alphabar_t sigma", positive=True
)
A, B = symbols("A B", positive=True)
noise_to_signal = {
    ᾱ_t: 1 / ((1 + A) * (1 + B)),
    α_t: 1 / (1 + A),
    β_t: A / (1 + A),
    ᾱ_s: 1 / (1 + B),
}
#| export
_MARKS = {
    "proved": "✓",
    "special case": "◑",
    "by definition": "≝",
    "refuted": "✗",
    "checked": "≈",
    "tied": "⇔",
}


@dataclass(frozen=True, eq=False)
class Claim:
    "One line of the ledger: a claim, what became of it, and the function it is about."

    name: str  # paper, equation number and what of it, for example "DDPM eq. 7, mean"
    kind: str  # a key of `_MARKS`
    text: str  # the claim in LaTeX with its conditions, or the number that was measured
    function: str = ""  # the exported function that implements it, if one does
    case: str = ""  # what a proof is restricted to, for example "T = 3"
    lhs: Expr | None = None  # the two sides of a proof, to which a function can be tied
    rhs: Expr | None = None

    def __repr__(self) -> str:
        return f"{self.kind}: {self.name}"

    def _repr_markdown_(self) -> str:
        word = f"proved for {self.case}" if self.kind == "special case" else self.kind
        return f"{_MARKS[self.kind]} **{word}** ({self.name}) &emsp; {self.text}"


LEDGER: list[Claim] = []


def _enter(claim: Claim) -> Claim:
    LEDGER.append(claim)
    return claim


def _named(function: Callable[..., object] | None) -> str:
    "How the ledger calls a function: `q_sample`, or `Gaussian.log_prob` for a method."
    return getattr(function, "__qualname__", "")


def _titled(name: str, case: str = "") -> None:
    "A claim has a name, and a special case says which."
    if not (isinstance(name, str) and name.strip()):
        raise AssertionError("a claim needs a name")
    if not isinstance(case, str) or case != case.strip():
        raise AssertionError(f"{name}: case must say in words which, got {case!r}")


#| export
_HELD = (Integral, Derivative, Sum, Product, Limit, Subs)
_DIGITS = 30
Point = dict[Symbol, Expr]


class _NoNumber(Exception):
    "Why there is no number, in words that go on after 'because'."


class _Pole(_NoNumber):
    "An expression without held operations is infinite or undefined at a point."


@singledispatch
def _carried_out(held: Expr, point: Point) -> object:
    "The number of a held operation at a point, by arithmetic and not by sympy's rules."
    raise _NoNumber(f"{held} cannot be computed")


def _outermost(expr: Expr) -> Iterator[Expr]:
    "The held operations in `expr` that lie in no other."
    if isinstance(expr, _HELD):
        yield expr
    else:
        for part in expr.args:
            yield from _outermost(part)


def _number(expr: Expr, point: Point) -> Expr:
    "The value of `expr`, as it is written, at a point: to 30 digits, or _NoNumber."
    done = {held: sympy.sympify(_carried_out(held, point)) for held in _outermost(expr)}
    plain = expr.xreplace(done).replace(sympy.UnevaluatedExpr, lambda e: e)
    for power in plain.atoms(sympy.Pow):
        base, exponent = (side.xreplace(point) for side in power.args)
        if base == 0 and exponent == 0:
            raise _Pole("0 to the power 0 is undefined")
    value = sympy.N(plain.xreplace(point), _DIGITS, maxn=400)
    if value.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo, sympy.AccumBounds):
        raise _Pole(f"{expr} is infinite or undefined")
    if not all(part.is_Float or part.is_Integer for part in value.as_real_imag()):
        raise _NoNumber(f"{expr} cannot be computed")
    return value


def _function(expr: Expr, variables: list[Symbol], point: Point) -> Callable[..., Any]:
    "`expr` as a function of numbers of mpmath, with all other symbols at their point."
    others = {k: v for k, v in point.items() if k not in variables}
    if not expr.has(*_HELD):
        return sympy.lambdify(variables, expr.xreplace(others), "mpmath")
    return lambda *at: _mp(
        _number(expr, others | dict(zip(variables, map(sympy.sympify, at))))
    )


def _mp(number: Expr) -> Any:
    "A number of sympy as one of mpmath; the ends of a range may be infinite."
    return sympy.lambdify([], number, "mpmath")()


#| export
@_carried_out.register
def _(held: Subs, point: Point) -> object:
    inside = {
        variable: value.xreplace(point) if not value.has(*_HELD) else _number(value, point)
        for variable, value in zip(held.variables, held.point)
    }
    return _number(held.expr, point | inside)


def _slope(f: Callable[[Any], Any], at: Any, order: int) -> Any:
    "A derivative by differences, for functions that are known to some 25 digits."
    if order > 1:
        return _slope(lambda x: _slope(f, x, order - 1), at, 1)
    short, long = (
        (f(at + step) - f(at - step)) / (2 * step)
        for step in (mpmath.mpf(10) ** -4, 2 * mpmath.mpf(10) ** -4)
    )
    return (4 * short - long) / 3


@_carried_out.register
def _(held: Derivative, point: Point) -> object:
    variables, orders = zip(*held.variable_count)
    if not all(v.is_Symbol and n.is_Integer for v, n in held.variable_count):
        raise _NoNumber(f"{held} cannot be computed")
    if len(variables) > 1 and held.expr.has(*_HELD):
        held = Derivative(Derivative(held.expr, *held.variable_count[:-1]), held.args[-1])
        variables, orders = variables[-1:], orders[-1:]
    f = _function(held.expr, list(variables), point)
    with mpmath.workdps(_DIGITS):
        at = tuple(_mp(_number(v, point)) for v in variables)
        if held.expr.has(*_HELD):
            return _slope(f, *at, int(orders[0]))
        return mpmath.diff(f, at, tuple(map(int, orders)))


#| export
def _panels(low: Any, high: Any) -> list[Any]:
    """Where a range is cut for quadrature. The cuts are at no special place, so that
    the two sides of a pole never cancel."""
    if mpmath.isinf(low) and mpmath.isinf(high):
        return [low, *(mpmath.mpf(n) + 0.31 for n in (-8, -4, -2, -1, 0, 1, 2, 4, 8)), high]
    if mpmath.isinf(high):
        return [low, *(low + 1.31**n - 0.69 for n in (0, 2, 4, 8)), high]
    if mpmath.isinf(low):
        return [low, *(high - 1.31**n + 0.69 for n in (8, 4, 2, 0)), high]
    return [low, low + (high - low) * 0.3819, high]


@_carried_out.register
def _(held: Integral, point: Point) -> object:
    *inner, last = held.limits
    if len(last) != 3:
        raise _NoNumber("an integral without limits is no number")
    within = Integral(held.function, *inner) if inner else held.function
    f = _function(within, [last[0]], point)
    with mpmath.workdps(_DIGITS):
        low, high = (_mp(end.xreplace(point)) for end in last[1:])
        try:
            value, error = mpmath.quad(f, _panels(low, high), error=True)
        except ZeroDivisionError:
            raise _NoNumber(f"{within} is infinite in the range of integration") from None
        if not error <= 1e-10 * max(1, abs(value)):
            raise _NoNumber(f"the integral of {within} does not converge")
    return value


#| export
def _series(f: Callable[[Any], Any], low: Any) -> Any:
    "A sum without end, if its terms fall clearly faster than 1/n."
    weights = [abs(n * f(mpmath.mpf(n))) for n in (10**3, 10**4, 10**5)]
    if not (weights[1] <= 0.7 * weights[0] and weights[2] <= 0.7 * weights[1]):
        raise _NoNumber("the sum does not converge fast enough to be computed")
    return mpmath.nsum(f, [low, mpmath.inf])


@_carried_out.register(Sum)
@_carried_out.register(Product)
def _(held: Sum | Product, point: Point) -> object:
    *inner, (index, *ends) = held.limits
    within = held.func(held.function, *inner) if inner else held.function
    f = _function(within, [index], point)
    with mpmath.workdps(_DIGITS):
        low, high = (_mp(end.xreplace(point)) for end in ends)
        if isinstance(held, Sum) and high == mpmath.inf and mpmath.isint(low):
            return _series(f, low)
        if not (mpmath.isint(low) and mpmath.isint(high) and -1 <= high - low <= 10**4):
            raise _NoNumber(f"{index} cannot run from {ends[0]} to {ends[1]}")
        terms = [f(low + n) for n in range(int(high - low) + 1)]
        return mpmath.fsum(terms) if isinstance(held, Sum) else mpmath.fprod(terms)


#| export
def _approached(f: Callable[[Any], Any], steps: Iterable[Any]) -> Any:
    "The value that `f` settles at along two steps towards a place."
    first, second = (f(step) for step in steps)
    if not abs(first - second) <= 1e-8 * max(abs(second), 1e-3):
        raise _NoNumber("the limit does not settle")
    return second


@_carried_out.register
def _(held: Limit, point: Point) -> object:
    expr, variable, place, side = held.args
    f = _function(expr, [variable], point)
    with mpmath.workdps(350):
        near = mpmath.mpf(10) ** -60, mpmath.mpf(10) ** -80
        if place in (sympy.oo, -sympy.oo):
            sign = 1 if place == sympy.oo else -1
            return _approached(f, (sign / step for step in near))
        at = _mp(place.xreplace(point))
        sides = {"+": (1,), "-": (-1,), "+-": (1, -1)}[str(side)]
        found = [_approached(f, (at + s * step for step in near)) for s in sides]
        return _approached(lambda n: found[n], (0, -1))


#| export
def _fits(symbol: Symbol, number: Expr) -> bool:
    "Whether a number has the properties that were declared of a symbol."
    declared = symbol.assumptions0.items()
    return all(getattr(number, f"is_{fact}") in (holds, None) for fact, holds in declared)


def _candidates(
    low: Expr | None, high: Expr | None, level: int, rng: random.Random
) -> list[Expr]:
    "Exact numbers of all kinds: below 1 at level 0, between 1 and 2 at level 1, or any."
    share = sympy.Rational(rng.randint(1, 96), 97)
    number = share + (level if level < 2 else rng.choice((0, 1, 3)))
    if low is not None and high is not None:
        number = low + share * (high - low)
    elif low is not None or high is not None:
        number = low + number if high is None else high - number
    whole = sympy.floor(3 * number)
    plain = [number, -number, number + sympy.I * share]
    rng.shuffle(plain)
    special = [sympy.sqrt(2) * number, sympy.I * number, sympy.S.Zero]
    return [*plain, whole, sympy.floor(number), -whole, *special]


def _draw(
    symbol: Symbol, low: Expr | None, high: Expr | None, level: int, rng: random.Random
) -> Expr:
    "A number that a symbol can stand for."
    for _ in range(200):
        for number in _candidates(low, high, level, rng):
            if not _fits(symbol, number):
                continue
            if (low is None or number >= low) and (high is None or number <= high):
                return number
    raise _NoNumber(f"no number was found that {symbol} can stand for")


#| export
ASSUMED: list[Relational] = []  # ranges that hold on a whole page


def _stated(name: str, where: Relational | Iterable[Relational]) -> list[Relational]:
    "The ranges that a claim states, each an inequality of sympy."
    ranges = list(where) if isinstance(where, (list, tuple)) else [where]
    for range_ in ranges:
        if not isinstance(range_, Relational) or isinstance(range_, Equality):
            raise AssertionError(f"{name}: a range is an inequality, got {range_!r}")
        if range_.has(sympy.Float):
            raise AssertionError(f"{name}: {range_} has a decimal fraction")
    return ranges


def _bounds(symbol: Symbol, ranges: list[Relational]) -> tuple[Expr | None, Expr | None]:
    "The numbers between which ranges keep a symbol."
    low: list[Expr] = []
    high: list[Expr] = []
    for range_ in ranges:
        if range_.gts == symbol and range_.lts.is_number:
            low.append(range_.lts)
        if range_.lts == symbol and range_.gts.is_number:
            high.append(range_.gts)
    return max(low, default=None), min(high, default=None)


def _holds(range_: Relational, point: Point) -> bool:
    "Whether a range holds at a point; where it speaks of other symbols, it does."
    if not range_.free_symbols <= set(point):
        return True
    return bool(range_.xreplace(point).doit())


#| export
def _try(
    free: set[Symbol], given: Mapping[Expr, Expr], ranges: list[Relational], n: int, seed: int
) -> Point | None:
    "One draw of all symbols, or None if it is outside of what they mean."
    rng = random.Random(seed)
    keys = {k for k in given if k.is_Symbol}
    base = free.union(*(v.free_symbols for v in given.values())) - keys
    shared = base & set(noise_to_signal)
    drawn = (base - shared) | ({A, B} if shared else set())
    point = {v: _draw(v, *_bounds(v, ranges), n, rng) for v in sorted(drawn, key=str)}
    point |= {v: noise_to_signal[v].xreplace(point) for v in shared}
    point |= {k: given[k].xreplace(point) for k in keys}
    real = all(_fits(k, point[k]) for k in keys)
    return point if real and all(_holds(r, point) for r in ranges) else None


def _points(
    free: set[Symbol], given: Mapping[Expr, Expr], where: list[Relational], count: int = 6
) -> list[Point]:
    """Points at which symbols have values that they can have: the declared properties,
    the ranges, and 0 < ᾱ_t < ᾱ_s < 1 with α_t = 1 − β_t = ᾱ_t/ᾱ_s."""
    ranges, found = [*ASSUMED, *where], []
    for n in range(count):
        tries = (_try(free, given, ranges, n, 100 * n + seed) for seed in range(100))
        found += [next((point for point in tries if point is not None), None)]
    points = [point for point in found if point is not None]
    if not points:
        raise _NoNumber("no values of the symbols were found that satisfy all conditions")
    return points


def assume(
    *ranges: Relational,  # inequalities between symbols: `σ**2 < 1 - ᾱ_s`
) -> None:
    "State what the symbols of a page mean: all its claims are about these ranges only."
    ASSUMED.extend(_stated("assume", ranges))



#| export
def _side(name: str, side: object) -> Expr:
    "One side of a claim as a sympy expression, or AssertionError."
    expr = None if isinstance(side, str) else sympy.sympify(side)
    if not isinstance(expr, Expr) or expr.is_Matrix:
        kind = type(side).__name__
        raise AssertionError(f"{name}: a side must be an expression, got a {kind}")
    if expr.has(sympy.Float):
        raise AssertionError(f"{name}: {expr} has a decimal fraction")
    if expr.has(sympy.nan, sympy.zoo, sympy.oo) and not expr.has(*_HELD):
        raise AssertionError(f"{name}: {expr} is infinite or undefined")
    for part in sympy.preorder_traversal(expr):
        home = type(part).__module__ or ""
        if not (isinstance(part, AppliedUndef) or home.startswith("sympy.")):
            raise AssertionError(f"{name}: {part} has rules of its own, not sympy's")
        if isinstance(part, _HELD) and _idle(part):
            raise AssertionError(f"{name}: in {part} there is nothing to carry out")
    return expr


def _idle(held: Expr) -> bool:
    "Whether the variables of a held operation do not occur in its expression."
    variables = held.variables if hasattr(held, "variables") else held.args[1:2]
    return not any(held.args[0].has(variable) for variable in variables)


def _sides(name: str, lhs: object, rhs: object) -> tuple[Expr, Expr]:
    "Both sides of a claim, which must read differently and mean what they say."
    left, right = _side(name, lhs), _side(name, rhs)
    if left == right or sympy.latex(left) == sympy.latex(right):
        raise AssertionError(
            f"{name}: both sides read {left}, and a thing asserted against itself "
            "proves nothing"
        )
    names = sorted(v.name for v in left.free_symbols | right.free_symbols)
    for one, other in zip(names, names[1:]):
        if one == other:
            raise AssertionError(f"{name}: two different symbols are called {one}")
    return left, right


#| export
Given = dict[Expr, Expr]


def _definitions(name: str, given: Mapping[Any, Any] | None) -> Given:
    "The substitutions of a claim: exact, finite, and none used within another."
    found = {sympy.sympify(k): sympy.sympify(v) for k, v in (given or {}).items()}
    for key, value in found.items():
        which = f"{name}: given says {key} = {value}, "
        if not (isinstance(key, Expr) and isinstance(value, Expr)):
            raise AssertionError(f"{which}which is no substitution")
        if value.has(sympy.Float, sympy.nan, sympy.zoo, sympy.oo, *_HELD[2:]):
            raise AssertionError(f"{which}but a value must be exact and finite")
        if any(value.has(other) for other in found):
            raise AssertionError(f"{which}but a value may not contain what is replaced")
    return found


def _used(given: Given, *sides: Expr) -> Given:
    "The substitutions whose keys occur in one of the sides."
    return {
        key: value
        for key, value in given.items()
        if any(key in s.free_symbols if key.is_Symbol else s.has(key) for s in sides)
    }


def _unsaid(given: Given) -> bool:
    "Whether something is supposed of a function that is not specified."
    keys = (key for key in given if not isinstance(key, AppliedUndef))
    return any(key.has(AppliedUndef) for key in keys)


#| export
def _specified(expr: Expr) -> Expr:
    "`expr` with a sum of two exponentials for each function that is not specified."
    kinds = sorted({f.func for f in expr.atoms(AppliedUndef)}, key=str)
    for n, kind in enumerate(kinds, start=2):

        def stand_in(*at: Expr, n: int = n) -> Expr:
            along = sum((x / (n + k) for k, x in enumerate(at)), sympy.S.Zero)
            return sympy.exp(along) + sympy.exp(-along / 3) / n

        expr = expr.replace(kind, stand_in)
    return expr


def _gap(lhs: Expr, rhs: Expr, point: Point) -> Expr | None:
    "What two sides differ by at a point, or None if that is not more than rounding."
    held = any(side.has(*_HELD) for side in (lhs, rhs))
    relative, floor = (1e-8, 1e-3) if held else (1e-15, 1e-5)
    left, right = _number(lhs, point), _number(rhs, point)
    gap = left - right
    return gap if abs(gap) > relative * max(abs(left), abs(right), floor) else None


def _counterexample(
    lhs: Expr, rhs: Expr, given: Given, where: list[Relational]
) -> tuple[Point, Expr] | None:
    """A point at which the sides differ, as they are written, and by how much; or None
    if they agree wherever both have a number. A divergent operation is refused."""
    known = {key: v for key, v in given.items() if isinstance(key, AppliedUndef)}
    lhs, rhs = (_specified(s.subs(known, simultaneous=True)) for s in (lhs, rhs))
    given = {key: v for key, v in given.items() if key not in known}
    slow = any(side.has(Integral, Sum, Product, Limit) for side in (lhs, rhs))
    free = lhs.free_symbols | rhs.free_symbols
    free = free.union(*(key.free_symbols for key in given if not key.is_Symbol))
    points, poles = _points(free, given, where, 3 if slow else 6), []
    for point in points:
        try:
            for key, value in given.items():
                if not key.is_Symbol and _gap(key, value, point) is not None:
                    raise _NoNumber(f"{key} is not {value}")
            gap = _gap(lhs, rhs, point)
        except _Pole as pole:
            poles.append(pole)
            continue
        if gap is not None:
            shown = {v: x for v, x in point.items() if v in free}
            return shown, gap
    if len(poles) == len(points):
        raise poles[0]
    return None


#| export
_ROADS: tuple[Callable[[Expr], Expr], ...] = (
    sympy.simplify,
    lambda e: sympy.expand(sympy.together(e)),
    sympy.radsimp,
    lambda e: sympy.simplify(sympy.expand(e)),
    lambda e: sympy.simplify(sympy.expand_log(e)),
    lambda e: sympy.simplify(sympy.factor(e)),
)


def _vanishes(gap: Expr) -> bool:
    "Whether some chain of algebra turns `gap` into the integer 0."
    return any(road(gap) == 0 for road in _ROADS)


def _plain(expr: Expr) -> Expr:
    "`expr` with substitutions, and limits that are no more than that, carried out."
    if not expr.args:
        return expr
    if isinstance(expr, sympy.UnevaluatedExpr):
        return _plain(expr.args[0])
    if isinstance(expr, Subs):
        pairs = list(zip(expr.variables, map(_plain, expr.point)))
        return _plain(expr.expr).subs(pairs, simultaneous=True)
    if isinstance(expr, Limit):
        put = _plain(expr.args[0]).subs(*expr.args[1:3])
        infinite = put.has(sympy.nan, sympy.zoo, sympy.oo, sympy.AccumBounds)
        return expr if infinite or expr.args[2].is_infinite else put
    return expr.func(*map(_plain, expr.args))


def _by_definition(lhs: Expr, rhs: Expr, given: Given) -> bool:
    "Whether substitution alone makes the sides the same expression."
    left, right = (_plain(side).subs(given, simultaneous=True) for side in (lhs, rhs))
    return bool(left == right or left - right == 0)


#| export
def _divisors(expr: Expr) -> set[Expr]:
    "The factors by which an expression divides, and where it has no slope."
    bare = expr.replace(lambda e: isinstance(e, _HELD), lambda e: sympy.Dummy())
    bases = [p.base for p in bare.atoms(sympy.Pow) if p.exp.could_extract_minus_sign()]
    bases += [a.args[0] for d in expr.atoms(Derivative) for a in d.atoms(sympy.Abs)]
    factors = {f.as_base_exp()[0] for b in bases for f in sympy.factor(b).as_ordered_factors()}
    return {-f if f.could_extract_minus_sign() else f for f in factors if f.free_symbols}


def _never_zero(factor: Expr, ranges: list[Relational]) -> bool:
    "Whether a factor cannot vanish, by what is declared and stated of its symbols."
    in_ratios = sympy.factor(sympy.together(factor.subs(noise_to_signal)))
    strict = [r for r in ranges if isinstance(r, (sympy.Gt, sympy.Lt, sympy.Ne))]
    return (
        factor.is_zero is False
        or in_ratios.is_zero is False
        or any(sympy.expand(r.lhs - r.rhs + s * factor) == 0 for r in strict for s in (1, -1))
    )


def _left_out(lhs: Expr, rhs: Expr, given: Given, ranges: list[Relational]) -> list[str]:
    "In LaTeX, where one side has no value and the other may have one."
    sides = [_plain(side).subs(given, simultaneous=True) for side in (lhs, rhs)]
    alone = _divisors(sides[0]) ^ _divisors(sides[1])
    at_zero = sorted((f for f in alone if not _never_zero(f, ranges)), key=str)
    words = [f"where ${sympy.latex(factor)} \neq 0$" for factor in at_zero]
    gammas = sides[0].atoms(sympy.gamma) ^ sides[1].atoms(sympy.gamma)
    poles = [g for g in gammas if not g.args[0].is_positive]
    return words + [f"off the poles of ${sympy.latex(g)}$" for g in sorted(poles, key=str)]


#| export
def _from(*sides: Expr) -> list[str]:
    "From which side limits at finite places are taken, in words."
    words = {"+": "above", "-": "below"}
    found = {
        f"with ${sympy.latex(limit.args[1])}$ from {words[str(limit.args[3])]}"
        for side in sides
        for limit in side.atoms(Limit)
        if limit.args[2].is_finite and str(limit.args[3]) in words
    }
    return sorted(found)


def _conditions(lhs: Expr, rhs: Expr, given: Given, where: list[Relational]) -> str:
    "All that was used beside the two sides, in words and LaTeX."
    shown = [f"{sympy.latex(key)} = {sympy.latex(value)}" for key, value in given.items()]
    free = lhs.free_symbols | rhs.free_symbols
    free |= {v for value in given.values() for v in value.free_symbols}
    ranges = [r for r in ASSUMED if r.free_symbols <= free] + where
    parts = [f"where ${', '.join(shown)}$"] if shown else []
    parts += [f"for ${sympy.latex(range_)}$" for range_ in ranges]
    parts += _left_out(lhs, rhs, given, ranges) + _from(lhs, rhs)
    if _unsaid(given):
        parts.append("by algebra alone, without numbers")
    return "".join(f", {part}" for part in parts)


#| export
def _done(side: Expr) -> Expr:
    "A side with its held operations carried out by sympy, or as it is."
    try:
        return side.doit()
    except (ValueError, NotImplementedError, RecursionError, TypeError):
        return side


def _difference(lhs: Expr, rhs: Expr, given: Given) -> Expr:
    "What sympy makes of `lhs - rhs`, with every held operation carried out."
    return (_done(lhs) - _done(rhs)).subs(given, simultaneous=True)


def _differ(
    name: str, lhs: Expr, rhs: Expr, given: Given, where: list[Relational]
) -> tuple[Point, Expr] | None:
    "A point at which the sides differ, as they are written or as sympy sees them."
    if _unsaid(given):
        return None  # what is supposed of a function holds for no stand-in
    try:
        at = _counterexample(lhs, rhs, given, where)
        gap = _difference(lhs, rhs, given)
        after = _counterexample(gap, sympy.S.Zero, {}, where)
    except _NoNumber as reason:
        raise AssertionError(f"{name} is undecided, because {reason}") from None
    if (at is None) != (after is None):
        raise AssertionError(
            f"{name} is false: the operations as they are written give something else "
            f"than sympy makes of them, at {(at or after)[0]}"
        )
    return at


#| exports
def prove(
    name: str,  # paper, equation and what of it: "DDPM eq. 7, mean"
    lhs: object,  # the side that was derived
    rhs: object,  # the side as the paper writes it
    given: Mapping[Any, Any] | None = None,  # definitions, or a change of variable
    # the exported function that implements the identity
    function: Callable[..., object] | None = None,
    where: Relational | Iterable[Relational] = (),  # ranges: `s >= 1`
    case: str = "",  # what the claim is restricted to, in words: "T = 3"
) -> Claim:  # shows itself as the identity with its mark and conditions
    """Prove `lhs == rhs` for all values of their symbols, or raise AssertionError with
    a counterexample if one was met."""
    _titled(name, case)
    left, right = _sides(name, lhs, rhs)
    used = _used(_definitions(name, given), left, right, _done(left), _done(right))
    if not case and any(value.is_number for value in used.values()):
        raise AssertionError(f"{name}: given fixes a number, so case must say which case")
    ranges = _stated(name, where)
    if at := _differ(name, left, right, used, ranges):
        raise AssertionError(
            f"{name} is false: at {at[0]} the two sides differ by {sympy.N(at[1], 6)}"
        )
    gap = _difference(left, right, used)
    if _by_definition(left, right, used):
        kind = "by definition"
    elif not _vanishes(gap):
        raise AssertionError(
            f"{name} is not proved: no counterexample was found, but the difference does "
            f"not reduce to 0 but to {sympy.simplify(gap)}"
        )
    else:
        kind = "special case" if case else "proved"
    text = f"${sympy.latex(left)} = {sympy.latex(right)}$"
    text += _conditions(left, right, used, ranges)
    return _enter(Claim(name, kind, text, _named(function), case, left, right))


#| exports
def refute(
    name: str,  # what was changed: "DDPM eq. 7 with the sign of β̃ flipped"
    lhs: object,  # one side of the false identity
    rhs: object,  # the other side
    given: Mapping[Any, Any] | None = None,  # substitutions, as in prove
    where: Relational | Iterable[Relational] = (),  # ranges, as in prove
) -> Claim:  # shows itself as the identity with a cross, and a point where it fails
    "Show a point at which `lhs != rhs`, or raise AssertionError if none is found."
    _titled(name)
    left, right = _sides(name, lhs, rhs)
    used = _used(_definitions(name, given), left, right)
    ranges = _stated(name, where)
    at = _differ(name, left, right, used, ranges)
    if at is None:
        raise AssertionError(
            f"{name}: no point was found at which it fails, so this is no negative control"
        )
    point = ",\ ".join(f"{sympy.latex(k)} = {sympy.latex(v)}" for k, v in at[0].items())
    example = f", for example at ${point}$, where" if point else ";"
    return _enter(
        Claim(
            name,
            "refuted",
            f"${sympy.latex(left)} \neq {sympy.latex(right)}$"
            f"{_conditions(left, right, used, ranges)}{example} they differ by "
            f"${sympy.latex(sympy.N(at[1], 3))}$",
        )
    )



#| export
def _floats(name: str, numbers: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    "Numbers of any shape as float64: real, finite, and at least one."
    array = np.asarray(numbers)
    if array.dtype == object:
        array = np.asarray(array, dtype=np.float64)
    if array.dtype.kind not in "fiub":
        raise AssertionError(f"{name}: real numbers are compared, got {array.dtype}")
    if not array.size:
        raise AssertionError(f"{name}: there is no point at which to compare")
    if not np.isfinite(array).all():
        raise AssertionError(f"{name}: a value is not finite")
    return np.asarray(array, dtype=np.float64)


def _bound(name: str, bound: Any, most: float) -> float:
    "The largest difference allowed: a number from 0 up to `most`, or AssertionError."
    if not (isinstance(bound, (int, float)) and 0 <= bound <= most):
        raise AssertionError(f"{name}: allowed is a difference up to {most}, got {bound}")
    return float(bound)


#| exports
def checks(
    name: str,  # what is checked: "DDPM eq. 4, moments"
    value: Any,  # the numbers, of any shape
    oracle: Any,  # the same numbers, obtained in another way; or one for all of them
    within: float,  # largest absolute difference allowed
    by: str,  # the other way, in a few words: "an integral on a grid"
    # the exported function that was checked, if one was
    function: Callable[..., object] | None = None,
) -> Claim:  # shows itself with the largest difference met
    """Check numbers against those of an independent oracle, or raise AssertionError
    with the largest difference."""
    _titled(name)
    if value is oracle or np.shares_memory(np.asarray(value), np.asarray(oracle)):
        raise AssertionError(f"{name}: the numbers are compared with themselves")
    found, known = _floats(name, value), _floats(name, oracle)
    if known.shape not in (found.shape, ()):
        raise AssertionError(f"{name}: {found.shape} numbers against {known.shape}")
    largest = float(np.abs(known).max())
    _bound(name, within, np.nextafter(largest, 0) if largest else np.finfo(float).max)
    gap = float(np.abs(found - known).max())
    if not gap <= within:
        raise AssertionError(
            f"{name}: the largest difference is {gap:.3g}, allowed {within:.3g}"
        )
    text = (
        f"against {by}: {found.size} number{'s' * (found.size > 1)}, largest "
        f"difference {gap:.1e}, allowed {within:.0e}"
    )
    return _enter(Claim(name, "checked", text, _named(function)))


#| export
def _spoilt(value: Any) -> Any:
    "A result with all its numbers changed by a thousandth, and as much added."
    if isinstance(value, (list, tuple)):
        parts = [_spoilt(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isgenerator(value):
        return (_spoilt(part) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        named = [field.name for field in fields(value) if field.init]
        return replace(value, **{n: _spoilt(getattr(value, n)) for n in named})
    try:
        return value * (1 + 2**-10) + 2**-10
    except TypeError:
        return value


def _wrapped(
    function: Callable[..., Any], change: Callable[[Any], Any]
) -> Callable[..., Any]:
    "The function, with its results changed."

    @wraps(function)
    def called(*args: Any, **options: Any) -> Any:
        return change(function(*args, **options))

    return called


#| export
_PROVED = ("proved", "special case", "by definition")


def _tied_side(claim: Claim, side: str) -> tuple[str, Expr]:
    "Name and expression of a claim that was proved on this page, or AssertionError."
    if not (isinstance(claim, Claim) and any(claim is made for made in LEDGER)):
        raise AssertionError(f"a tie is to a claim of this page, got {claim!r}")
    if claim.kind not in _PROVED:
        raise AssertionError(f"{claim.name}: a tie is to what was proved, got {claim!r}")
    if side not in ("lhs", "rhs"):
        raise AssertionError(f"{claim.name}: side must be 'lhs' or 'rhs', got {side!r}")
    return claim.name, _done(getattr(claim, side))


def _evaluated(name: str, expr: Expr, values: Mapping[Any, Any]) -> Any:
    "The expression on arrays of float64, in the shape that the arrays have together."
    terms = {k: v for k, v in values.items() if isinstance(v, Expr) and v.free_symbols}
    expr = expr.subs(terms, simultaneous=True)
    symbols_ = sorted(expr.free_symbols, key=str)
    if missing := [v for v in symbols_ if v not in values or v in terms]:
        raise AssertionError(f"{name}: no numbers were given for {missing}")
    arrays = [_floats(name, values[v]) for v in symbols_]
    try:
        shape = np.broadcast_shapes(*(array.shape for array in arrays))
    except ValueError:
        shapes = [array.shape for array in arrays]
        raise AssertionError(f"{name}: {shapes} do not go together") from None
    want = sympy.lambdify(symbols_, expr, "numpy")(*arrays)
    return _floats(name, np.broadcast_to(np.asarray(want), shape))


def _relative(name: str, output: Any, want: Any) -> float:
    "The largest relative difference of an output from what was proved."
    got = _floats(name, output)
    if got.shape != want.shape:
        raise AssertionError(f"{name}: {got.shape} numbers came back for {want.shape}")
    scale = np.maximum(np.abs(want), np.finfo(np.float64).tiny)
    return float(np.max(np.abs(got - want) / scale, where=got != want, initial=0.0))


#| export
def _unmoved(
    call: Callable[[Callable[..., Any]], Any],
    function: Callable[..., Any],
    name: str,
    want: Any,
    rtol: float,
) -> bool:
    "Whether the comparison still succeeds when the function's results are spoilt."
    with catch_warnings():
        simplefilter("ignore")
        try:
            return _relative(name, call(_wrapped(function, _spoilt)), want) <= rtol
        except Exception:
            return False


#| exports
def ties(
    claim: Claim,  # what `prove` returned
    values: Mapping[Any, Any],  # for each symbol a float64 array, a number or a formula
    function: Callable[..., Any],  # the exported function
    # calls the function that it is handed; by default with the arrays in their order
    call: Callable[[Callable[..., Any]], Any] | None = None,
    of: str = "",  # what is added to the name, where one claim has several ties
    side: str = "rhs",  # the side of the claim that the function computes
    rtol: float = 1e-12,  # largest relative difference allowed
) -> Claim:  # shows itself with the largest difference met
    """Check that an exported function computes a proved expression, by calling it for
    the same float64 numbers; and that the comparison fails if its results are spoilt."""
    name, expr = _tied_side(claim, side)
    name += f", {of}" if of else ""
    _bound(name, rtol, 1e-6)
    if not _named(function) or "<lambda>" in _named(function):
        raise AssertionError(f"{name}: a function has a name, got {function!r}")
    given = [v for v in values.values() if not (isinstance(v, Expr) and v.free_symbols)]
    call = call or (lambda f: f(*given))
    want = _evaluated(name, expr, values)
    gap = _relative(name, call(_wrapped(function, lambda result: result)), want)
    if not gap <= rtol:
        raise AssertionError(
            f"{name}: {_named(function)} differs from the proved expression by a "
            f"relative {gap:.2g}, allowed {rtol:.0e}"
        )
    if _unmoved(call, function, name, want, rtol):
        raise AssertionError(f"{name}: the output does not depend on {_named(function)}")
    word = "definition" if claim.kind == "by definition" else "proof"
    text = (
        f"`{_named(function)}` agrees with the {word} at {want.size} points, largest "
        f"relative difference {gap:.1g}"
    )
    return _enter(Claim(name, "tied", text, _named(function)))
