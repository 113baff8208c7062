import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import example, given
from hypothesis import strategies as st
from kfp import dsl

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.runner import conditions
from mlops_mini.runner.conditions import evaluate
from tests.conformance.components import boolean, named, num, say, text

X = "inputs.parameter_values['x']"
Y = "inputs.parameter_values['y']"


@pytest.mark.parametrize(
    ("condition", "x", "expected"),
    [
        (f"{X} > 0.5", 0.9, True),
        (f"{X} > 0.5", 0.5, False),
        (f"{X} >= 0.5", 0.5, True),
        (f"{X} < -1e-07", -1.0, True),
        (f"{X} <= 1e+300", 1e300, True),
        (f"{X} == 3", 3, True),
        (f"{X} == 3.0", 3, True),
        (f"{X} != .5", 0.25, True),
        (f"{X} == 9007199254740993", 9007199254740992.0, False),
        (f"0.5<{X}", 0.9, True),
        (f"{X} == true", True, True),
        (f"{X} != false", False, False),
        (f"{X} == {X}", False, True),
        (X, True, True),
        (f"!{X}", True, False),
        (f"!!{X}", True, True),
        (f"! {X} == true", True, False),
        (f"({X} == true)", True, True),
        (f"{X} == 'go'", "go", True),
        (f"{X} == 'go'", "Go", False),
        (f'{X} == "go"', "go", True),
        (f"{X} != 'no'", "it's", True),
        (f"{X} < 'b'", "a", True),
        (f"{X} == ''", "", True),
        (rf"{X} == 'it\'s'", "it's", True),
        (f'{X} == "it\'s"', "it's", True),
        (rf'{X} == "say \"a\""', 'say "a"', True),
        (rf"{X} == 'a\\n'", "a\\n", True),
        (rf"{X} == 'a\nb'", "a\nb", True),
        (f"{X} == 'a && b || !c true'", "a && b || !c true", True),
        (f"{X} == 'inputs.parameter_values[]'", "inputs.parameter_values[]", True),
        (f"{X} == '{{}} é \u2028'", "{} é \u2028", True),
        (f"int({X}) >= 3", 3, True),
        (f"int({X}) == 2", 2.7, True),
        (f"int({X}) == -2", -2.7, True),
        (f"int({X}) == 12", "12", True),
        (f"double({X}) == 0.5", "0.5", True),
        (f"double(int({X})) > 2.5", 3, True),
        (f"string({X}) == '3'", 3.0, True),
        (f"string({X}) == '0.5'", 0.5, True),
        (f"string({X}) == 'true'", True, True),
        (f"string({X}) == 'a'", "a", True),
        ("double(10) == 10.0", None, True),
        (f"int(double('3')) == int(string({X}))", 3, True),
        ('inputs.parameter_values[ "x" ] == 1', 1, True),
        (f"  {X}\n==\t1  ", 1, True),
    ],
)
def test_holds_or_not(condition: str, x: Any, expected: bool) -> None:
    assert evaluate(condition, {"x": x}) is expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("true || false && false", True),
        ("(true || false) && false", False),
        ("false && false || true", True),
        ("!true || true", True),
        ("!(true || true)", False),
        ("!false && !false", True),
        ("1 < 2 && 2 < 3 && !(3 < 2)", True),
        ("1 < 2 && 2 < 3 && 3 < 2", False),
        ("false || false || true", True),
        ("true == (1 < 2)", True),
    ],
)
def test_and_binds_tighter_than_or_and_not_tighter_than_both(
    condition: str, expected: bool
) -> None:
    assert evaluate(condition, {}) is expected


