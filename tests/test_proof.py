"""Attacks on `prove`, `refute`, `checks` and `ties`: what is false, undefined or empty
is refused in one sentence, what is true is accepted under its right name, and what is
shown says under which conditions."""

import dataclasses
import warnings

import numpy as np
import pytest
import sympy
import torch
from ddpm_lit import proof
from ddpm_lit.proof import A, B, checks, noise_to_signal, prove, refute, ties
from ddpm_lit.proof import x_0, x_s, ᾱ_s, ᾱ_t, α_t, β_t, σ
from sympy import Abs, Derivative, Function, Integral, Limit, Product, Rational, Subs
from sympy import Sum, Symbol, UnevaluatedExpr, exp, log, oo, pi, sqrt, symbols

x, y, u, a = symbols("x y u a", real=True)
p, q, s = symbols("p q s", positive=True)
n = symbols("n", integer=True, positive=True)
i = symbols("i", integer=True)
z = symbols("z")  # complex


@pytest.fixture(autouse=True)
def own_ledger(monkeypatch):
    "Each test begins with an empty ledger and without assumptions of a page."
    monkeypatch.setattr(proof, "LEDGER", [])
    if hasattr(proof, "ASSUMED"):
        monkeypatch.setattr(proof, "ASSUMED", [])


def refused(call, *args, says="", **options):
    "The one sentence with which a claim is refused; nothing enters the ledger."
    before = list(proof.LEDGER)
    with pytest.raises(AssertionError) as refusal:
        call("a claim", *args, **options)
    assert proof.LEDGER == before
    sentence = str(refusal.value)
    assert sentence.startswith("a claim") and "\n" not in sentence
    assert says in sentence, sentence
    return sentence


def kind(lhs, rhs, **options):
    return prove("a claim", lhs, rhs, **options).kind


class Liar(Function):
    "Says of itself what it is."

    def doit(self, **hints):
        return self.args[0] + 1


# an operation is carried out in two ways: as it is written, and by sympy

HELD_AND_FALSE = {
    "diverges in the whole range": (
        Integral(1 / (x - p) ** 2, (x, 0, 1)),
        1 / (p - 1) - 1 / p,
    ),
    "diverges for half of the range": (
        Integral(1 / (x + a) ** 2, (x, -1, 1)),
        2 / (a**2 - 1),
    ),
    "infinite": (Integral(1 / x**2, (x, -1, 1)), -2),
    "a principal value": (Integral(1 / x, (x, -1, 1)), 0),
    "a principal value off the middle": (Integral(1 / x, (x, -1, 2)), log(2)),
    "a principal value with a parameter": (
        Integral(1 / (x - p), (x, 0, 2 * p)),
        0,
    ),
    "converges for some a only": (
        Integral(exp(-a * x**2), (x, -oo, oo)),
        sqrt(pi / a),
    ),
    "a tail that is too heavy": (Integral(1 / x, (x, 1, oo)), 1),
    "a derivative of such an integral": (
        Derivative(Integral(1 / (x - p) ** 2, (x, 0, 1)), p),
        1 / p**2 - 1 / (p - 1) ** 2,
    ),
    "a divergent sum": (Sum(n, (n, 1, oo)), -Rational(1, 12)),
    "a divergent sum of signs": (Sum((-1) ** n, (n, 1, oo)), -Rational(1, 2)),
    "the harmonic series": (Sum(1 / n, (n, 1, oo)), sympy.EulerGamma),
    "a sum to half an index": (Sum(i, (i, 1, p)), p * (p + 1) / 2),
    "a sum that runs backwards": (Sum(i, (i, 5, 1)), -9),
    "a limit that does not exist": (Limit(sympy.sin(1 / x), x, 0), 0),
    "a limit that is infinite": (Limit(1 / x, x, 0), oo),
    "a limit with two sides": (Limit(Abs(x) / x, x, 0, "+-"), 1),
    "a limit from the wrong side": (Limit(Abs(x) / x, x, 0, "-"), 1),
    "a product with a factor too many": (Product(i, (i, 0, n)), sympy.factorial(n)),
    "the value at a pole": (Subs(1 / (x - 1), x, 1), 0),
    "0/0": (Subs(sympy.sin(x) / x, x, 0), 1),
    "0 to the power 0": (Subs(x**y, (x, y), (0, 0)), 1),
    "0 to the power 0, typed": (sympy.Pow(0, 0, evaluate=False), 1),
    "an integral without limits": (Integral(2 * x, x), x**2),
    "an operation with a rule of its own": (Liar(x), x + 1),
    "hidden in a sum": (Liar(x) + p - 1, x + p),
    "hidden in an integral": (Integral(Liar(x), (x, 0, 1)), Rational(3, 2)),
}


