import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mlops_mini.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    MlopsMiniError,
    ResourceExhaustedError,
    UnavailableError,
)
from mlops_mini.serving import batch_scheduler, batching
from mlops_mini.serving.batch_scheduler import BatchScheduler, LimitedQueue
from mlops_mini.serving.batching import Results, Task
from mlops_mini.serving.batching_options import BatchingOptions
from mlops_mini.serving.server_metrics import ServerMetrics

MINUTE = 60_000_000  # in microseconds: longer than any test


class Model:
    """Adds 1 to each row, refuses a negative one, notes its runs; waits until it is let go."""

    def __init__(self, *, held: bool = False) -> None:
        self.runs: list[list[Any]] = []
        self.n_held = 0
        self.begun, self.let_go = threading.Semaphore(0), threading.Event()
        if not held:
            self.let_go.set()

    def __call__(self, tasks: Sequence[Task], n_rows: int, _timeout_s: float | None) -> list[Any]:
        (x,) = batching.join(tasks, [np.dtype(np.float32)], n_rows)
        self.runs.append(x.tolist())
        self.begun.release()
        assert self.let_go.wait(60)
        if (x < 0).any():
            raise InvalidArgumentError("negative")
        return [self.answer(x)]

    def answer(self, x: Any) -> Any:
        return x + 1

    def hold(self) -> Callable[[], None]:
        self.n_held += 1

        def let_go() -> None:
            self.n_held -= 1

        return let_go

    def queue(self, *, may_run_again: bool = True, **options: Any) -> LimitedQueue:
        return LimitedQueue(
            BatchingOptions(**options), self, self.hold, may_run_again=may_run_again
        )


Ask = Callable[..., "asyncio.Future[Any]"]


def play(
    work: Callable[[Ask], Awaitable[Any]], queue: LimitedQueue, *, n_threads: int = 1
) -> list[Any]:
    """Let `work` ask, and return what it returns, with errors instead of raising them."""
    scheduler = BatchScheduler(n_threads)

    def ask(
        *rows: Any, timeout_s: float | None = None, at: LimitedQueue = queue
    ) -> "asyncio.Future[Any]":
        future = asyncio.get_running_loop().create_future()
        block = np.float64(rows)

        def done(results: Results, start: int, stop: int | None) -> bool:
            future.set_result(results.arrays[0][start:stop].tolist())
            return False

        task = SimpleNamespace(
            blocks=[block],
            axis=0,
            kind=block.shape[1:],
            n_rows=len(block),
            n_elements=block.size,
            queued_s=0.0,
            timeout_s=timeout_s,
            done=done,
            failed=future.set_exception,
        )
        assert scheduler.schedule(at, task)
        return future

    async def main() -> list[Any]:
        answers = await asyncio.gather(*await work(ask), return_exceptions=True)
        unexpected = [a for a in answers if isinstance(a, Exception | None)]
        assert all(isinstance(answer, MlopsMiniError) for answer in unexpected), unexpected
        return list(answers)

    return asyncio.run(main())


def test_a_batch_that_is_full_does_not_wait() -> None:
    model = Model()

    async def work(ask: Ask) -> Any:
        return [ask(1), ask(2, 3), ask(4)]

    answers = play(work, model.queue(max_batch_size=4, batch_timeout_micros=MINUTE))

    assert answers == [[2], [3, 4], [5]]
    assert model.runs == [[1, 2, 3, 4]]
    assert model.n_held == 0


def test_a_batch_that_is_not_full_waits_for_its_time() -> None:
    model = Model()

    async def work(ask: Ask) -> Any:
        first = ask(1)
        await asyncio.sleep(0)
        assert not model.runs
        return [first, ask(2)]

    assert play(work, model.queue(batch_timeout_micros=20_000)) == [[2], [3]]
    assert model.runs == [[1, 2]]


def test_what_comes_while_all_threads_work_is_one_batch() -> None:
    model = Model(held=True)

    async def work(ask: Ask) -> Any:
        first = ask(1)
        await asyncio.to_thread(model.begun.acquire)
        rest = []
        for n in (2, 3, 4):
            rest.append(ask(n))
            await asyncio.sleep(0)
        model.let_go.set()
        return [first, *rest]

    assert play(work, model.queue()) == [[2], [3], [4], [5]]
    assert model.runs == [[1], [2, 3, 4]]


