"""The full-size backbone's parts, in miniature: folders as transformers itself writes them."""

import json
import shutil
from dataclasses import replace

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    Dinov2WithRegistersModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Model,
    SiglipConfig,
    SiglipModel,
    SiglipVisionModel,
)

from benchmarks.train import write_demonstrations
from models import backbone, config, vision
from models.backbone import Backbone
from models.checkpoint import load_checkpoint
from models.config import preset
from models.policy import Policy
from models.pretrained import DINO, LANGUAGE, SIGLIP, TOKENS, Part, fetch, load_pretrained
from models.train import main
from models.types import Observation

SMALL = {"num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14}
MINI = replace(
    preset("debug"), preset="mini", text="qwen", vision="dinov2+siglip", text_first=False,
    image_size=28, tokens_per_view=4, lora_rank=4, conv_channels=(),
)  # fmt: skip


@pytest.fixture(autouse=True)
def miniature(monkeypatch):
    """Towers and vocabulary of a size that a test can write; the hub is out of reach."""
    dino = {"hidden_size": 16, "image_size": 42, "num_register_tokens": 1, **SMALL}
    siglip = {"hidden_size": 24, "intermediate_size": 32, **SMALL}
    monkeypatch.setattr(vision, "DINOV2", dino)
    monkeypatch.setattr(vision, "SIGLIP", siglip)
    monkeypatch.setattr(backbone, "QWEN_VOCABULARY", 50)
    monkeypatch.setitem(config.PRESETS, "mini", MINI)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def parts(tmp_path):
    """A folder with one folder for each part, with weights of their own."""
    torch.manual_seed(7)
    folder, own = tmp_path / "parts", Backbone(replace(MINI, lora_rank=0))
    Qwen2Model(own.language.config).save_pretrained(folder / LANGUAGE.name)
    Dinov2WithRegistersModel(own.vision.dino.config).save_pretrained(folder / DINO.name)
    sight = own.vision.siglip.config
    both = SiglipConfig(  # the hub's has a text tower as well
        text_config={"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
                     "num_attention_heads": 1, "vocab_size": 9},
        vision_config=sight.to_dict(),
    )  # fmt: skip
    SiglipModel(both).save_pretrained(folder / SIGLIP.name)
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "bowl": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(folder / LANGUAGE.name)
    return folder


def test_every_weight_of_every_part_arrives(parts):
    model = Backbone(MINI)
    load_pretrained(model, parts)
    for module, kind, part in (
        (model.language, Qwen2Model, LANGUAGE),
        (model.vision.dino, Dinov2WithRegistersModel, DINO),
        (model.vision.siglip, SiglipVisionModel, SIGLIP),
    ):
        source = kind.from_pretrained(parts / part.name).state_dict()
        own = {k.replace(".base_layer", ""): v for k, v in module.state_dict().items()}
        assert source.keys() == {name for name in own if "lora_" not in name}
        for name, value in source.items():
            assert torch.equal(own[name], value), name


def test_parts_come_from_the_hubs_cache_at_their_revisions(parts, tmp_path, monkeypatch):
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    places = {
        part: cache / f"models--{part.repo.replace('/', '--')}" / "snapshots" / part.revision
        for part in (LANGUAGE, DINO, SIGLIP)
    }
    for part, place in places.items():
        shutil.copytree(parts / part.name, place)
    model = Backbone(MINI)
    load_pretrained(model)
    wanted = Dinov2WithRegistersModel.from_pretrained(parts / DINO.name).state_dict()
    for name, value in model.vision.dino.state_dict().items():
        assert torch.equal(value, wanted[name]), name
    places[SIGLIP].rename(places[SIGLIP].with_name("0" * 40))  # another revision is another model
    with pytest.raises(ValueError, match=f"--revision {SIGLIP.revision}"):
        load_pretrained(Backbone(MINI))


def test_a_hub_out_of_reach_is_told_before_a_download_is_tried(tmp_path, monkeypatch):
    """Which would be tried five times a file, with a wait before each."""
    hub = huggingface_hub.constants
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "ENDPOINT", "http://127.0.0.1:1")

    def load(*_, **__):
        raise AssertionError("a download was tried")

    with pytest.raises(ValueError, match=r"neither in reach.*hf download"):
        fetch(load, LANGUAGE)


def test_a_cache_without_the_tokenizer_is_no_tokenizer(tmp_path, monkeypatch):
    """From the weights' config.json alone transformers would make one that knows no words."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--Qwen--Qwen2.5-0.5B" / "snapshots" / LANGUAGE.revision
    snapshot.mkdir(parents=True)
    Qwen2Config().save_pretrained(snapshot)
    with pytest.raises(ValueError, match="neither in reach nor in the hub's cache"):
        fetch(AutoTokenizer.from_pretrained, LANGUAGE, file=TOKENS)


def test_the_fused_features_are_those_of_the_parts(parts):
    model = Backbone(MINI).eval()
    load_pretrained(model, parts)
    pixels = torch.rand(2, 3, 28, 28)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (vision.IMAGENET_MEAN, vision.IMAGENET_STD))
    with torch.no_grad():
        dino = Dinov2WithRegistersModel.from_pretrained(parts / DINO.name)(
            (pixels - mean) / std, output_hidden_states=True
        )
        siglip = SiglipVisionModel.from_pretrained(parts / SIGLIP.name)(
            pixels * 2 - 1, output_hidden_states=True
        )
    expected = torch.cat([dino.hidden_states[1][:, 2:], siglip.hidden_states[1]], dim=-1)
    torch.testing.assert_close(model.vision.features(pixels), expected)


def seen_by(model):
    """The context of two observations."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (2, 2, 28, 28, 3), generator=generator, dtype=torch.uint8)
    proprio = torch.randn(2, 8, generator=generator)
    return model(images, proprio, torch.tensor([[2, 2], [2, 1]]), torch.tensor([[1, 1], [1, 0]]))


