"""Reading what a sglang says: answers recorded from sglang 0.5.15.post1, and broken ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mismatch import store, wire
from mismatch.engines import ENGINES, parse_condition
from mismatch.engines.base import Machine
from mismatch.engines.http import ServerError
from mismatch.engines.sglang import answers
from mismatch.engines.sglang_server.worker import Worker
from mismatch.wire import Events, Job

DATA = Path(__file__).parents[2] / "data" / "sglang_server"
HERE = "http://127.0.0.1:30000"
VOCABULARY = 64
#: What was sent when the answer was recorded: ids, and two ids to score at every position.
SENT, ASKED = [5, 6, 63], np.array([[-1, -1], [7, 9], [9, -1]], np.int32)


@pytest.fixture
def answer() -> Any:
    return store.read_json(DATA / "generate.json")


# ---------------------------------------------------------------- reading


def test_drawn_tokens_with_their_values(answer: Any) -> None:
    """Ids, their own log-probabilities, and the two likeliest at each position, best first."""
    ids, values = answers.drawn(answer, topk=2)
    said = answer["meta_info"]
    assert ids.tolist() == answer["output_ids"]
    np.testing.assert_allclose(values.logprobs, [e[0] for e in said["output_token_logprobs"]])
    assert values.top_ids is not None
    assert values.top_ids[0].tolist() == [e[1] for e in said["output_top_logprobs"][0]]
    assert wire.columns(values, 2) == 2


def test_an_inputs_own_tokens_with_their_values(answer: Any) -> None:
    """Position 0 says nothing; the last id of the vocabulary comes back as 0 with its own value."""
    assert answer["meta_info"]["input_token_logprobs"][2][1] == 0
    values = answers.prompted(answer, SENT, VOCABULARY, 2, None)
    assert np.isnan(values.logprobs[0])
    np.testing.assert_allclose(values.logprobs[1:], [-8.021958, -6.835004], rtol=1e-6)


def test_asked_ids_stand_after_the_likeliest(answer: Any) -> None:
    """One list is sent for all positions; at each, only its own ids that are not among the
    likeliest are kept."""
    assert answers.given(ASKED) == [7, 9]
    values = answers.prompted(answer, SENT, VOCABULARY, 2, ASKED)
    said = answer["meta_info"]["input_token_ids_logprobs"]
    assert values.top_ids is not None and values.top_logprobs is not None
    assert values.top_ids[1].tolist() == [7, 28, -1, 9]  # 7 is among the likeliest there
    assert values.top_ids[2].tolist() == [7, 20, 9, -1]
    found = {token: value for value, token, _ in said[2]}
    np.testing.assert_allclose(values.top_logprobs[2, 2], found[9], rtol=1e-6)


def test_an_answer_that_would_be_too_long_is_not_asked_for() -> None:
    """Asked ids are scored at every position: beyond a million values none are."""
    assert answers.given(np.arange(2_000, dtype=np.int32).reshape(1000, 2)) == []


def test_the_lowest_number_is_minus_infinity(answer: Any) -> None:
    """sglang clamps minus infinity to the lowest number of the dtype; no likeliest token has it."""
    lowest = float(np.finfo(np.float32).min)
    answer["meta_info"]["output_token_logprobs"][0][0] = lowest
    answer["meta_info"]["output_top_logprobs"][0][1][0] = lowest
    _, values = answers.drawn(answer, topk=2)
    assert values.logprobs[0] == -np.inf
    assert values.top_ids is not None and values.top_ids[0, 1] == -1


def test_nan_stays_nan(answer: Any) -> None:
    """It is the engine's own word, and reaches the report as such."""
    answer["meta_info"]["output_token_logprobs"][0][0] = float("nan")
    assert np.isnan(answers.drawn(answer, 0)[1].logprobs[0])


def _set(*place: Any, to: Any) -> Callable[[Any], None]:
    def change(found: Any) -> None:
        found = found["meta_info"]
        for name in place[:-1]:
            found = found[name]
        found[place[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("input_token_logprobs", 1, 1, to=9), "other ids than it was sent"),
        (_set("input_token_logprobs", 1, 1, to=0), "other ids than it was sent"),
        (_set("input_token_logprobs", to=None), "has no input_token_logprobs"),
        (_set("input_token_logprobs", to=[[None, 5, None]]), "3 ids were sent, 1 values came"),
        (_set("input_token_logprobs", 2, 0, to=None), "position 2 is null"),
    ],
)
def test_a_broken_answer_about_an_input_is_refused(
    answer: Any, change: Callable[[Any], None], words: str
) -> None:
    """Other ids (a 0 stands for the last id alone), too few values and nulls are no numbers."""
    change(answer)
    with pytest.raises(ServerError, match=words):
        answers.prompted(answer, SENT, VOCABULARY, 0, None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("output_token_logprobs", 0, 1, to=9), "are of other tokens"),
        (_set("output_token_logprobs", to=[]), "are of other tokens"),
        (_set("output_token_logprobs", to=None), "has no output_token_logprobs"),
        (_set("output_token_logprobs", 1, 0, to=None), "position 1 is null"),
    ],
)
def test_a_broken_answer_about_a_response_is_refused(
    answer: Any, change: Callable[[Any], None], words: str
) -> None:
    """The same for what was drawn."""
    change(answer)
    with pytest.raises(ServerError, match=words):
        answers.drawn(answer, 0)


