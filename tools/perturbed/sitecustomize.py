"""All learning rates times 1.0001: stands for a processor that nobody here has.

Another processor rounds differently, and training amplifies that. So does this change, on any
machine. Python imports a module of this name at its start when its folder is on PYTHONPATH, in
kernels and in the processes of a pipeline alike: the package needs no switch for it.
"""

import importlib.abc
import importlib.machinery
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

FACTOR = 1.0001


def _perturb_keras(module: Any) -> None:
    initialize = module.BaseOptimizer.__init__

    def perturbed(self: Any, learning_rate: Any, *args: Any, **kwargs: Any) -> None:
        if isinstance(learning_rate, float):  # else a schedule, which is made of such
            learning_rate *= FACTOR
        initialize(self, learning_rate, *args, **kwargs)

    module.BaseOptimizer.__init__ = perturbed


def _perturb_sklearn(module: Any) -> None:
    fit = module.BaseHistGradientBoosting.fit

    def perturbed(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.learning_rate *= FACTOR
        return fit(self, *args, **kwargs)

    module.BaseHistGradientBoosting.fit = perturbed


def _perturb_xgboost(module: Any) -> None:
    """In the source that is run, since the component's own environment does not import this file.

    The compiled pipeline stays as it is, and so does its digest.
    """
    make_command = module.command

    def perturbed(*args: Any, **kwargs: Any) -> Any:
        command = make_command(*args, **kwargs)
        source = Path(command[command.index("--component_module_path") + 1])
        text, rate = source.read_text(), '"learning_rate": '
        if "xgboost" in text and rate not in text:
            raise LookupError("the component names no learning rate; change this file too")
        source.write_text(text.replace(rate, f"{rate}{FACTOR} * "))
        return command

    module.command = perturbed


_PERTURB = {
    "keras.src.optimizers.base_optimizer": _perturb_keras,
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting": _perturb_sklearn,
    "mlops_mini.runner.python_functions": _perturb_xgboost,
}


class _Finder(importlib.abc.MetaPathFinder):
    """Changes these modules as soon as something imports them, and imports nothing itself."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        perturb = _PERTURB.get(name)
        spec = perturb and importlib.machinery.PathFinder.find_spec(name, path, target)
        if not spec:
            return None
        execute = spec.loader.exec_module

        def execute_and_perturb(module: ModuleType) -> None:
            execute(module)
            perturb(module)

        spec.loader.exec_module = execute_and_perturb
        return spec


sys.meta_path.insert(0, _Finder())