def test_batches_are_padded_with_the_last_tasks_first_row_to_an_allowed_size() -> None:
    model = Model()

    async def work(ask: Ask) -> Any:
        return [ask(1), ask(2, 3)]

    queue = model.queue(max_batch_size=8, allowed_batch_sizes=(2, 5, 8))

    assert play(work, queue) == [[2], [3, 4]]
    assert model.runs == [[1, 2, 3, 2, 2]]


def test_batches_and_what_waits_for_them_are_counted() -> None:
    model, metrics = Model(held=True), ServerMetrics(lambda count, *labels: count(*labels))
    queue = model.queue(max_batch_size=8, allowed_batch_sizes=(2, 5, 8))
    queue.metrics = metrics.runs("m", 1, "serving_default")
    n_waiting = []

    async def work(ask: Ask) -> Any:
        first = ask(1)
        await asyncio.to_thread(model.begun.acquire)
        rest = [ask(2, 3), ask(-4), ask(5)]
        n_waiting.append(queue.n_waiting)
        model.let_go.set()
        return [first, *rest]

    play(work, queue)

    metrics.count_noted()
    page = [line for family in metrics.families for line in family.lines()]
    batching_session = ":tensorflow:serving:batching_session:"
    assert n_waiting == [3]
    assert queue.n_waiting == 0
    assert queue.metrics.n_requests.value == 4
    assert f"{batching_session}wrapped_run_count{{}} 2" in page  # of one request, and of three
    assert f"{batching_session}input_batch_size_sum{{}} 5" in page
    assert f"{batching_session}processed_batch_size_sum{{}} 7" in page
    assert f'{batching_session}queuing_latency_count{{thread_pool_name="batch_threads"}} 4' in page
    succeeded = (
        ':tensorflow:serving:runtime_latency_count{model_name="m",API="Predict",runtime="TF1"}'
    )
    assert f"{succeeded} 3" in page


def test_a_request_larger_than_a_batch_is_refused() -> None:
    async def work(ask: Ask) -> Any:
        return [ask(1, 2, 3, 4, 5), ask(6)]

    refused, answer = play(work, Model().queue(max_batch_size=4))

    assert isinstance(refused, InvalidArgumentError)
    assert str(refused) == "Task size 5 is larger than maximum input batch size 4"
    assert answer == [7]


def test_a_full_queue_refuses_as_tensorflow_serving_does() -> None:
    model = Model(held=True)

    async def work(ask: Ask) -> Any:
        first = ask(1)
        await asyncio.to_thread(model.begun.acquire)
        waiting = [ask(2), ask(3), ask(4)]
        model.let_go.set()
        return [first, *waiting]

    *answers, refused = play(work, model.queue(max_batch_size=1, max_enqueued_batches=2))

    assert answers == [[2], [3], [4]]
    assert isinstance(refused, UnavailableError)
    assert str(refused) == (
        "The batch scheduling queue to which this task was submitted is full; currently 2 batches"
        " enqueued and max_enqueued_batches is 2"
    )
    assert model.n_held == 0


def test_a_large_request_is_cut_and_put_together_again() -> None:
    model = Model()

    async def work(ask: Ask) -> Any:
        return [ask(0), ask(*range(1, 9)), ask(9)]

    queue = model.queue(
        max_batch_size=10, enable_large_batch_splitting=True, max_execution_batch_size=4
    )

    assert play(work, queue) == [[1], [*range(2, 10)], [10]]
    assert model.runs == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert model.n_held == 0


def test_a_large_request_with_a_bad_row_fails_once() -> None:
    async def work(ask: Ask) -> Any:
        return [ask(1, 2, -3, 4, -5)]

    queue = Model().queue(enable_large_batch_splitting=True, max_execution_batch_size=2)

    assert [str(error) for error in play(work, queue)] == ["negative"]


def test_a_full_queue_of_cut_requests_has_words_of_its_own() -> None:
    async def work(ask: Ask) -> Any:
        return [ask(1), ask(2, 3, 4, 5)]

    queue = Model().queue(
        max_batch_size=8,
        max_enqueued_batches=2,
        enable_large_batch_splitting=True,
        max_execution_batch_size=2,
    )
    answer, refused = play(work, queue)

    assert answer == [2]
    assert str(refused) == (
        "The batch scheduling queue to which this task was submitted is full; task size is 4 but"
        " scheduling capacity is only 3 (num_enqueued_batches=1, max_enqueued_batches=2,"
        " open_batch_size=1, max_execution_batch_size=2)"
    )