def test_an_aborted_request_is_no_short_response(answer: Any) -> None:
    """Whoever updates the weights of a running server aborts what is under way."""
    answer["meta_info"]["finish_reason"] = {"type": "abort", "message": "weights"}
    with pytest.raises(ServerError, match="aborted a request"):
        answers.drawn(answer, 0)


# ---------------------------------------------------------------- which server it is


class _Server:
    """Answers by path, from what a real server said."""

    url = HERE

    def __init__(self, **more: Any) -> None:
        self.said = store.read_json(DATA / "about.json")
        self.said["/server_info"] |= more

    def get_if_there(self, path: str) -> Any:
        return self.said.get(path)

    def get(self, path: str) -> Any:
        raise ServerError(f"{path} does not exist")


def _worker(model: Path, server: Any, **options: Any) -> Worker:
    """A client of a recorded server, for a checkpoint of 64 tokens."""
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text('{"vocab_size": 64}')
    job = Job("sglang_server", str(model), {"url": HERE, **options}, [])
    worker = Worker(job, Events(model / "events.jsonl"))
    worker.server = server
    worker._ask_what_runs()
    return worker


def test_what_a_server_was_started_with_is_kept_and_its_keys_are_not(tmp_path: Path) -> None:
    """Unknown fields are left out: a server's own arguments hold its keys."""
    worker = _worker(tmp_path / "tiny", _Server(api_key="sk-x", admin_api_key="sk-y", new_field=1))
    assert worker.told["dtype"] == "float32" and worker.told["version"] == "0.5.15.post1"
    assert worker.told["attention_backend"] == "torch_native"
    assert "sk-" not in str(worker.told) + str(worker.about) and "new_field" not in worker.told


def test_the_served_model_is_found_by_its_folder_or_its_name(tmp_path: Path) -> None:
    """By the folder's name, or by the name that the user gives; another one is named."""
    served = _worker(tmp_path / "attention", _Server()).served
    for name, options in (("attention", {}), ("other", {"served_model": served})):
        worker = _worker(tmp_path / name, _Server(), **options)
        worker._check_model(worker.served)
    with pytest.raises(ServerError, match="and the checkpoint is tiny"):
        _worker(tmp_path / "tiny", _Server())._check_model(served)
    with pytest.raises(ServerError, match="and no small: mend served_model"):
        _worker(tmp_path / "tiny", _Server(), served_model="small")._check_model(served)


def test_a_server_that_changes_under_way_is_noticed(tmp_path: Path) -> None:
    """New weights, or a restart with other arguments, in the middle of a capture."""
    worker = _worker(tmp_path / "tiny", _Server())
    worker._check_it_is_the_same()
    now: Any = _Server()
    now.said["/model_info"]["weight_version"] = "step-2"
    worker.server = now
    with pytest.raises(ServerError, match="changed in the middle"):
        worker._check_it_is_the_same()


def test_other_weights_or_another_model_show_in_an_answer(tmp_path: Path, answer: Any) -> None:
    """Each has the version of the weights; an id outside the vocabulary is another model's."""
    worker = _worker(tmp_path / "tiny", _Server())
    worker.ask_all = lambda path, bodies: [answer] * len(bodies)  # type: ignore[method-assign]
    assert worker._generate([[1]], {}) == [answer]
    worker.check_drawn(np.array([63]))
    with pytest.raises(ServerError, match="outside the checkpoint's vocabulary of 64"):
        worker.check_drawn(np.array([64]))
    answer["meta_info"]["weight_version"] = "step-2"
    with pytest.raises(ServerError, match=r"other weights \(step-2, first default\)"):
        worker._generate([[1]], {})


def test_a_restart_on_another_checkpoint_is_another_server(tmp_path: Path) -> None:
    """All of its arguments may be the same."""
    worker, now = _worker(tmp_path / "tiny", _Server()), _Server()
    now.said["/model_info"]["model_path"] = "/srv/other"
    worker.server = now  # type: ignore[assignment]
    with pytest.raises(ServerError, match="changed in the middle"):
        worker._check_it_is_the_same()


def test_a_key_is_in_no_variable_that_is_recorded() -> None:
    """Switches that steer kernels are kept with a trace."""
    engine = ENGINES["sglang_server"]
    for name, refused in (("VLLM_DOOR", True), ("VLLM_API_KEY", False), ("MINE", False)):
        reason = engine.refuse(parse_condition(f"sglang:url={HERE},key_env={name}"), Machine())
        assert bool(reason and "recorded as a switch" in reason) is refused


def test_a_server_of_another_kind_is_said_to_be_one(tmp_path: Path) -> None:
    """It has neither address under which sglang tells what it is."""
    server = _Server()
    server.said = {}
    with pytest.raises(ServerError, match="get_model_info does not exist"):
        _worker(tmp_path / "tiny", server)


# ---------------------------------------------------------------- the condition


def test_a_url_makes_it_a_server() -> None:
    """`sglang:url=...` is sglang_server, which has two paths: no id can be forced over HTTP."""
    condition = parse_condition(f"sglang:url={HERE},topk=2")
    assert condition.engine == "sglang_server"
    assert ENGINES["sglang_server"].paths == {"rollout", "prefill"}


def test_arguments_of_a_constructor_are_refused() -> None:
    """They would say nothing to an engine that runs already."""
    condition = parse_condition(f"sglang:url={HERE},arg.mem_fraction_static=0.5")
    reason = ENGINES["sglang_server"].refuse(condition, Machine())
    assert reason and "arg.mem_fraction_static" in reason