@pytest.mark.parametrize("case", HELD_AND_FALSE)
def test_held_operation_is_not_believed(case):
    refused(prove, *HELD_AND_FALSE[case])
    refused(prove, *reversed(HELD_AND_FALSE[case]))


HELD_AND_TRUE = {
    "integral": (Integral(x**2 * exp(-p * x), (x, 0, oo)), 2 / p**3),
    "bell": (Integral(exp(-((x - a) ** 2) / (2 * p)), (x, -oo, oo)), sqrt(2 * pi * p)),
    "narrow bell": (
        Integral(x * exp(-((x - a) ** 2) * 5000) * sqrt(5000 / pi), (x, -oo, oo)),
        a,
    ),
    "integral up to a symbol": (Integral(x, (x, 0, a)), a**2 / 2),
    "integrable pole at an end": (Integral(1 / sqrt(x), (x, 0, 1)), 2),
    "derivative": (Derivative(sympy.sin(p * x), x), p * sympy.cos(p * x)),
    "second derivative": (Derivative(x**3, (x, 2)), 6 * x),
    "derivative of an integral": (
        Derivative(Integral(exp(u**2), (u, 0, x)), x),
        exp(x**2),
    ),
    "sum": (Sum(i, (i, 1, n)), n * (n + 1) / 2),
    "infinite sum": (Sum(1 / n**2, (n, 1, oo)), pi**2 / 6),
    "product": (Product(i, (i, 1, n)), sympy.factorial(n)),
    "limit": (Limit((exp(x) - 1 - x) / x**2, x, 0), Rational(1, 2)),
    "limit with a root": (
        Limit((sqrt(1 + sqrt(p)) - 1) / sqrt(p), p, 0),
        Rational(1, 2),
    ),
    "limit at infinity": (Limit(n * log(1 + 1 / n), n, oo), 1),
    "limit with a logarithm": (Limit(p * log(p), p, 0), 0),
    "nested": (Subs(Derivative(x**3, x), x, p), 3 * p**2),
}


@pytest.mark.parametrize("case", HELD_AND_TRUE)
def test_held_operation_that_is_true_is_proved(case):
    assert kind(*HELD_AND_TRUE[case]) == "proved"


def test_unspecified_function_is_proved_by_algebra_and_it_says_so():
    f = Function("f")
    claim = prove(
        "chain",
        Derivative(log(f(x) ** 2 + 1), x),
        2 * f(x) * f(x).diff(x) / (f(x) ** 2 + 1),
    )
    assert claim.kind == "proved"
    refused(prove, Derivative(f(x) ** 2, x), f(x) * f(x).diff(x), says="false")
    heat = {Derivative(f(x), x): f(x)}
    claim = prove(
        "under a condition", Derivative(f(x), (x, 1)) * 2, 2 * f(x), given=heat
    )
    assert "without numbers" in claim.text


# A density of which nothing is known


density, weight, other = (Function(name, positive=True) for name in ("p", "w", "q"))
count, many = symbols("k n", integer=True, positive=True)
given_c = sympy.exp(-((x - y) ** 2) / 2)


def over_data(f):
    return Integral(f * density(y) * given_c, (y, -oo, oo))


