import threading
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from mlops_mini.errors import DeadlineExceededError, InvalidArgumentError
from mlops_mini.serving import batching
from mlops_mini.serving.batching import BatchQueue, Results, Task

FLOAT = [np.dtype(np.float32)]


class Asked:
    """A request that notes what it hears."""

    axis = 0
    timeout_s: float | None = None

    def __init__(self, *rows: Any) -> None:
        self.heard: Any = None
        self.blocks: Sequence[Any] = [np.float64(rows)]
        self.kind: Hashable = self.blocks[0].shape[1:]
        self.n_rows = self.n_elements = len(rows)

    def done(self, results: Results, start: int, stop: int | None) -> bool:
        self.heard = results.arrays[0][start:stop].tolist()
        return False

    def failed(self, error: Exception) -> None:
        self.heard = error


class Model:
    """Adds 1 to each row; refuses a row that is negative; notes the sizes of its runs."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, tasks: Sequence[Task]) -> list[Any]:
        (x,) = batching.join(tasks, FLOAT, batching.padded_rows(tasks))
        self.sizes.append(len(x))
        if (x < 0).any():
            raise InvalidArgumentError("negative")
        return [self.answer(x)]

    def answer(self, x: Any) -> Any:
        return x + 1


def run(queue: BatchQueue, model: Model, *asked: Asked) -> list[Any]:
    batching.settle(asked, batching.run(queue, asked, model))
    return [one.heard for one in asked]


def proved() -> BatchQueue:
    return BatchQueue("a signature", n_trials=20)


def test_rows_of_several_requests_are_one_padded_run_and_come_back_in_order() -> None:
    model = Model()

    answers = run(proved(), model, Asked(1, 2), Asked(3), Asked(4, 5))

    assert answers == [[2, 3], [4], [5, 6]]
    assert model.sizes == [8]


def test_the_first_twenty_batches_also_run_one_by_one() -> None:
    model, queue = Model(), BatchQueue("a signature")
    for _ in range(20):
        assert run(queue, model, Asked(1), Asked(2)) == [[2], [3]]
    assert model.sizes == [1, 1, 2] * 20

    model.sizes.clear()
    run(queue, model, Asked(1), Asked(2))

    assert model.sizes == [2]
    assert not queue.is_alone


def test_a_model_that_mixes_rows_is_found_out_and_clients_get_what_it_says_to_each() -> None:
    class Mixing(Model):
        def answer(self, x: Any) -> Any:
            return x - x.mean()

    queue = BatchQueue("a signature")

    assert run(queue, Mixing(), Asked(1), Asked(2)) == [[0], [0]]
    assert queue.is_alone


def test_a_difference_of_the_last_digits_is_none() -> None:
    class Rounding(Model):
        def answer(self, x: Any) -> Any:
            return x * (1 + 3e-7 * (len(x) > 1))

    queue = BatchQueue("a signature")
    run(queue, Rounding(), Asked(1), Asked(2))

    assert not queue.is_alone


def test_one_bad_request_fails_alone_and_the_batch_is_run_again_once() -> None:
    model, queue = Model(), proved()

    good, bad, also_good = run(queue, model, Asked(1), Asked(-1), Asked(2))

    assert (good, also_good) == ([2], [3])
    assert str(bad) == "negative"
    assert model.sizes == [4, 1, 1, 1]
    assert not queue.is_alone


def test_a_batch_that_fails_without_a_bad_request_is_the_last_one() -> None:
    class Single(Model):
        def answer(self, x: Any) -> Any:
            if len(x) > 1:
                raise InvalidArgumentError("one at a time")
            return x

    for queue in (proved(), BatchQueue("a signature")):
        assert run(queue, Single(), Asked(1), Asked(2)) == [[1], [2]]
        assert queue.is_alone


def test_an_output_that_is_no_row_for_each_row_ends_batches() -> None:
    class Short(Model):
        def answer(self, x: Any) -> Any:
            return x[:1]

    queue = proved()

    assert run(queue, Short(), Asked(1), Asked(2)) == [[1], [2]]
    assert queue.is_alone


def test_a_batch_that_takes_too_long_is_not_run_again() -> None:
    class Slow(Model):
        def answer(self, x: Any) -> Any:
            raise DeadlineExceededError(f"over, for {x}")

    model, tasks = Slow(), [Asked(1), Asked(2)]
    raised = False
    try:
        batching.run(proved(), tasks, model)
    except DeadlineExceededError:
        raised = True

    assert raised
    assert model.sizes == [2]


def test_large_requests_are_never_in_a_batch_with_others() -> None:
    large, small = Asked(*range(9)), [Asked(1) for _ in range(70)]

    batches = batching.cut([small[0], large, *small[1:]])

    assert [len(batch) for batch in batches] == [64, 1, 6]
    assert batches[1] == [large]


def test_rows_of_other_sizes_are_other_batches() -> None:
    tasks = [Asked([1.0] * width) for width in (2, 3, 2, 3)]

    batches = batching.cut(tasks)

    assert batches == [[tasks[0], tasks[2]], [tasks[1], tasks[3]]]


def test_trials_may_end_on_several_threads() -> None:
    queue, model = BatchQueue("a signature"), Model()
    threads = [
        threading.Thread(target=run, args=(queue, model, Asked(1), Asked(2))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not queue.is_alone