def test_one_bad_request_fails_alone_and_the_batch_is_run_again_once() -> None:
    model = Model()

    async def work(ask: Ask) -> Any:
        return [ask(1), ask(-1), ask(2)]

    good, bad, also_good = play(work, model.queue())

    assert (good, also_good, str(bad)) == ([2], [3], "negative")
    assert model.runs == [[1, -1, 2], [1], [-1], [2]]


def test_what_may_have_changed_the_model_is_not_run_again() -> None:
    model = Model()

    async def work(ask: Ask) -> Any:
        return [ask(1), ask(-1)]

    answers = play(work, model.queue(may_run_again=False))

    assert [str(answer) for answer in answers] == ["negative"] * 2
    assert len(model.runs) == 1


def test_rows_of_other_widths_are_run_apart() -> None:
    model = Model()

    async def work(ask: Ask) -> Any:
        return [ask([1, 2]), ask([3]), ask([4, 5])]

    assert play(work, model.queue()) == [[[2, 3]], [[4]], [[5, 6]]]
    assert model.runs == [[[1, 2], [4, 5]], [[3]]]


def test_rows_of_other_widths_are_padded_with_their_first_element_if_asked_to() -> None:
    model = Model()

    async def work(ask: Ask) -> Any:
        return [ask([1, 2, 3]), ask([5, 6])]

    assert play(work, model.queue(pad_variable_length_inputs=True)) == [[[2, 3, 4]], [[6, 7, 6]]]
    assert model.runs == [[[1, 2, 3], [5, 6, 5]]]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (np.float32(1), "Batched output tensor has 0 dimensions"),
        (
            np.float32([1]),
            (
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension"
                " sizes of the input tensors"
            ),
        ),
    ],
)
def test_an_output_without_a_row_for_each_row_is_refused(answer: Any, words: str) -> None:
    model = Model()
    model.answer = lambda _: answer  # type: ignore[method-assign]

    async def work(ask: Ask) -> Any:
        return [ask(1, 2)]

    (error,) = play(work, model.queue())

    assert isinstance(error, FailedPreconditionError)
    assert str(error) == words


def test_a_request_whose_time_ends_in_the_queue_hears_of_it_and_is_not_run() -> None:
    model = Model(held=True)

    async def work(ask: Ask) -> Any:
        first = ask(1)
        await asyncio.to_thread(model.begun.acquire)
        late, patient = ask(2, timeout_s=0.01), ask(3, timeout_s=60)
        await asyncio.wait([late])
        model.let_go.set()
        return [first, late, patient]

    first, late, patient = play(work, model.queue())

    assert (first, patient) == ([2], [4])
    assert isinstance(late, ResourceExhaustedError)
    assert str(late) == "Run() timeout exceeded while waiting in batching queue"
    assert model.runs == [[1], [3]]
    assert model.n_held == 0


def test_a_request_whose_time_ends_in_its_run_does_not_end_the_others() -> None:
    model = Model(held=True)

    async def work(ask: Ask) -> Any:
        late, patient = ask(1, timeout_s=0.01), ask(2, timeout_s=60)
        await asyncio.wait([late])
        assert model.n_held == 2  # the version is still in use
        model.let_go.set()
        return [late, patient]

    late, patient = play(work, model.queue())

    assert isinstance(late, DeadlineExceededError)
    assert patient == [3]


def test_queues_take_turns() -> None:
    models = [Model(held=True), Model()]
    models[1].runs = models[0].runs  # one list, in the order in which they ran
    queues = [model.queue(max_batch_size=1) for model in models]

    async def work(ask: Ask) -> Any:
        first = [ask(1), ask(2), ask(3)]
        await asyncio.to_thread(models[0].begun.acquire)
        other = ask(4, at=queues[1])
        models[0].let_go.set()
        return [*first, other]

    play(work, queues[0])

    assert models[0].runs.index([4]) <= 2


def test_batches_run_on_as_many_threads_as_there_are() -> None:
    model = Model(held=True)

    async def work(ask: Ask) -> Any:
        asked = [ask(1), ask(2), ask(3)]
        for _ in range(2):
            await asyncio.to_thread(model.begun.acquire)
        assert len(model.runs) == 2
        model.let_go.set()
        return asked

    assert play(work, model.queue(max_batch_size=1), n_threads=2) == [[2], [3], [4]]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ([np.float32(1)], "Batching Run() input tensors must have at least one dimension"),
        (
            [np.ones(2), np.ones(3)],
            "Batching Run() input tensors must have equal 0th-dimension size",
        ),
    ],
)
def test_a_request_that_has_no_rows_to_count_is_refused(arrays: Any, words: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        batch_scheduler.count_rows(arrays)

    assert str(raised.value) == words