def test_layers_that_nothing_reads_are_left_out_and_the_others_are_those_of_the_whole(parts):
    whole, short = Backbone(MINI).eval(), Backbone(replace(MINI, layers_extracted=2)).eval()
    load_pretrained(whole, parts)
    load_pretrained(short, parts)
    short.load_state_dict({n: whole.state_dict()[n] for n in short.state_dict()})
    assert len(short.language.layers) == 1 and len(whole.language.layers) == 2
    with torch.no_grad():
        known, found = seen_by(whole), seen_by(short)
    assert len(found.vision) == 2
    for kind in ("vision", "latents"):
        for wanted, own in zip(getattr(known, kind)[:2], getattr(found, kind), strict=True):
            torch.testing.assert_close(own, wanted)


def test_merged_adapters_give_the_same_context(parts):
    model = Backbone(MINI).eval()
    load_pretrained(model, parts)
    torch.manual_seed(1)
    for name, value in model.named_parameters():
        if "lora_B" in name:  # zero at first: they would change nothing
            value.data.normal_(std=0.1)
    with torch.no_grad():
        before = seen_by(model)
        model.merge_adapters()
        after = seen_by(model)
    torch.testing.assert_close(after.vision[-1], before.vision[-1], atol=1e-4, rtol=1e-4)
    assert not torch.equal(after.vision[-1], before.vision[-1])


def test_every_adapter_learns(parts):
    model = Backbone(replace(MINI, layers_extracted=2))
    load_pretrained(model, parts)
    context = seen_by(model)
    sum(h.square().mean() for h in (*context.vision, *context.latents)).backward()
    adapters = [(n, p) for n, p in model.language.named_parameters() if p.requires_grad]
    assert adapters and all(p.grad is not None for _, p in adapters)


def _other_size(parts):
    data = json.loads((parts / DINO.name / "config.json").read_text())
    dino = Dinov2WithRegistersModel(type(Backbone(MINI).vision.dino.config)(
        **{**data, "hidden_size": 20}))  # fmt: skip
    dino.save_pretrained(parts / DINO.name)


def _lacking(parts):
    model = Qwen2Model.from_pretrained(parts / LANGUAGE.name)
    state = {k: v for k, v in model.state_dict().items() if k != "norm.weight"}
    model.save_pretrained(parts / LANGUAGE.name, state_dict=state)


def _of_another_shape(parts):
    """Weights that their own config.json does not describe; transformers would draw new ones."""
    file = parts / DINO.name / "model.safetensors"
    weights = load_file(file)
    name = next(n for n in weights if n.endswith("query.weight"))
    save_file({**weights, name: torch.zeros(20, 20)}, file, metadata={"format": "pt"})


BREAKAGES = {
    "not of its own config": _of_another_shape,
    "no such folder": lambda f: (f / DINO.name).rename(f / "moved"),
    "not whole": lambda f: (f / SIGLIP.name / "model.safetensors").write_bytes(b"\0" * 100),
    "has shape": _other_size,
    "no weights for norm.weight": _lacking,
}


@pytest.mark.parametrize("words", BREAKAGES)
def test_a_part_that_does_not_fit_is_named(parts, words):
    BREAKAGES[words](parts)
    with pytest.raises(ValueError, match=words) as caught:
        load_pretrained(Backbone(MINI), parts)
    assert "\n" not in str(caught.value)


def test_a_hub_out_of_reach_is_one_line_that_says_what_to_do():
    nobodys = Part("nobody/nothing-of-this-name", "0" * 40)
    for load in (Qwen2Model.from_pretrained, AutoTokenizer.from_pretrained):
        with pytest.raises(ValueError, match="hf download nobody/nothing") as caught:
            fetch(load, nobodys)
        assert "\n" not in str(caught.value)


def test_fine_tuned_from_a_folder_it_plans_without_it(parts, tmp_path, capsys):
    (tmp_path / "demos").mkdir()
    write_demonstrations(tmp_path / "demos")
    run = tmp_path / "run"
    argv = ["--preset", "mini", "--data", str(tmp_path / "demos"), "--out", str(run), "--device",
            "cpu", "--batch-size", "2", "--wordings", "1"]  # fmt: skip
    assert main([*argv, "--steps", "1"]) == 2
    assert "mini starts from pretrained parts; --pretrained takes" in capsys.readouterr().err
    assert main([*argv, "--steps", "1", "--pretrained"]) == 2  # no tokenizer without the hub
    assert "hf download Qwen/Qwen2.5-0.5B" in capsys.readouterr().err
    assert main([*argv, "--steps", "1", "--pretrained", str(parts)]) == 0
    before = Qwen2Model.from_pretrained(parts / LANGUAGE.name).state_dict()
    parts.rename(tmp_path / "gone")
    assert main([*argv, "--steps", "2", "--resume"]) == 0
    policy = Policy.from_pretrained(run / "last", device="cpu")
    language = load_checkpoint(run / "last").model.backbone.language
    frozen = language.layers[0].self_attn.q_proj.base_layer.weight
    assert torch.equal(frozen, before["layers.0.self_attn.q_proj.weight"])
    image = np.zeros((28, 28, 3), np.uint8)
    seen = Observation({"agentview": image, "wrist": image}, np.zeros(8, np.float32), "a bowl")
    assert np.isfinite(policy.plan(seen).actions).all()