@pytest.mark.parametrize(
    ("condition", "values", "why"),
    [
        # kinds
        (f"{X} == 'a'", {"x": 3}, r"compares number with string \(3 == 'a'\).*; x=3"),
        (f"{X} > 'a'", {"x": 3}, "compares number with string"),
        ("3 == 'a'", {}, "compares number with string"),
        ("3 > 'a'", {}, "compares number with string"),
        ("1 == true", {}, "compares number with bool"),
        (f"{X} == true", {"x": 1.0}, "compares number with bool"),
        (f"{X} == 'true'", {"x": True}, "compares bool with string"),
        (f"{X} != {Y}", {"x": "1", "y": 1}, "compares string with number .*; x='1', y=1"),
        (f"{X} == 1", {"x": [1]}, "compares list with number"),
        (f"{X} == {X}", {"x": [1]}, "two values of kind list"),
        (f"{X} == {X}", {"x": {"a": 1}}, "two values of kind struct"),
        (f"{X} > false", {"x": True}, "two values of kind bool by >"),
        # NaN
        (f"{X} > 0.5", {"x": math.nan}, "compares with NaN"),
        (f"{X} != {X}", {"x": math.nan}, "compares with NaN"),
        (f"0.5 == {X}", {"x": math.nan}, "compares with NaN"),
        # numbers as text
        (f"{X} > '9.0'", {"x": "10"}, r"compares numbers as text \('10' > '9.0'\)"),
        (f"{X} < '1e3'", {"x": "20"}, "compares numbers as text"),
        # missing
        (f"{X} == 1", {"y": 1, "z": 2}, r"needs the parameter 'x', .* there are: 'y', 'z'"),
        (f"{X} == 1", {}, "there are: none"),
        (f"{X} == 1", {"x": None}, "'x', which has no value"),
        # neither true nor false
        ("1", {}, "must be true or false as a whole, is number 1"),
        (X, {"x": "true"}, "as a whole, is string 'true'"),
        (f"!{X}", {"x": 1}, "after !, is number 1"),
        (f"{X} && true", {"x": 1}, r"left of &&, is number 1"),
        (f"true && {X}", {"x": "a"}, r"right of &&, is string 'a'"),
        (f"{X} || true", {"x": []}, r"left of \|\|, is list"),
        ("true || 1", {}, r"right of \|\|, is number 1"),
        # nothing is left out because the answer is known already
        ("true || 3 == 'a'", {}, "compares number with string"),
        ("false && 3 == 'a'", {}, "compares number with string"),
        (f"false && {X}", {}, "needs the parameter 'x'"),
        # conversions
        (f"int({X})== 1", {"x": "a"}, "cannot make int of the string 'a'"),
        (f"int({X})== 1", {"x": "1.5"}, "cannot make int of the string '1.5'"),
        (f"int({X})== 1", {"x": "1_0"}, "cannot make int of the string '1_0'"),
        (f"int({X})== 1", {"x": True}, "cannot make int of the bool True"),
        (f"int({X})== 1", {"x": math.inf}, "cannot make int of the number inf"),
        (f"int({X})== 1", {"x": math.nan}, "cannot make int of the number nan"),
        (f"int({X})== 1", {"x": 1e19}, r"cannot make int of the number 1e\+19"),
        (f"int({X})== 1", {"x": "9" * 19}, "cannot make int of the string '9999"),
        (f"double({X})== 1", {"x": "nan"}, "cannot make double of the string 'nan'"),
        (f"double({X})== 1", {"x": ""}, "cannot make double of the string ''"),
        (f"double({X})== 1", {"x": False}, "cannot make double of the bool False"),
        (f"string({X})== ''", {"x": []}, r"cannot make string of the list \[\]"),
        # what is no condition
        ("", {}, "ends too early"),
        ("  ", {}, "ends too early"),
        (f"{X} ==", {"x": 1}, "ends too early"),
        ("(true", {}, r"lacks a '\)' before its end"),
        ("(true false)", {}, r"lacks a '\)' before 'false'"),
        ("true)", {}, r"goes on after its end, with '\)'"),
        ("1 < 2 < 3", {}, "goes on after its end, with '<'"),
        ("true true", {}, "goes on after its end, with 'true'"),
        ("'a' 'b'", {}, "goes on after its end"),
        ("== 1", {}, "has '==' in place of a value"),
        ("&& true", {}, "has '&&' in place of a value"),
        ("x == 1", {}, "has 'x' in place of a value"),
        ("True", {}, "has 'True' in place of a value"),
        ("inf == inf", {}, "has 'inf' in place of a value"),
        ("int == 1", {}, "has 'int' in place of a value"),
        ("int() == 1", {}, r"has '\)' in place of a value"),
        ("abs(1) == 1", {}, "has 'abs' in place of a value"),
        ("size('a') == 1", {}, "has 'size' in place of a value"),
        ("__import__('os')", {}, "has '__import__' in place of a value"),
        ("inputs.parameter_values[x] == 1", {}, "has 'inputs' in place|cannot be read"),
        ("inputs.artifacts['x'] == 1", {}, "has 'inputs' in place|cannot be read"),
        ("1 = 1", {}, "cannot be read from '= 1' on"),
        ("true & true", {}, "cannot be read from '& true' on"),
        ("true; false", {}, "cannot be read from '; false' on"),
        ("1 + 1 == 2", {}, r"cannot be read from '\+ 1 == 2' on"),
        ("0x10 == 16", {}, "cannot be read from '0x10"),
        ("1.2.3 == 1", {}, "cannot be read from '1.2.3"),
        ("1. == 1", {}, "cannot be read from '1. == 1' on"),
        ("٣ == 3", {}, "cannot be read from '٣"),
        (f"{X} == 'it's'", {"x": "it's"}, 'cannot be read from "\'" on: check its quotes'),
        (f"{X} == 'a", {"x": "a"}, 'cannot be read from "\'a" on'),
        (f"{X} == 'a\nb'", {"x": "a\nb"}, "cannot be read from"),
        (rf"{X} == 'a\tb'", {"x": "a\tb"}, "cannot be read from"),
        (f"{X} == 'a\\'", {"x": "a"}, "cannot be read from"),
        ("1e999 > 1", {}, "holds 1e999, which is too large"),
        ("1" * 20 + " > 1", {}, "holds 1{20}, which is too large"),
        ("-" + "9" * 5000 + " > 1", {}, "holds -9{39}, which is too large"),
        ("(" * 40 + "true" + ")" * 40, {}, "is nested deeper than 32 times"),
        ("(" * 100_000, {}, "is nested deeper than 32 times"),
        ("int(" * 40 + "1" + ")" * 40 + " == 1", {}, "is nested deeper than 32 times"),
    ],
)
def test_what_cannot_be_decided_is_an_error(
    condition: str, values: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"(?s)condition .*({why})"):
        evaluate(condition, values)