def over_cases(f):
    cases = (count, 1, many)
    return Sum(weight(count) * f, cases) / Sum(weight(count), cases)


def test_integral_over_any_density():
    mean = over_data(y) / over_data(1)
    slope = Derivative(log(over_data(1)), x)
    claim = prove("Tweedie", mean, x + slope)
    assert claim.kind == "proved"
    assert "provided that the integrals converge" in claim.text
    refused(prove, mean, x - slope, says="false")
    refused(prove, over_data(y) ** 2, over_data(y**2), says="false")


def test_sum_over_any_number_of_cases():
    mean = over_cases(other(count))
    spread = over_cases((other(count) - mean) ** 2)
    claim = prove("variance", spread, over_cases(other(count) ** 2) - mean**2)
    assert claim.kind == "proved"
    refused(prove, spread, over_cases(other(count) ** 2) + mean**2, says="false")
    refused(prove, over_cases(1 / other(count)), 1 / mean, says="false")


def test_condition_names_what_is_written():
    claim = prove("slope", 1 / Derivative(x**2 * y, x), 1 / (2 * x * y))
    assert "Dummy" not in claim.text
    assert r"\frac{\partial}{\partial x}" in claim.text.split("where", 1)[1]


# `given`


def test_given_is_not_chained():
    chain = {ᾱ_t: β_t * ᾱ_s, β_t: 1}
    refused(prove, ᾱ_t, ᾱ_s, given=chain)
    refused(refute, ᾱ_t, 2 * ᾱ_s, given=chain)


GIVEN_REFUSED = {
    "a key in its own value": (x, x + 1, {x: x + 1}),
    "an exchange": (x - y, y - x, {x: y, y: x}),
    "a value that the symbol cannot have": (α_t, 2 * α_t, {α_t: 0}),
    "a negative share": (sqrt(α_t**2), -x_0, {α_t: -(x_0**2) - 1}),
    "a point, unsaid": (Derivative(x**2, x), 3 * x, {x: 0}),
    "a false identity": (sympy.tanh(x), x, {sympy.tanh(x): x}),
    "a value that is no number": (x, y, {x: oo}),
    "a comparison": (x, y, {x: sympy.Eq(x, y)}),
    "a decimal fraction": (x * y, y / 2, {x: 0.5}),
}


@pytest.mark.parametrize("case", GIVEN_REFUSED)
def test_given_that_is_refused(case):
    lhs, rhs, given = GIVEN_REFUSED[case]
    refused(prove, lhs, rhs, given=given)
    if case != "a point, unsaid":  # a refutation is at a point anyway
        refused(refute, lhs + 1, rhs, given=given)


def test_everything_that_was_given_is_shown():
    claim = prove("shown", α_t + β_t + x, 1 + y, given={β_t: 1 - α_t, x: y})
    assert r"\beta_{t} = 1 - \alpha_{t}" in claim.text and "x = y" in claim.text
    cancels = prove("cancels", β_t - x_0, β_t - x_s, given={x_0: x_s, ᾱ_t: A})
    assert "x_{0} = x_{s}" in cancels.text and "A" not in cancels.text
    both = prove(
        "on both sides",
        β_t + (x + 1) ** 2,
        β_t + x**2 + 2 * x + 1,
        given={β_t: 1 - α_t},
    )
    assert r"\beta_{t} = 1 - \alpha_{t}" in both.text


# what is no claim

