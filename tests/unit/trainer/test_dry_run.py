"""What the libraries would refuse on a GPU is refused by prepare, with its field."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from finetune_trainer import dry_run as dry_run_module
from finetune_trainer.adaptations.lora import Lora
from finetune_trainer.compatibility import Choice
from finetune_trainer.contract import RunConfig, TrainingConfig
from finetune_trainer.dry_run import dry_run, learned_positions
from finetune_trainer.errors import InvalidConfig
from finetune_trainer.model import load_tokenizer
from finetune_trainer.shrunk import LAYERS, narrowed, shrunk
from finetune_trainer.workspace import Paths

Job = Callable[..., RunConfig]
GPU = {"device": "cuda", "nodes": 1, "processesPerNode": 1}


def tried(config: RunConfig, paths: Paths) -> None:
    dry_run(Choice.of(config.training, config.topology), config, paths, load_tokenizer(config, paths))


def refusal(config: RunConfig, paths: Paths) -> InvalidConfig:
    with pytest.raises(InvalidConfig) as found:
        tried(config, paths)
    return found.value


@pytest.mark.parametrize(
    "training",
    [
        {"method": "lora"},
        {"method": "qlora"},
        {"method": "full"},
        {"method": "lora", "packing": True},
        {"modelConfig": {"dtype": "torch.float32"}},
        {"modelConfig": {"dtype": "bfloat16"}, "trainerConfig": {"gradient_checkpointing": True}},
        {"trainerConfig": {"num_train_epochs": 3, "warmup_steps": 0.1, "lr_scheduler_type": "cosine"}},
        {"trainerConfig": {"dataloader_num_workers": 4, "dataloader_prefetch_factor": 2}},
        {"trainerConfig": {"dataloader_num_workers": 4, "dataloader_multiprocessing_context": "spawn"}},
        {"modelConfig": {"dtype": "auto", "attn_implementation": "eager"}},
    ],
    ids=str,
)
def test_what_can_be_trained_passes_and_leaves_nothing_behind(job: Job, paths: Paths, training: dict[str, Any]) -> None:
    tried(job(training=training), paths)
    assert not list(paths.scratch.iterdir())


@pytest.mark.parametrize(
    ("training", "field", "words"),
    [
        (
            {"modelConfig": {"attn_implementation": "flash_attention_2"}},
            "modelConfig.attn_implementation",
            "flash_attn",
        ),
        ({"trainerConfig": {"use_liger_kernel": True}}, "trainerConfig.use_liger_kernel", "liger_kernel"),
        ({"modelConfig": {"attn_implementation": "spda"}}, "modelConfig.attn_implementation", "spda"),
        ({"modelConfig": {"attn_implementation": "a/kernel"}}, "modelConfig.attn_implementation", "kernels"),
        ({"modelConfig": {"dtype": "auto"}, "peftConfig": {"target_modules": ["query_proj"]}}, "peftConfig", "query_"),
        ({"trainerConfig": {"padding_free": True}}, "trainerConfig.padding_free", "FlashAttention"),
        ({"trainerConfig": {"optim": "apollo_adamw"}}, "trainerConfig", "apollo"),
        ({"trainerConfig": {"optim": "adamw_torch_4bit"}}, "trainerConfig.optim", "torchao"),
        ({"peftConfig": {"target_modules": ["query_proj"]}}, "peftConfig", "query_proj"),
        ({"peftConfig": {"target_modules": ["lm_head"]}}, "peftConfig.target_modules", "lm_head"),
        ({"tokenizerConfig": {"pad_token": "<never seen>"}}, "tokenizerConfig.pad_token", "<never seen>"),
    ],
    ids=str,
)
def test_what_only_the_gpus_would_have_found_is_refused_with_its_field(
    job: Job, paths: Paths, training: dict[str, Any], field: str, words: str
) -> None:
    error = refusal(job(training=training), paths)
    assert error.field == f"spec.training.{field}"
    assert words in error.message


@pytest.mark.parametrize(
    "peft",
    [
        {"layers_to_transform": [7], "target_modules": ["q_proj"]},
        {"target_modules": r".*\.layers\.(6|7)\.self_attn\.q_proj"},
    ],
    ids=str,
)
def test_an_adapter_on_layers_that_only_the_whole_model_has_is_let_pass(
    job: Job, paths: Paths, tmp_path: Path, peft: dict[str, Any]
) -> None:
    folder, source = tmp_path / "deep", job()
    tokenizer = AutoTokenizer.from_pretrained(source.model.uri.removeprefix("file://"))
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_hidden_layers=8, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model = {"uri": f"file://{folder}"}
    tried(job(model=model, training={"peftConfig": peft}), paths)
    absent = {"layers_to_transform": [8], "target_modules": ["q_proj"]}
    error = refusal(job(model=model, training={"peftConfig": absent}), paths)
    assert error.field == "spec.training.peftConfig.layers_to_transform"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_gang_is_tried_by_one_process(job: Job, paths: Paths, device: str) -> None:
    tried(job(topology={"device": device, "nodes": 2, "processesPerNode": 2}), paths)


@pytest.mark.parametrize("optim", ["paged_adamw_8bit", "adamw_bnb_8bit"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_what_only_a_gpu_has_is_left_to_the_gpu(job: Job, paths: Paths, optim: str, precision: str) -> None:
    more = {"tf32": True, "torch_compile_mode": "max-autotune", "activation_offloading": True}
    tried(job(training={"trainerConfig": {"optim": optim, precision: True, **more}}, topology=GPU), paths)


def test_a_copy_that_breaks_in_a_way_of_its_own_is_no_verdict(
    job: Job, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise AssertionError("no library refuses like this")

    monkeypatch.setattr(dry_run_module, "_train", broken)
    tried(job(), paths)


@pytest.mark.parametrize("words", ["the CUDA driver is too old", "NVML is not there"])
def test_what_misses_a_gpu_is_no_verdict_on_a_job_that_will_have_one(
    job: Job, paths: Paths, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    def without_gpu(*_: Any, **__: Any) -> None:
        raise InvalidConfig(words)

    monkeypatch.setattr(dry_run_module, "_train", without_gpu)
    tried(job(topology=GPU), paths)
    assert refusal(job(), paths).message == words


def test_a_hybrid_that_cannot_be_made_narrower_is_not_tried(job: Job, paths: Paths, tmp_path: Path) -> None:
    config = AutoConfig.for_model("granitemoehybrid", layer_types=["mamba", "attention"], num_hidden_layers=2)
    folder = tmp_path / "base"
    choice = Choice.of(job().training, job().topology)
    found = dry_run_module._save_small(choice, job(), config, folder)  # noqa: SLF001 - a whole model would be huge
    assert found is None or any(folder.glob("*.safetensors"))


def test_rows_longer_than_the_learned_positions_are_refused(job: Job, paths: Paths, tmp_path: Path) -> None:
    folder, source = tmp_path / "gpt2", job()
    tokenizer = AutoTokenizer.from_pretrained(source.model.uri.removeprefix("file://"))
    GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), n_positions=64, n_embd=16, n_layer=3, n_head=2, bos_token_id=1)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tried(job(model={"uri": f"file://{folder}"}, training={"maxSequenceLength": 64}), paths)
    error = refusal(job(model={"uri": f"file://{folder}"}, training={"maxSequenceLength": 65}), paths)
    assert (error.field, error.advice) == ("spec.training.maxSequenceLength", "set it to 64 or less")


def test_positions_of_a_tower_do_not_limit_the_rows() -> None:
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    with torch.device("meta"):
        assert learned_positions(AutoModelForCausalLM.from_config(shrunk(AutoConfig.for_model("gemma3")))) is None
        assert learned_positions(AutoModelForCausalLM.from_config(shrunk(AutoConfig.for_model("gpt2")))) == 1024


def test_lora_leaves_the_towers_of_a_multimodal_model_alone() -> None:
    import peft  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(narrowed(shrunk(AutoConfig.for_model("gemma3"))))
        adapted = peft.get_peft_model(model, Lora().peft_config(TrainingConfig(), model))
    trained = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert any("language_model" in name for name in trained)
    assert not [name for name in trained if "vision" in name or "multi_modal" in name]


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("llama", {"hidden_size": 8192, "num_attention_heads": 64, "num_key_value_heads": 8, "num_hidden_layers": 80}),
        ("qwen3", {"hidden_size": 5120, "num_attention_heads": 40, "num_key_value_heads": 8, "num_hidden_layers": 40}),
        (
            "gemma2",
            {"hidden_size": 4608, "num_attention_heads": 32, "num_key_value_heads": 16, "num_hidden_layers": 46},
        ),
        ("mixtral", {"num_hidden_layers": 32}),
        ("qwen3_moe", {}),
        ("deepseek_v3", {}),
        ("falcon", {}),
        ("bloom", {"hidden_size": 4096, "n_head": 32, "n_layer": 30}),
        ("opt", {"hidden_size": 2048, "num_attention_heads": 32, "num_hidden_layers": 24}),
        ("phi3", {}),
    ],
)
def test_a_large_model_becomes_a_small_one_of_the_same_kind(kind: str, sizes: dict[str, int]) -> None:
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    small = narrowed(shrunk(AutoConfig.for_model(kind, **sizes)))
    assert small.num_hidden_layers == LAYERS
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(small)
    assert sum(weight.numel() for weight in model.parameters()) < 120_000_000
    model = AutoModelForCausalLM.from_config(small)
    out = model(input_ids=torch.arange(8).unsqueeze(0))
    assert out.logits.shape[-1] == small.vocab_size