def test_a_value_that_no_parameter_has_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="1j is a complex, and no parameter can be"):
        evaluate(f"{X} == 1", {"x": 1j})


def test_a_quote_in_a_value_opens_no_gate() -> None:
    for value in ("' == '' || 'a' == 'a", "x' || true || 'x", "') or ('a'=='a"):
        assert not evaluate(f"{X} == 'go'", {"x": value})
        assert evaluate(f"{X} != 'go'", {"x": value})


def test_the_error_says_condition_and_values_however_long_they_are() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        evaluate(f"{X} == 1 && {Y} == 'b' && {X} == 2", {"x": "a" * 10**6, "y": "b", "z": "no"})

    message = str(caught.value)
    assert message.startswith(f'condition "{X} == 1 && {Y} == ')
    assert "; x='aaaaaaaaaaaa...aaaaaaaaaaaaa', y='b'" in message
    assert len(message) < 400
    assert "no" not in message


def test_long_conditions_are_read_whatever_their_length() -> None:
    assert evaluate(" && ".join(["!(1 == 2)"] * 5000), {})
    assert evaluate("!" * 10_000 + "true", {})
    assert evaluate("(" * 32 + "true" + ")" * 32, {})


NAN = float("nan")
WORDS = [
    X, Y, "inputs.parameter_values['nobody']", "&&", "||", "!", "(", ")", "==", "!=", "<", "<=",
    ">", ">=", "true", "false", "3", "-0.5", "1e-07", "'a'", '"a"', "'it's'", "int(", "double(",
    "string(", "os", " ", "\\", "'", "\n", "é", "\x00",
]  # fmt: skip
VALUES = {"x": 0.5, "y": "a"}


