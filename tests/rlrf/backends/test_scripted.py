"""The scripted fake keeps the promises of a generator."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.backends.protocols import Generator
from rlrf.backends.scripted import ScriptedGenerator
from rlrf.errors import BackendError
from rlrf.records import Completion, Failure, Request, Sampling


def requests(count: int) -> list[Request]:
    return [Request(f"r{i}", ({"role": "user", "content": f"question {i}"},), i) for i in range(count)]


def echo(request: Request) -> str:
    return f"answer to {request.messages[-1]['content']} with {request.seed}"


@given(st.integers(0, 30), st.integers(1, 9))
def test_each_request_once_in_order_and_batches(count: int, batch_size: int) -> None:
    generator: Generator = ScriptedGenerator(echo, batch_size=batch_size)
    batches = list(generator.generate(requests(count), Sampling()))
    assert [result.request_id for batch in batches for result in batch] == [f"r{i}" for i in range(count)]
    assert all(len(batch) == batch_size for batch in batches[:-1])


@given(st.text(), st.integers(1, 5))
def test_max_tokens_cuts_between_words(text: str, max_tokens: int) -> None:
    [[result]] = ScriptedGenerator(lambda request: text).generate(requests(1), Sampling(max_tokens=max_tokens))
    assert isinstance(result, Completion)
    assert text.startswith(result.text)
    assert result.text.split() == text.split()[:max_tokens]
    assert result.finish_reason == ("length" if len(text.split()) > max_tokens else "stop")


def test_stop_strings_cut() -> None:
    sampling = Sampling(stop=("####", "to"))
    [[result]] = ScriptedGenerator(lambda request: "Step 1 to 2 #### 3").generate(requests(1), sampling)
    assert result == Completion("r0", "Step 1 ", "stop", 2, 2)


def test_a_request_can_be_told_to_fail() -> None:
    generator = ScriptedGenerator(lambda r: Failure("", "prompt_too_long", "9 > 8") if r.seed == 1 else "fine")
    [results] = generator.generate(requests(3), Sampling())
    assert [type(result) for result in results] == [Completion, Failure, Completion]
    assert results[1] == Failure("r1", "prompt_too_long", "9 > 8")


def test_it_can_stop_between_batches() -> None:
    generator = ScriptedGenerator(echo, batch_size=2, raise_after=2)
    seen: list[object] = []
    with pytest.raises(BackendError, match="2 batches"):
        seen.extend(generator.generate(requests(10), Sampling()))
    assert len(seen) == 2