NO_CLAIM = {
    "itself": (x + x, 2 * x),
    "the same to the eye": (UnevaluatedExpr(x), x),
    "two symbols of one name": (Symbol("x", positive=True), x),
    "a name with other assumptions": (Symbol("x"), x + 0 * y),
    "nan": (sympy.nan, 1),
    "infinite sides": (oo, -oo),
    "complex infinity": (sympy.zoo, 1),
    "an equation": (sympy.Eq(x, y), x),
    "a truth value": (True, True),
    "a matrix": (sympy.eye(2), sympy.ones(2)),
    "a word": ("x + 1", x + 1),
    "nothing": (None, x),
    "a float": (0.5 * x, x / 2),
    "a float that is a third": (sympy.Float(1) / 3 * x, x / 3),
    "a float within an operation": (Integral(0.5 * x, (x, 0, 2)), 1),
    "a numpy number": (np.float64(0.25), Rational(1, 4)),
    "nothing to put in": (Subs(x / x, x, 0), 1),
    "nothing to integrate": (Integral(ᾱ_t, (x, 0, 1)), ᾱ_t),
    "nothing to add up": (Sum(ᾱ_t, (i, 1, 1)), ᾱ_t),
    "no limit to take": (Limit(ᾱ_t, x, 0), ᾱ_t),
    "no slope": (Derivative(ᾱ_t + x - x, x, evaluate=False), 0),
}


@pytest.mark.parametrize("case", NO_CLAIM)
def test_what_is_no_claim_is_refused(case):
    refused(prove, *NO_CLAIM[case])


def test_a_claim_has_a_name():
    for nameless in ("", "  ", None):
        with pytest.raises(AssertionError):
            prove(nameless, (x + 1) ** 2, x**2 + 2 * x + 1)


# a difference that is complex, infinite or undefined


def test_complex_difference_is_one_sentence():
    assert "I" in refused(prove, log(x_0**2), 2 * log(x_0), says="is false")
    claim = refute("logarithm of a square", log(x_0**2), 2 * log(x_0))
    assert claim.kind == "refuted" and "i" in claim.text


@pytest.mark.parametrize("call", [prove, refute])
def test_side_without_a_number_is_one_sentence(call):
    refused(call, Integral(1 / x**2, (x, -1, 1)), p)
    refused(call, Sum(n, (n, 1, oo)), p)
    refused(call, Integral(exp(p * x**2), (x, -oo, oo)), sqrt(pi))
    refused(call, x / UnevaluatedExpr(sympy.Integer(0)), p)


@pytest.mark.parametrize(
    "claim",
    [(sqrt(x**2), x), (sympy.conjugate(z), z), (Abs(p - 1), 1 - p), (sympy.sign(x), 1)],
)
def test_false_somewhere_is_found(claim):
    refused(prove, *claim, says="is false")
    assert refute("a claim", *claim).kind == "refuted"


# the points respect what symbols mean


def test_points_are_those_of_a_schedule():
    refused(refute, sqrt((ᾱ_s - ᾱ_t) ** 2), ᾱ_s - ᾱ_t, says="no point")
    refused(refute, sqrt((1 - ᾱ_t) ** 2), 1 - ᾱ_t, says="no point")
    refused(refute, Abs(β_t - 1), α_t, says="no point")
    refused(refute, ᾱ_s * α_t, ᾱ_t, says="no point")
    refused(refute, Abs(A - B), 1 / (1 - ᾱ_t) * 0 + Abs(B - A), says="")


def test_point_of_a_refutation_is_in_the_schedule():
    for t in proof._points({ᾱ_s, ᾱ_t, α_t, β_t}, {}, []):
        assert 0 < t[ᾱ_t] < t[ᾱ_s] < 1 and t[α_t] == t[ᾱ_t] / t[ᾱ_s] == 1 - t[β_t]
    for t in proof._points({ᾱ_s, A, B}, noise_to_signal, []):
        assert t[ᾱ_s] == 1 / (1 + t[B])


def test_ranges_that_a_claim_states():
    inside = Abs(x + s) / 2 - Abs(x - s) / 2
    assert refute(
        "clip, then divide",
        inside / s,
        (Abs(x + 1) - Abs(x - 1)) / (2 * s),
        where=s >= 1,
    )
    assert all(t[s] >= 1 for t in proof._points({s, x}, {}, [s >= 1]))
    refused(refute, Abs(s - 1), s - 1, where=s >= 1, says="no point")
    assert (
        kind(Integral(1 / (x - p) ** 2, (x, 0, 1)), 1 / (p - 1) - 1 / p, where=p > 1)
        == "proved"
    )
    claim = prove(
        "shown",
        Integral(1 / (x - p) ** 2, (x, 0, 1)),
        1 / (p - 1) - 1 / p,
        where=[p > 1],
    )
    assert "p > 1" in claim.text