@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS)).map(" ".join)))
@example("(" * 5000)
@example("!" * 5000 + "(" * 5000)
@example("9" * 10_000)
def test_any_text_is_decided_or_refused(condition: str) -> None:
    answer: object
    try:
        answer = evaluate(condition, VALUES)
    except InvalidArgumentError as exc:
        answer = repr(condition) in str(exc) or "no condition in the message"

    assert isinstance(answer, bool)


@given(st.text(), st.text())
def test_any_text_can_be_compared_with(value: str, other: str) -> None:
    quoted = other.replace("\\", r"\\").replace("'", r"\'").replace("\n", r"\n")
    if "\r" in other:
        with pytest.raises(InvalidArgumentError, match="cannot be read from"):
            evaluate(f"{X} == '{quoted}'", {"x": value})
    else:
        assert evaluate(f"{X} == '{quoted}'", {"x": value}) is (value == other)
        assert evaluate(f"{X} == '{quoted}'", {"x": other})


@given(
    st.floats(allow_nan=False), st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["==", "!=", "<", "<=", ">", ">="]),
)  # fmt: skip
def test_numbers_are_compared_as_python_compares_them(x: float, y: float, sign: str) -> None:
    expected = eval(f"x {sign} y", {"x": x, "y": y})

    assert evaluate(f"{X} {sign} {y}", {"x": x}) is expected
    assert evaluate(f"{X} {sign} {Y}", {"x": x, "y": y}) is expected


def conditions_of(pipeline: Any) -> dict[str, str]:
    """The conditions of a pipeline by the name of their task."""
    spec = json_format.MessageToDict(pipeline.pipeline_spec)
    return {
        name: task["triggerPolicy"]["condition"]
        for component in (spec["root"], *spec["components"].values())
        for name, task in component.get("dag", {}).get("tasks", {}).items()
        if "condition" in task.get("triggerPolicy", {})
    }


def compiled(compare: Callable[[Any], Any]) -> str:
    """What kfp makes of a comparison, to which it gives every kind of parameter and output."""

    @dsl.pipeline(name="one-condition")
    def pipeline(number: float = 0.5, count: int = 3, word: str = "go", flag: bool = True):
        made = {"number": number, "count": count, "word": word, "flag": flag}
        made["num"], made["boolean"] = num(x=0.9).output, boolean(x=True).output
        made["text"], outputs = text(s="it's").output, named(x=0.9).outputs
        made["auc"], made["blessed"], made["why"] = (outputs[k] for k in ("auc", "blessed", "why"))
        with dsl.If(compare(SimpleNamespace(**made))):
            say(s="T")

    (condition,) = conditions_of(pipeline).values()
    return condition


COMPILED_VALUES = {
    "pipelinechannel--number": 0.5, "pipelinechannel--count": 3, "pipelinechannel--word": "go",
    "pipelinechannel--flag": True, "pipelinechannel--num-Output": 0.9,
    "pipelinechannel--boolean-Output": True, "pipelinechannel--text-Output": "it's",
    "pipelinechannel--named-auc": 0.9, "pipelinechannel--named-blessed": True,
    "pipelinechannel--named-why": "it's fine",
}  # fmt: skip


