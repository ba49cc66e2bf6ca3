"""Building megatron's GPTModel and filling it with this rank's part of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from megatron.core import parallel_state  # type: ignore[import-not-found]
from megatron.core.models.gpt import (  # type: ignore[import-not-found]
    GPTModel,
    gpt_layer_specs,
)
from megatron.core.transformer import (  # type: ignore[import-not-found]
    TransformerConfig,
    enums,
    transformer_layer,
)
from safetensors import safe_open

from mismatch.engines.dtypes import DTYPES
from mismatch.engines.megatron import arguments, convert
from mismatch.engines.megatron.llama import Llama


def build(
    llama: Llama, options: Mapping[str, Any], extra: Mapping[str, Any], place: torch.device
) -> Any:
    """This rank's part of the model, without its weights, in eval mode."""
    on_gpu = place.type == "cuda"
    given = arguments.transformer_config(llama, options, on_gpu, extra)
    config = TransformerConfig(**_objects(given))
    first, last = parallel_state.is_pipeline_first_stage(), parallel_state.is_pipeline_last_stage()
    model = GPTModel(
        config=config,
        transformer_layer_spec=_layers(arguments.is_local(options, on_gpu)),
        pre_process=first,
        post_process=last,
        share_embeddings_and_output_weights=convert.shares_embedding(
            llama, convert.Place(range(0), first=first, last=last)
        ),
        **arguments.gpt_model(llama, options),
    )
    # The norms are torch's and know no params_dtype; trainers cast the whole model too.
    return model.to(place, config.params_dtype).eval()


def _objects(given: Mapping[str, Any]) -> dict[str, Any]:
    """Names -> the objects that TransformerConfig wants."""
    made = dict(given)
    made["activation_func"] = getattr(torch.nn.functional, made["activation_func"])
    for name in ("params_dtype", "pipeline_dtype"):
        made[name] = DTYPES[made[name]]
    if "attention_backend" in made:
        made["attention_backend"] = enums.AttnBackend[made["attention_backend"]]
    return made


def _layers(local: bool) -> Any:
    if local:
        return gpt_layer_specs.get_gpt_layer_local_spec(normalization="RMSNorm")
    if not gpt_layer_specs.HAVE_TE:
        raise ValueError(
            "Transformer Engine does not import in this interpreter: install it, or set "
            "attention=local"
        )
    return gpt_layer_specs.get_gpt_layer_with_transformer_engine_spec()


# ---------------------------------------------------------------- weights


def place_of(model: Any, local: bool) -> convert.Place:
    """Where this rank stands, as megatron's groups and the built model say."""
    start = transformer_layer.get_transformer_layer_offset(model.config)
    return convert.Place(
        layers=range(start, start + len(model.decoder.layers)),
        rank=parallel_state.get_tensor_model_parallel_rank(),
        ranks=parallel_state.get_tensor_model_parallel_world_size(),
        first=model.pre_process,
        last=model.post_process,
        fused_norms=not local,
    )


def fill(model: Any, folder: Path, wanted: Mapping[str, convert.Weight]) -> None:
    """Every parameter from its parts in the checkpoint; none may be left, none may be over."""
    reader = Reader(folder)
    parameters = dict(model.named_parameters())
    if set(parameters) != set(wanted):
        odd = ", ".join(sorted(set(parameters) ^ set(wanted)))
        raise ValueError(f"megatron's parameters are not those the checkpoint fills: {odd}")
    with torch.no_grad():
        for name, weight in wanted.items():
            value = reader.read(weight)
            if value.shape != parameters[name].shape:
                raise ValueError(
                    f"{name} is {tuple(parameters[name].shape)} in megatron and "
                    f"{tuple(value.shape)} in the checkpoint"
                )
            parameters[name].copy_(value)


class Reader:
    """Parts of tensors of a safetensors checkpoint, in one file or several."""

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            opened: Any = safe_open(path, framework="pt")
            self.files |= dict.fromkeys(opened.keys(), opened)

    def read(self, weight: convert.Weight) -> torch.Tensor:
        parts = [self._part(part) for part in weight.parts]
        if weight.zeros:
            parts.append(parts[0].new_zeros((weight.zeros, *parts[0].shape[1:])))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _part(self, part: convert.Part) -> torch.Tensor:
        if part.source not in self.files:
            raise ValueError(f"the checkpoint has no tensor {part.source}")
        piece = self.files[part.source].get_slice(part.source)
        if part.columns:
            return piece[:, slice(*part.columns)]
        return piece[slice(*part.rows)] if part.rows else piece[:]