@pytest.mark.parametrize(
    "where",
    [[x > 1, x < 0], x * x + 1 < 0, sympy.Gt(x, 0.5), True, "x > 1", sympy.Eq(x, y), x],
)
def test_ranges_that_make_no_sense(where):
    refused(prove, (x + 1) ** 2, x**2 + 2 * x + 1, where=where)


def test_ranges_of_a_page():
    refused(prove, sqrt((1 - ᾱ_s - σ**2) ** 2), 1 - ᾱ_s - σ**2, says="is false")
    proof.assume(σ**2 < 1 - ᾱ_s)
    refused(refute, sqrt((1 - ᾱ_s - σ**2) ** 2), 1 - ᾱ_s - σ**2, says="no point")
    assert r"\sigma^{2} < 1" in refute("a claim", σ**2, 1 - ᾱ_s).text


@pytest.mark.parametrize(
    "assumptions",
    [
        dict(negative=True),
        dict(nonpositive=True),
        dict(nonnegative=True),
        dict(even=True),
        dict(odd=True),
        dict(integer=True, negative=True),
        dict(integer=True, nonnegative=True),
        dict(prime=True),
        dict(irrational=True),
        dict(imaginary=True),
        dict(zero=True),
        dict(real=True, nonzero=True),
        dict(complex=True, nonzero=True),
        dict(positive=True),
    ],
)
def test_points_have_the_declared_properties(assumptions):
    k = Symbol("k", **assumptions)
    for at in proof._points({k}, {}, []):
        for fact, holds in assumptions.items():
            assert getattr(at[k], f"is_{fact}") is holds


def test_positive_symbols_are_tried_below_and_above_one():
    values = [at[p] for at in proof._points({p}, {}, [])]
    assert min(values) < 1 < max(values)


# a tick of its own for each kind


def test_what_substitution_alone_shows_is_by_definition():
    assert kind(α_t + β_t, 1, given={β_t: 1 - α_t}) == "by definition"
    assert kind(Subs(x, x, ᾱ_t), ᾱ_t) == "by definition"
    assert kind(Subs((ᾱ_s - ᾱ_t) / ᾱ_s, ᾱ_s, 1), 1 - ᾱ_t) == "by definition"
    assert kind(sympy.Add(x, y, x, evaluate=False), 2 * x + y) == "by definition"
    assert kind(sympy.Mul(x, x, evaluate=False), x**2) == "by definition"
    assert kind(Limit(ᾱ_t / (1 - ᾱ_t), ᾱ_t, 0), 0) == "by definition"
    assert kind(2 * Limit(x + p, x, 1, "-"), 2 * p + 2) == "by definition"
    assert kind(UnevaluatedExpr(x + p) * 2, 2 * p + 2 * x) == "by definition"


def test_what_needs_algebra_is_proved():
    assert kind(1 - ᾱ_t / ᾱ_s, (ᾱ_s - ᾱ_t) / ᾱ_s) == "proved"
    assert (
        kind(α_t * ᾱ_s, 1 / ((1 + A) * (1 + B)), given=noise_to_signal)
        != "special case"
    )
    assert kind(ᾱ_t / (1 - ᾱ_t), 1 / (A + B + A * B), given=noise_to_signal) == "proved"
    assert kind(Subs(x**2 - y**2, x, x + y), x**2 + 2 * x * y) == "proved"


def test_author_states_a_special_case():
    total = Sum(i**2, (i, 1, 3))
    claim = prove("squares", total * p, 14 * p, case="T = 3")
    assert claim.kind == "special case" and claim.case == "T = 3"
    assert "for T = 3" in claim._repr_markdown_()
    defined = prove("at one", (x + 1) ** 2, y, given={x: 1, y: 4}, case="x = 1")
    assert defined.kind == "by definition" and "for x = 1" in defined.text
    for nothing in (" ", 3, True):
        refused(prove, (x + 1) ** 2, x**2 + 2 * x + 1, case=nothing)


