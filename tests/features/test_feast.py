"""Our features in Feast's words, which is Python with the same names."""

import ast

from mlops_mini.features import feast
from tests.features.toys import JOBS


def test_a_view_has_a_field_for_each_window_of_the_entity():
    source = feast.feature_view(JOBS, "line")

    fields = [
        call.keywords[0].value.value
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "Field"
    ]
    assert fields == [window.name for window in JOBS.windows if window.source.entity == "line"]
    assert "ttl=timedelta(hours=" in source
