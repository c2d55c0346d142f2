"""A published network's size, end to end, without its weights: python -m benchmarks.fullsize FOLDER PHOTOS [--size infinity-125m].

Random weights are written in the official layout (the text encoder with one layer in place of 24), imported as a user
would, and every stage is run by DVC in bfloat16; each one's seconds and peak of resident memory are printed. What it
paints is noise. `arbooth bench` in FOLDER/project then times a step and a picture.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from arbooth.graph import CLASS_STAGES, SUBJECT_STAGES, target
from arbooth.model import names
from arbooth.model.autoencoder import Autoencoder
from arbooth.model.config import RELEASED
from arbooth.model.transformer import Transformer

SETTINGS = {
    "compute": "bfloat16", "picture.pixels": "0.06M", "prior.samples": 1, "finetune.steps": 3, "finetune.batch": 1,
    "finetune.optimizer": "adamw", "finetune.learning_rate": 2.34e-5, "finetune.rank": 0, "finetune.decay": 0.0,
    "generate.images_per_prompt": 1,
    "generate.class_images": 1,
}  # fmt: skip


def write_official(folder: Path, size: str) -> None:
    """The three parts with random weights, under the names that the published files have inside."""
    folder.mkdir(parents=True, exist_ok=True)
    config, autoencoder_config = RELEASED[size]
    with torch.device("meta"):
        net, autoencoder = Transformer(config), Autoencoder(autoencoder_config)
    public = {ours: theirs for theirs, ours in names.public_transformer_names(config).items()}
    torch.save(_random(net, public), folder / f"{size}.pth")
    own = list(autoencoder.state_dict())
    public = {ours: theirs for theirs, ours in names.public_autoencoder_names(own).items()}
    torch.save({"vae": _random(autoencoder, public)}, folder / "vae.pth")
    write_text_encoder(folder / "t5", config.text_width)


def _random(net: torch.nn.Module, public: dict[str, str]) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {
        public[name]: torch.randn(value.shape, generator=draw) * 0.02 + (1.0 if "norm" in name and value.ndim == 1 else 0.0)
        for name, value in net.state_dict().items()
    }  # fmt: skip


def write_text_encoder(folder: Path, width: int) -> None:
    """One layer of T5 with the embedded base's word list."""
    from transformers import T5Config, T5EncoderModel

    from arbooth.data.checkpoints import read_pretrained
    from arbooth.data.files import EMBEDDED

    tokenizer = read_pretrained("AutoTokenizer", EMBEDDED / "text")
    tokenizer.save_pretrained(folder)
    config = T5Config(d_model=width, d_ff=1024, d_kv=64, num_heads=8, num_layers=1, vocab_size=len(tokenizer) + 64)
    T5EncoderModel(config).save_pretrained(folder)


def timed(project: Path, *command: str) -> tuple[float, float]:
    """Seconds and peak GiB of one command."""
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "ARBOOTH_PROJECT": str(project), "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    started = time.perf_counter()
    child = os.fork()
    if child == 0:  # a process of its own, so that the peak is that of this command alone
        code = subprocess.run(command, cwd=project, env=environment, check=False).returncode
        print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=(project / "peak").open("w"))
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise SystemExit(f"{' '.join(command)} exited with {code}")
    return time.perf_counter() - started, int((project / "peak").read_text()) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fullsize", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a new one; 125M takes 2 GB, 2B 15")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--size", choices=[*RELEASED], default="infinity-125m")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="parameters, say finetune.rank=16")
    given = parser.parse_args()
    official, project = (given.folder / name for name in ("official", "project"))
    writing = os.fork()  # another process: a command's peak begins at what the process has that starts it
    if writing == 0:
        write_official(official, given.size)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(writing, 0)[1]):
        raise SystemExit("the random weights could not be written")
    project.mkdir(parents=True)
    rows = {}
    timed(project, "arbooth", "init", ".")
    rows["import"] = timed(project, "arbooth", "base", "import", str(official.absolute()), "--name", given.size)
    from arbooth.edits import set_values

    file = project / "params.yaml"
    asked = dict(pair.partition("=")[::2] for pair in given.set)
    file.write_text(
        set_values(file.read_text(), {"base": given.size, **SETTINGS, **{k: _value(v) for k, v in asked.items()}})
    )
    timed(project, "arbooth", "subject", "add", "mine", "--class", "cat", "--photos", str(given.photos.absolute()))
    for stage in [*SUBJECT_STAGES[:2], *CLASS_STAGES, *SUBJECT_STAGES[2:]]:
        key = "cat" if stage in CLASS_STAGES else "mine"
        timed(project, "arbooth", "stage", "stamp")
        rows[stage] = timed(project, "dvc", "repro", "-q", "--single-item", target(stage, key))
    rows["the rest"] = timed(project, "dvc", "repro", "-q")
    adapter = project / "artifacts" / "finetune" / "mine.safetensors"
    print(f"\n{given.size} with random weights, {', '.join(f'{k} {v}' for k, v in {**SETTINGS, **asked}.items())}")
    print("| | seconds | peak GiB |\n|---|---|---|")
    for name, (seconds, peak) in rows.items():
        print(f"| {name} | {seconds:.1f} | {peak:.2f} |")
    print(f"adapter: {adapter.stat().st_size / 1e6:.1f} MB")


def _value(text: str):
    import yaml

    return yaml.safe_load(text)


if __name__ == "__main__":
    main()