def test_each_kind_looks_different():
    checked = checks("c", [1.0, 2.0], [1.0, 2.0], within=0.1, by="hand")
    claims = [
        prove("proved", (x + 1) ** 2, x**2 + 2 * x + 1),
        prove("a case", (x + 1) ** 2, x**2 + 2 * x + 1, case="one pixel"),
        prove("defined", α_t + β_t, 1, given={β_t: 1 - α_t}),
        refute("refuted", x, x**2),
        checked,
        ties(
            prove("t", p**2 - q**2, (p + q) * (p - q)),
            {p: np.arange(2, 9), q: 1},
            difference,
        ),
    ]
    assert len({c.kind for c in claims}) == 6
    assert len({c._repr_markdown_()[0] for c in claims}) == 6
    assert all(c.kind in c._repr_markdown_() or c.case for c in claims)


# conditions are named


def test_removable_points_are_named():
    assert r"x - 1 \neq 0" in prove("a", (1 - x**2) / (1 - x), 1 + x).text
    assert r"x \neq 0" in prove("b", Derivative(Abs(x), x), sympy.sign(x)).text
    gamma = prove("c", sympy.gamma(x + 1), x * sympy.gamma(x)).text
    assert r"\Gamma" in gamma.split("=")[-1] and "pole" in gamma
    assert "neq" not in prove("d", 1 - ᾱ_t / ᾱ_s, (ᾱ_s - ᾱ_t) / ᾱ_s).text
    assert "neq" not in prove("e", (1 - ᾱ_t**2) / (1 - ᾱ_t), 1 + ᾱ_t).text
    assert "neq" not in prove("f", (1 - p**2) / (1 - p), 1 + p, where=p < 1).text


def test_side_of_a_limit_is_named():
    assert "from above" in prove("a", Limit(Abs(x) / x, x, 0), 1).text
    assert "from below" in prove("b", Limit(Abs(x) / x, x, 0, "-"), -1).text
    assert "from" not in prove("c", Limit(sympy.sin(x) / x, x, 0, "+-"), 1).text
    assert "from" not in prove("d", Limit(1 / (1 + n), n, oo), 0).text


def test_true_but_not_shown_does_not_read_as_false():
    for claim in (
        (sympy.erf(x), 1 - sympy.erfc(x)),
        (Abs(x), sympy.Piecewise((x, x > 0), (-x, True))),
    ):
        try:
            assert prove("a claim", *claim).kind == "proved"
        except AssertionError as refusal:
            assert "no counterexample" in str(refusal)
            assert "false" not in str(refusal)


def test_agreement_at_all_points_is_no_proof():
    points = proof._points({x}, {}, [])
    vanishes = sympy.prod(x - at[x] for at in points)
    assert "no counterexample" in refused(prove, vanishes + x, x)
    far = sympy.Piecewise((x, x < 100), (x + 1, True))
    refused(prove, far, x)


# `refute`


def test_nothing_true_is_refuted():
    for case, sides in HELD_AND_TRUE.items():
        refused(refute, *sides)
    refused(refute, (1 - ᾱ_t) + ᾱ_t, 1)


def test_refutation_shows_its_point_and_both_agree():
    claim = refute("a claim", 1 - ᾱ_t / ᾱ_s, (ᾱ_s - ᾱ_t) / ᾱ_t)
    assert claim.kind == "refuted" and "differ by" in claim.text
    assert refute("held", Integral(x**2, (x, 0, p)), p**3 / 2).kind == "refuted"


# `checks`

CHECKS_REFUSED = {
    "nothing": ([], []),
    "an empty array": (np.zeros((0, 3)), np.zeros((0, 3))),
    "rows against a column": (np.ones(8), np.ones((8, 1))),
    "another length": ([1.0, 1.0], [1.0, 1.0, 1.0]),
    "one against many": (1.0, [1.0, 1.0, 1.0]),
    "nan": ([np.nan], [np.nan]),
    "infinite": ([np.inf], [np.inf]),
    "complex": ([1 + 1e-9j], [1.0]),
    "words": (["1"], [1.0]),
}


