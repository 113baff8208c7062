import pytest

from mlops_mini import errors
from mlops_mini.errors import MlopsMiniError


@pytest.mark.parametrize("cls", MlopsMiniError.__subclasses__())
def test_a_code_gives_the_class_that_has_it(cls: type[MlopsMiniError]) -> None:
    error = errors.by_code(cls.code, "why")

    assert type(error) is cls
    assert str(error) == "why"


@pytest.mark.parametrize("code", [1, 2, 11, 15, 16])
def test_a_code_without_a_class_is_not_lost(code: int) -> None:
    error = errors.by_code(code, "why")

    assert type(error) is MlopsMiniError
    assert error.code == code
    assert MlopsMiniError.code == 2


def test_no_two_classes_share_a_code() -> None:
    codes = [cls.code for cls in MlopsMiniError.__subclasses__()]

    assert len(set(codes)) == len(codes)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    names = {name for name, value in vars(errors).items() if isinstance(value, type)}

    assert names == {word for word in errors.__doc__.split() if word.endswith("Error")}
