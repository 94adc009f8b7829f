"""Upload and download through huggingface_hub's own client, against a hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from local_hub import hub
from tiny_pipelines import diffusers

import undiffuse as ud
from undiffuse import training
from undiffuse.experiment import Experiment

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*Expected types.*")]
RUN = Experiment(data="digits", net="unet", net_args={"widths": [8, 8]}, steps=2, save_every=2, warmup=1, batch_size=8,
                 held_out=100, sde="vp")


COMMANDS = """if True:
    import contextlib, io, json, os, sys
    from undiffuse.cli import main
    done = []
    for token, arguments in json.loads(sys.argv[1]):
        os.environ.pop("HF_TOKEN", None)
        os.environ.update({"HF_TOKEN": token} if token else {})
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(arguments)
        done.append((code, out.getvalue() if code == 0 else err.getvalue()))
    print("\\n" + json.dumps(done))"""


def commands(*lines: list[str], at: str, home: Path, token: str = "hf_test", offline: bool = False
             ) -> list[tuple[int, str]]:
    """The status and stdout (stderr of a failure) of commands with this hub; the first one has no token if `token` is
    empty."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    env |= {"HF_ENDPOINT": at, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    env |= {"HF_HUB_OFFLINE": "1"} if offline else {}
    texts = json.dumps([("" if not k and not token else "hf_test", line) for k, line in enumerate(lines)])
    done = subprocess.run([sys.executable, "-c", COMMANDS, texts], capture_output=True, text=True, check=True, env=env)
    return [(code, text) for code, text in json.loads(done.stdout.splitlines()[-1])]


def test_a_run_is_uploaded_and_a_pipeline_comes_back_by_its_name(tmp_path: Path) -> None:
    """The bytes of `sample hf:me/ddpm` are those of its folder, online, by the import and offline from the cache."""
    training.train(RUN, tmp_path / "run")
    net = diffusers.UNet2DModel(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8),
                                norm_num_groups=4, layers_per_block=1, down_block_types=("DownBlock2D",) * 2,
                                up_block_types=("UpBlock2D",) * 2)
    folder, there, here = (tmp_path / "hub" / "me" / "ddpm", tmp_path / "hub" / "me" / "digits", tmp_path / "out")
    diffusers.DDPMPipeline(net, diffusers.DDPMScheduler()).save_pretrained(folder)
    expected = ud.sample(ud.load(folder, device="cpu"), 2, steps=3).x.clamp(0, 255).round().numpy()
    imported, arrays = str(tmp_path / "imported"), [tmp_path / f"{k}.npy" for k in range(4)]
    export = ["export", str(tmp_path / "run"), "--push", "me/digits", "--license", "mit", "--out"]

    def sample(name: str, out: Path) -> list[str]:
        return ["sample", name, "--n", "2", "--steps", "3", "--device", "cpu", "--out", str(out)]

    with hub(tmp_path / "hub") as address:
        refused, uploaded, missing, named, bare, read, again = commands(
            [*export, str(tmp_path / "a")], [*export, str(here)], sample("hf:me/nothing", arrays[0]),
            sample("hf:me/ddpm", arrays[0]), sample("me/ddpm", arrays[1]), ["import", "me/ddpm", "--out", imported],
            sample(imported, arrays[2]), at=address, home=tmp_path, token="")
    assert refused[0] == 1 and refused[1].count("\n") == 1
    assert "cannot upload to me/digits" in refused[1] and "hf auth login" in refused[1]
    assert "uploaded to me/digits" in uploaded[1] and "license: mit" in (there / "README.md").read_text()
    names = {str(f.relative_to(here)) for f in here.rglob("*") if f.is_file()}
    assert {str(f.relative_to(there)) for f in there.rglob("*") if f.is_file()} == names
    assert all((here / name).read_bytes() == (there / name).read_bytes() for name in names)
    assert missing[0] == 1 and missing[1].count("\n") == 1 and "me/nothing of the Hugging Face Hub" in missing[1]
    assert (named[0], bare[0], again[0]) == (0, 0, 0) and "UNet2DModel (1, 8, 8)" in read[1]
    about = json.loads((tmp_path / "imported" / "imported.json").read_text())
    assert about["source"] == "me/ddpm" and set(about["files"]) == {"unet/diffusion_pytorch_model.safetensors"}
    nowhere = "http://127.0.0.1:9"
    cached, absent = commands(sample("hf:me/ddpm", arrays[3]), sample("hf:me/other", arrays[0]), at=nowhere,
                              home=tmp_path, offline=True)
    assert cached[0] == 0 and absent[0] == 1 and absent[1].count("\n") == 1
    assert all(np.abs(np.load(file).astype(float) - expected).max() == 0 for file in arrays)