@pytest.mark.parametrize("case", CHECKS_REFUSED)
def test_check_that_compares_nothing(case):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(checks, *CHECKS_REFUSED[case], within=1e-3, by="hand")


def test_check_against_itself():
    values = torch.arange(5.0)
    refused(checks, values, values, within=0, by="itself")
    refused(checks, values, values[:], within=0, by="a view of itself")
    refused(checks, values.numpy(), values, within=0, by="the same memory")


@pytest.mark.parametrize("within", [np.nan, np.inf, -1.0, 5.0, 1e9, None])
def test_check_that_cannot_fail(within):
    "Five would accept 0 in place of every number."
    refused(checks, [1.0, 2.0, 3.0], [1.0, 2.0, 3.0], within=within, by="hand")


def test_check_of_z_scores_has_a_bound():
    assert checks("z", [1.0, -2.0], 0, within=4, by="hand").kind == "checked"
    assert checks("zero", [0.0, 0.0], [0, 0], within=0, by="hand").kind == "checked"
    refused(checks, [1.0, -5.0], 0, within=4, by="hand")


# `ties`


def difference(p, q):
    return (p - q) * (p + q)


def wrong(p, q):
    return (p - q) ** 2


def squares():
    return prove("squares", p**2 - q**2, (p + q) * (p - q))


NUMBERS = {p: np.linspace(2, 3, 50), q: np.linspace(0.1, 1, 50)}


def untied(*args, **options):
    before = list(proof.LEDGER)
    with pytest.raises(AssertionError) as refusal:
        ties(*args, **options)
    assert proof.LEDGER == before and "\n" not in str(refusal.value)
    return str(refusal.value)


def test_tie_calls_the_function():
    tied = ties(squares(), NUMBERS, difference)
    assert tied.kind == "tied" and tied.function == "difference"
    assert tied.name == "squares" and "50 points" in tied.text
    also = ties(
        squares(), NUMBERS, difference, lambda f: f(NUMBERS[p], NUMBERS[q]), of="again"
    )
    assert also.name == "squares, again" and also.proof == "squares"
    assert "differs" in untied(squares(), NUMBERS, wrong)


def test_tie_to_nothing_proved():
    for stranger in (
        proof.Claim("squares", "proved", ""),
        dataclasses.replace(squares(), name="another"),
        refute("refuted", p, p**2),
        checks("checked", [1.0], [1.0], within=0.1, by="hand"),
        "squares",
        (p + q) * (p - q),
        None,
    ):
        untied(stranger, NUMBERS, difference)


def test_tie_of_a_tie():
    untied(ties(squares(), NUMBERS, difference), NUMBERS, difference)


def test_tie_at_no_point_or_at_other_points():
    claim = squares()
    empty = {p: np.zeros(0), q: np.zeros(0)}
    assert "no point" in untied(claim, empty, difference)
    untied(claim, NUMBERS, difference, lambda f: f(NUMBERS[p], NUMBERS[q])[:, None])
    untied(claim, NUMBERS, difference, lambda f: f(NUMBERS[p], NUMBERS[q])[:10])
    untied(claim, NUMBERS, difference, lambda f: f(NUMBERS[p], NUMBERS[q])[0])
    untied(
        claim, {p: np.ones(3), q: np.ones(4)}, difference, lambda f: f(np.ones(3), 1)
    )
    untied(claim, {p: NUMBERS[p]}, difference, lambda f: f(NUMBERS[p], 1))