@pytest.mark.parametrize(
    ("compare", "expected"),
    [
        (lambda made: made.number == 0.5, True),
        (lambda made: made.number > 3, False),
        (lambda made: made.number > -3, True),
        (lambda made: made.number > -1e-07, True),
        (lambda made: made.number < 1e300, True),
        (lambda made: made.number > 123456789012345680.0, False),
        (lambda made: made.count >= 3, True),
        (lambda made: made.count < -3, False),
        (lambda made: made.count > 2.5, True),
        (lambda made: made.count > made.number, True),
        (lambda made: made.count == made.count, True),
        (lambda made: 3 > made.number, True),  # noqa: SIM300
        (lambda made: made.word == "go", True),
        (lambda made: made.word != "go", False),
        (lambda made: made.word < "z", True),
        (lambda made: made.word == made.text, False),
        (lambda made: made.word == "a && b || !c true", False),
        (lambda made: made.word == "ü (2)", False),
        (lambda made: made.flag == True, True),  # noqa: E712
        (lambda made: made.flag == False, False),  # noqa: E712
        (lambda made: made.flag != made.boolean, False),
        (lambda made: made.num > 0.5, True),
        (lambda made: made.num >= made.auc, True),
        (lambda made: made.boolean == True, True),  # noqa: E712
        (lambda made: made.text != "no", True),
        (lambda made: made.auc > 0.5, True),
        (lambda made: made.blessed == True, True),  # noqa: E712
        (lambda made: made.why == "fine", False),
    ],
)
def test_holds_as_kfp_compiles_it(compare: Callable[[Any], Any], expected: bool) -> None:
    assert evaluate(compiled(compare), COMPILED_VALUES) is expected


@pytest.mark.parametrize(
    ("compare", "why"),
    [
        (lambda made: made.text == "it's", "check its quotes"),
        (lambda made: made.text == "a\nb", "check its quotes"),
        (lambda made: made.text == "a\\b", "check its quotes"),
        (lambda made: made.text == "'", "check its quotes"),
        (lambda made: made.text == made.count, "cannot be read from|goes on after its end"),
        (lambda made: made.text == made.num, "cannot be read from|goes on after its end"),
        (lambda made: made.num == "a", "cannot be read from|goes on after its end"),
        (lambda made: made.num == math.inf, "has 'inf' in place of a value"),
        (lambda made: made.num != NAN, "has 'nan' in place of a value"),
        (lambda made: made.count == 10**30, "too large"),
        (lambda made: made.flag > 0, "two values of kind bool by >"),
    ],
)
def test_what_kfp_compiles_wrongly_is_an_error(compare: Callable[[Any], Any], why: str) -> None:
    with pytest.raises(InvalidArgumentError, match=why):
        evaluate(compiled(compare), COMPILED_VALUES)


@pytest.mark.parametrize(
    ("value", "branch"),
    [(0.9, "condition-2"), (0.8, "condition-3"), (0.5, "condition-4"), (0.3, "condition-5")],
)
def test_exactly_one_branch_of_a_compiled_chain_is_taken(value: float, branch: str) -> None:
    @dsl.pipeline(name="chain")
    def chain():
        found = num(x=0.6)
        with dsl.If(found.output > 0.8):
            say(s="high")
        with dsl.Elif(found.output > 0.5):
            say(s="middle")
        with dsl.Elif(found.output > 0.3):
            say(s="low")
        with dsl.Else():
            say(s="lowest")

    values = {"pipelinechannel--num-Output": value}
    taken = [name for name, each in conditions_of(chain).items() if evaluate(each, values)]

    assert taken == [branch]


def test_conditions_in_loops_and_conditions_name_what_they_are_given() -> None:
    @dsl.pipeline(name="nested")
    def nested(p: int = 3):
        with dsl.If(num(x=0.9).output > 0.5), dsl.If(p >= 3):  # noqa: SIM117
            with dsl.ParallelFor(["a", "b"]) as item, dsl.If(text(s=item).output == "b"):
                say(s=item)

    values = {
        "pipelinechannel--num-Output": 0.9, "pipelinechannel--p": 3,
        "pipelinechannel--text-Output": "b",
    }  # fmt: skip
    assert len(conditions_of(nested)) == 3
    assert all(evaluate(condition, values) for condition in conditions_of(nested).values())


def test_splits_a_condition_into_words() -> None:
    words = conditions.tokens(f"!(int({X}) >= -3) && 'a' == true")

    assert [kind for kind, _ in words] == [
        "sign", "sign", "name", "sign", "input", "sign", "sign", "number", "sign", "sign", "text",
        "sign", "name",
    ]  # fmt: skip
    assert "".join(word for _, word in words) == f"!(int({X})>=-3)&&'a'==true"