def test_tie_to_a_function_that_is_not_called():
    claim, answer = squares(), difference(*NUMBERS.values())
    refusal = untied(claim, NUMBERS, difference, lambda f: answer)
    assert "no number comes from" in refusal
    cheats = (
        lambda f: (f(NUMBERS[p], NUMBERS[q]), answer)[1],
        lambda f: answer + 0 * f(NUMBERS[p], NUMBERS[q]),
        lambda f: answer if f is difference else answer + 1,
        lambda f: difference(NUMBERS[p], NUMBERS[q]),
    )
    for cheat in cheats:
        untied(claim, NUMBERS, difference, cheat)


def test_tie_to_a_function_without_a_name():
    untied(squares(), NUMBERS, lambda p, q: (p - q) * (p + q))
    untied(squares(), NUMBERS, "difference")


@pytest.mark.parametrize("rtol", [np.nan, np.inf, -1.0, 0.1])
def test_tie_that_cannot_fail(rtol):
    untied(squares(), NUMBERS, wrong, rtol=rtol)


@pytest.mark.parametrize("spoil", [np.nan, np.inf, 1e-9j])
def test_tie_of_numbers_that_are_none(spoil):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        untied(squares(), NUMBERS, difference, lambda f: f(*NUMBERS.values()) + spoil)


def test_tie_with_values_given_as_expressions():
    claim = prove("stride", 1 - ᾱ_t / ᾱ_s, (ᾱ_s - ᾱ_t) / ᾱ_s)
    abar = np.linspace(0.9, 0.1, 30)
    values = {ᾱ_t: α_t * ᾱ_s, α_t: abar, ᾱ_s: abar + 0.05}
    assert (
        ties(claim, values, stride, lambda f: f(abar * (abar + 0.05), abar + 0.05)).kind
        == "tied"
    )


def stride(abar_t, abar_s):
    return (abar_s - abar_t) / abar_s


def test_tie_to_either_side():
    claim = squares()
    assert ties(claim, NUMBERS, difference, side="lhs").kind == "tied"
    untied(claim, NUMBERS, difference, side="middle")


def test_tie_of_tensors_tuples_and_records():
    claim = squares()
    torched = {k: torch.tensor(v) for k, v in NUMBERS.items()}
    assert ties(claim, torched, difference).kind == "tied"

    def pair(p, q):
        return difference(p, q), p

    assert ties(claim, torched, pair, lambda f: f(*torched.values())[0]).kind == "tied"

    def record(p, q):
        return proof.Claim("r", "", "", lhs=difference(p, q))

    assert (
        ties(claim, torched, record, lambda f: f(*torched.values()).lhs).kind == "tied"
    )


@dataclasses.dataclass(frozen=True)
class Checked:
    "Refuses to be made with other numbers, as a noise schedule does."

    numbers: torch.Tensor

    def __post_init__(self):
        if self.numbers.max() > 9:
            raise ValueError("too large")


def test_tie_of_what_refuses_other_numbers_and_of_functions():
    claim, torched = squares(), {k: torch.tensor(v) for k, v in NUMBERS.items()}
    answer = difference(*torched.values())

    def checked(p, q):
        return Checked(difference(p, q))

    def maker(p):
        return lambda q: difference(p, q)

    by_field = lambda f: f(*torched.values()).numbers
    by_call = lambda f: f(torched[p])(torched[q])
    assert ties(claim, torched, checked, by_field, of="a field").kind == "tied"
    assert ties(claim, torched, maker, by_call, of="a function").kind == "tied"
    untied(claim, torched, checked, lambda f: (f(*torched.values()), answer)[1])
    untied(claim, torched, maker, lambda f: (f(torched[p]), answer)[1])


def test_tie_to_values_of_a_function():
    f, k = Function("f"), symbols("k", integer=True)
    steps = Sum((f(k - 1) - f(k)) * p, (k, 2, n))
    claim = prove("telescope", steps, (f(1) - f(n)) * p)
    values = {f(1): [3.0, 4.0], f(n): [1.0, 2.5], p: 2.0}

    def drop(first, last):
        return 2 * (np.array(first) - last)

    tied = ties(claim, values, drop, lambda g: g([3.0, 4.0], [1.0, 2.5]))
    assert tied.kind == "tied"
