"""The planner against hand-computed cases, the real class's parameters and what autograd really keeps; receipts; presets."""

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from cells import definitions

from tools import sizing
from tools.sizing import GIB, QWEN3_VL_2B, SMALL, TINY, cards, choice_for, image_tokens, plan
from vdr_helpers.machine import BYTES, card_choice, check_disk
from vdr_helpers.profiles import PROFILES, assets_folder

FULL = PROFILES["full"]
H100 = {"device": "NVIDIA H100 80GB HBM3", "card": "H100", "memory_gib": 79.1, "capability": [9, 0]}


def term(result, name):
    return next(part for part in result.terms if part.name == name)


# the model in numbers


@pytest.mark.parametrize("model", [QWEN3_VL_2B, TINY, SMALL], ids=lambda model: model.name)
def test_parameters_are_those_of_the_real_class(model):
    import torch
    from transformers import AutoTokenizer, Qwen3VLModel

    from tiny_vdr.model import build_config
    from vdr_helpers.profiles import shipped

    config = build_config(model, AutoTokenizer.from_pretrained(shipped("assets/tiny-base")))
    with torch.device("meta"):
        real = Qwen3VLModel(config)
    assert sum(weight.numel() for weight in real.parameters()) == model.parameters
    assert sum(weight.numel() for weight in real.visual.parameters()) == model.vision_parameters


def test_the_2b_architecture_has_the_published_parameters():
    assert round(QWEN3_VL_2B.parameters / 1e9, 1) == 2.1  # the published card
    assert QWEN3_VL_2B.layer_matrices == 4_194_304 + 2 * 2_097_152 + 4_194_304 + 3 * 12_582_912  # q, k and v, o, three of the MLP
    assert QWEN3_VL_2B.lora_parameters == 28 * 32 * ((2048 + 2048) + 2 * (2048 + 1024) + 3 * (2048 + 6144))


def stored(model, weights, texts, patches):
    """Bytes of the distinct tensors that autograd keeps in one forward pass on the CPU, weights left out."""
    import torch

    model = model.to(weights)
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)  # so that no address is used twice
        return tensor

    inputs = {"input_ids": texts, "attention_mask": torch.ones_like(texts)}
    inputs["attention_mask"][-1, -5:] = 0  # padding, as in a mini-batch of pages of several sizes
    if patches:
        grid = torch.tensor([[1, 16, patches // 16]])
        inputs |= {"pixel_values": torch.randn(patches, 1536), "image_grid_thw": grid, "mm_token_type_ids": (texts == 5).int()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        model(**inputs)
    return sum(kept.values())


def random_network(model):
    import torch
    from transformers import AutoTokenizer, Qwen3VLModel

    from tiny_vdr.model import build_config
    from vdr_helpers.profiles import shipped

    torch.manual_seed(0)
    return Qwen3VLModel(build_config(model, AutoTokenizer.from_pretrained(shipped("assets/tiny-base"))))


@pytest.mark.parametrize("weights", ["bfloat16", "float32"])
def test_stored_bytes_of_text_are_what_autograd_keeps(weights):
    import torch

    texts = torch.randint(10, 500, (2, 96))
    one = dataclasses.replace(TINY, layers=1)
    counted = stored(random_network(TINY), getattr(torch, weights), texts, 0)
    counted -= stored(random_network(one), getattr(torch, weights), texts, 0)
    size = BYTES[weights]
    formula = texts.numel() * (TINY.stored_bytes_per_token(size) - one.stored_bytes_per_token(size))
    copies = 2 * TINY.layer_matrices if size == 4 else 0  # autocast's 16-bit copies of one layer, the planner's own term
    assert counted == pytest.approx(formula + copies, rel=0.02)  # the attention mask comes on top


def test_stored_bytes_of_a_page_are_what_autograd_keeps():
    import torch

    def page(patches):
        ids = torch.randint(10, 500, (1, 21))
        return torch.cat([ids[:, :5], torch.full((1, patches // 4), 5), ids[:, 5:]], dim=1)

    network = random_network(TINY)
    small, large = (stored(network, torch.bfloat16, page(patches), patches) for patches in (256, 512))
    formula = sizing.activation_bytes(TINY, 128, False, "bfloat16") - sizing.activation_bytes(TINY, 64, False, "bfloat16")
    assert large - small == pytest.approx(formula, rel=0.05)


@pytest.mark.parametrize(
    ("width", "height", "pixels"),
    [(1416, 1648, 360_000), (700, 709, 360_000), (2100, 2064, 360_000), (400, 560, 40_000), (900, 90, 9_216)],
)
def test_image_tokens_follow_the_library(width, height, pixels):
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    rows, columns = smart_resize(height, width, factor=32, min_pixels=32 * 32, max_pixels=pixels)
    assert image_tokens(width, height, pixels) == rows * columns // 1024


# plans, by hand


def test_the_mean_page_has_340_image_tokens():
    """1416 x 1648 shrinks by sqrt(2,333,568 / 360,000) = 2.546 to 556 x 647, in whole 32s 544 x 640: 17 x 20."""
    assert image_tokens(*sizing.PAGE_SIZE, 600 * 600) == 340


def test_memory_of_the_published_run_by_hand():
    result = plan("H100", FULL, mini_batch_num_tokens=5600, receipts=[])
    count = 2_127_532_032
    assert term(result, "weights").gib == count * 2 / GIB
    assert term(result, "gradients").gib == count * 2 / GIB
    assert term(result, "Adam states").gib == count * 4 / GIB
    assert term(result, "pixels of a batch").gib == 128 * 1360 * 1536 * 2 / GIB  # 16-bit pixels, cast before they travel
    assert term(result, "stored embeddings").gib == 192 * 2048 * 4 * 2 / GIB
    assert result.pages_per_pass == 15  # 5,600 / (340 + 21)
    per_token = 28 * (16 * 2048 + 14 * 2048 + 6 * 1024 + 8 * 6144 + 8 + 128 + 32)
    per_patch = 24 * (22 * 1024 + 4 * 4096 + 16 + 64)
    per_image_token = 4 * 12 * 4096 + 2 * 4 * 1536 + 8 * 2048
    expected = 15 * (361 * per_token + 1360 * per_patch + 340 * per_image_token)
    assert term(result, "activations").gib == pytest.approx(expected / GIB)
    assert result.gib == pytest.approx(sum(part.gib for part in result.terms))
    assert result.source == result.time_source == "computed, not measured"
    assert {part.source for part in result.terms} == {"computed", "assumed"}


def test_minutes_by_hand():
    language = 2 * 28 * QWEN3_VL_2B.layer_matrices * 361 + 2 * 28 * 2048 * 361**2
    tower = 2 * 24 * (4 * 1024**2 + 2 * 1024 * 4096) * 1360 + 4 * 24 * 1024 * 1360**2 + 2 * 1536 * 1024 * 1360
    vision = tower + 2 * QWEN3_VL_2B.merger_parameters * 340
    query = 2 * 28 * QWEN3_VL_2B.layer_matrices * 36 + 2 * 28 * 2048 * 36**2
    step = 128 * 4 * (language + vision) + 64 * 4 * query
    total = 157 * step + 11 * 1500 * (language + vision)
    result = plan("A100-80", FULL, receipts=[])
    assert result.minutes == pytest.approx(total / 312e12 / 0.35 / 60)
    assert result.minutes_low == pytest.approx(total / 312e12 / 0.5 / 60)
    assert result.minutes_high == pytest.approx(total / 312e12 / 0.2 / 60)
    lora = plan("A100-80", FULL, lora=True, receipts=[])
    step = 128 * (3 * language + 2 * vision) + 64 * 3 * query
    assert lora.minutes == pytest.approx((157 * step + 11 * 1500 * (language + vision)) / 312e12 / 0.35 / 60)


def test_lora_keeps_16_bit_weights_float32_adapters_and_nothing_of_the_vision_tower():
    result = plan("T4", FULL, lora=True, mini_batch_num_tokens=400, receipts=[])
    adapters = QWEN3_VL_2B.lora_parameters
    assert term(result, "weights").gib == 2_127_532_032 * 2 / GIB
    assert term(result, "adapters").gib == adapters * 4 / GIB
    assert term(result, "Adam states").gib == adapters * 8 / GIB
    assert term(result, "activations").gib == pytest.approx(361 * QWEN3_VL_2B.stored_bytes_per_token(2) / GIB)


def test_float32_weights_double_the_states_and_add_copies():
    result = plan("H100", FULL, weights="float32", receipts=[])
    assert term(result, "Adam states").gib == 2_127_532_032 * 8 / GIB
    assert term(result, "autocast copies").gib > 3


def test_more_pixels_and_tokens_need_more_and_a_budget_never_goes_below_one_page():
    small, large = (plan("H100", FULL, max_pixels=side * side, receipts=[]) for side in (400, 800))
    assert small.minutes < large.minutes
    assert plan("H100", FULL, mini_batch_num_tokens=1, receipts=[]).pages_per_pass == 1
    assert plan("H100", FULL, batch=4, mini_batch_num_tokens=50_000, receipts=[]).pages_per_pass == 4


def test_bad_input_is_told_what_to_do():
    with pytest.raises(ValueError, match=r"unknown card 'V100'.*T4"):
        plan("V100", FULL)
    with pytest.raises(ValueError, match="use LoRA"):
        plan("T4", FULL, weights="float16")
    with pytest.raises(ValueError, match="weights must be one of"):
        plan("T4", FULL, weights="int8")
    with pytest.raises(ValueError, match="at least 1"):
        plan("T4", FULL, batch=-1)


def test_the_disk_by_hand():
    """A checkpoint of all weights is three times the weights: 12.8 GB, and two lie there for a moment."""
    weights = 2_127_532_032 * 2 / GIB
    sizes = {part.name: part.gib for part in sizing.disk_terms(FULL, False, "bfloat16")}
    assert sizes["checkpoints"] == pytest.approx(2 * 3 * weights) and 3 * weights * GIB / 1e9 == pytest.approx(12.8, abs=0.05)
    assert sizes["tuned model"] == sizes["published model"] == pytest.approx(weights)
    assert sizes["downloaded models"] == pytest.approx(2 * weights)  # base, and the tuned one of notebook 00
    assert sizes["pages"] == pytest.approx((20_000 + 1500) * 3 * 0.35 * 360_000 * 3 / GIB)
    adapters = QWEN3_VL_2B.lora_parameters * 4 / GIB
    lora = {part.name: part.gib for part in sizing.disk_terms(FULL, True, "float16")}
    assert (lora["checkpoints"], lora["tuned model"]) == (pytest.approx(6 * adapters), pytest.approx(adapters))
    assert lora["published model"] == pytest.approx(weights)  # merged
    assert {part.name: part.gib for part in sizing.disk_terms(PROFILES["tiny"], False, "float32")}["downloaded models"] == 0


def test_a_disk_that_is_too_small_is_announced_and_what_lies_there_counts(tmp_path, monkeypatch):
    need = sizing.total(sizing.disk_terms(FULL, False, "bfloat16"))

    def said(free_gib):
        free = SimpleNamespace(free=free_gib * GIB)
        monkeypatch.setattr("shutil.disk_usage", lambda folder: free)
        return check_disk(FULL, tmp_path / "outputs")

    assert said(need) is None
    assert said(20).startswith(f"20.0 GiB free, {need:.1f} GiB needed (checkpoints 23.8, pages ")
    kept = FULL.output_dir / "data" / "pages"
    kept.mkdir(parents=True)
    (kept / "0.png").write_bytes(bytes(2**20))
    assert said(need - 2**-10) is None


def test_the_computers_memory_has_its_own_line():
    """Weights once, and per worker two batches of 16-bit pixels and one in the making, in 32 bits."""
    batch = 128 * 1360 * 1536 * 2
    assert sizing.batch_bytes(FULL, "bfloat16") == batch
    sizes = {part.name: part.gib for part in sizing.ram_terms(FULL, "bfloat16")}
    assert sizes["weights or gradients"] == 2_127_532_032 * 2 / GIB
    assert sizes["batches ahead"] == pytest.approx(4 * (2 * batch + 2 * batch) / GIB)
    alone = dataclasses.replace(FULL, dataloader_num_workers=0)
    assert sizing.total(sizing.ram_terms(alone, "bfloat16")) == pytest.approx(sizes["weights or gradients"] + sizes["allowance"])


# receipts


def train_run(pages, peak, seconds=10.0, **more):
    run = {"kind": "train", "outcome": "ok", "mode": "full", "weights": "bfloat16", "batch": 64, "max_pixels": 360_000}
    run |= {"image_tokens": 340, "pages_per_pass": pages, "peak_gib": peak, "seconds_per_step": seconds}
    return run | {"flops_per_step": 3.462e15} | more


def receipt(*runs, hardware=H100, parameters=2_127_532_032):
    model = {"name": "Qwen3-VL 2B", "parameters": parameters, "weights": "random"}
    return {"schema": sizing.SCHEMA, "hardware": hardware, "versions": {"torch": "2"}, "model": model, "runs": list(runs)}


def test_interpolation():
    line = [(100, 10.0), (300, 30.0)]
    assert sizing.interpolate(line, 100) == (10.0, "measured at this size")
    value, how = sizing.interpolate(line, 150)
    assert (value, how) == (15.0, "interpolated between 100 and 300")
    assert sizing.interpolate(line, 400) == (40.0, "extrapolated from 100 and 300")
    assert sizing.interpolate([*line, (1000, 31.0)], 650)[0] == 30.5
    assert sizing.interpolate([(100, 10.0), (100, 14.0)], 100)[0] == 12.0
    assert sizing.interpolate([(100, 10.0)], 7) == (10.0, "taken over from the one measurement at 100")
    with pytest.raises(ValueError, match="nothing was measured"):
        sizing.interpolate([], 1)


def test_a_plan_between_two_receipts_says_so():
    states = sum(part.gib for part in sizing.state_terms(QWEN3_VL_2B, 64, 340, False, "bfloat16"))
    taken = [receipt(train_run(3, states + 6.0), train_run(15, states + 30.0))]
    result = plan("H100", FULL, mini_batch_num_tokens=9 * 361, receipts=taken)
    assert term(result, "activations").gib == pytest.approx(18.0)  # 9 pages, half way between 3 and 15
    assert "interpolated between 1,020 and 5,100" in term(result, "activations").how
    assert "NVIDIA H100 80GB HBM3" in term(result, "activations").how
    assert result.source == "activations measured, the rest computed"
    assert result.gib == pytest.approx(states + 18.0 + 1.0)


def test_minutes_from_a_receipt_use_its_efficiency():
    """3.462e15 operations in 10 s on a card of 989e12 per second: 35 %; in 7 s: 50 %."""
    slow, fast = train_run(3, 20.0, 10.0), train_run(15, 50.0, 7.0)
    assert sizing.run_efficiency(slow | {"hardware": H100}) == pytest.approx(0.35, abs=1e-3)
    here = plan("H100", FULL, mini_batch_num_tokens=15 * 361, receipts=[receipt(slow, fast)])
    computed = plan("H100", FULL, mini_batch_num_tokens=15 * 361, receipts=[])
    assert here.minutes == pytest.approx(computed.minutes * 0.35 / sizing.run_efficiency(fast | {"hardware": H100}))
    assert here.minutes == here.minutes_low == here.minutes_high
    assert here.time_source == "measured on this card"
    elsewhere = plan("A100-80", FULL, mini_batch_num_tokens=15 * 361, receipts=[receipt(slow, fast)])
    assert elsewhere.time_source == "efficiency measured on another card, not on this one"
    beyond = plan("H100", FULL, mini_batch_num_tokens=60 * 361, receipts=[receipt(slow, fast)])
    assert "extrapolated" in beyond.time_how
    assert beyond.minutes == pytest.approx(here.minutes)  # never faster than what was seen


def test_receipts_of_other_models_ways_and_machines_are_left_out():
    cpu = {"device": "CPU", "card": None, "memory_gib": None, "capability": None}
    taken = [
        receipt(train_run(3, 20.0, mode="lora")),
        receipt(train_run(3, 20.0, weights="float32")),
        receipt(train_run(3, None, outcome="out of memory"), {"kind": "encode", "outcome": "ok", "pages_per_second": 1.0}),
        receipt(train_run(3, 20.0), parameters=SMALL.parameters),
        receipt(train_run(3, None), hardware=cpu),
    ]
    assert plan("H100", FULL, receipts=taken) == plan("H100", FULL, receipts=[])


def test_a_receipt_is_appended_whole_and_never_mixed(tmp_path):
    path = tmp_path / "results" / "receipt.json"
    header = {name: receipt()[name] for name in ("hardware", "versions", "model")}
    sizing.append_run(path, header, train_run(3, 20.0))
    assert len(sizing.append_run(path, header, train_run(15, 50.0))["runs"]) == 2
    assert sizing.read_receipt(path)["runs"][1]["peak_gib"] == 50.0
    other = header | {"versions": {"torch": "3"}}
    assert len(sizing.append_run(path, other, train_run(1, 9.0))["runs"]) == 1
    assert len(sizing.read_receipt(path.with_name("receipt.json.old"))["runs"]) == 2
    assert not list(path.parent.glob("*.partial"))


def test_what_is_no_receipt_is_refused(tmp_path):
    path = tmp_path / "receipt.json"
    for text, problem in (("{", "not JSON"), ("[]", "missing schema"), (json.dumps(receipt() | {"schema": "x"}), "that schema")):
        path.write_text(text)
        with pytest.raises(ValueError, match=problem):
            sizing.read_receipt(path)


def test_own_and_shipped_receipts_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sizing, "assets_folder", lambda: tmp_path / "assets")
    assert sizing.load_receipts() == []
    (tmp_path / "assets" / "receipts").mkdir(parents=True)
    (tmp_path / "assets" / "receipts" / "h100.json").write_text(json.dumps(receipt(train_run(3, 20.0))))
    own = tmp_path / "outputs" / "rehearsal" / "results" / "receipt.json"
    own.parent.mkdir(parents=True)
    own.write_text(json.dumps(receipt(train_run(15, 50.0))))
    assert [taken["runs"][0]["pages_per_pass"] for taken in sizing.load_receipts()] == [3, 15]


# what is looked up


def test_the_file_is_what_the_tool_computes():
    """Regenerated from the architecture; the cards and their sources are written by hand."""
    stored = (assets_folder() / "sizing.json").read_text(encoding="utf-8")
    assert json.loads(stored) == json.loads(json.dumps(sizing.build())), "run python -m tools.sizing"


def test_a_t4_gets_float16_lora():
    choice = choice_for("T4")
    assert (choice["lora"], choice["dtype"], choice["pages"], choice["fits"]) == (True, "float16", 6, True)
    assert choice["source"] == "computed, not measured"
    assert sizing.LORA["target_modules"] == ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj", "gate_proj"]


@pytest.mark.parametrize("card", ["L4", "A10", "A100-40", "A100-80", "H100"])
def test_newer_cards_get_bfloat16_and_the_most_that_fits(card):
    choice, limit = choice_for(card), cards()[card]["memory_mib"] / 1024
    assert (choice["dtype"], choice["lora"], choice["fits"]) == ("bfloat16", False, True)
    assert choice["gib"] <= 0.9 * limit
    budget = choice["mini_batch_num_tokens"]
    larger = [tokens for tokens in sizing.budgets(FULL) if tokens > budget]
    assert not [tokens for tokens in larger if plan(card, FULL, mini_batch_num_tokens=tokens, receipts=[]).gib <= 0.9 * limit]


def test_a_receipt_changes_the_settings():
    """If one page per pass had been measured at 23 GiB, an L4 would train LoRA."""
    measured = sizing.settings_of("bfloat16", FULL, [receipt(train_run(1, 23.0))])
    whole = [one for one in measured if not one["lora"]]
    assert {one["share"] for one in whole} == {1.0} and {one["source"] for one in whole} == {
        "activations measured, the rest computed"
    }
    assert not [one for one in whole if one["gib"] <= 22.5]
    assert [one for one in measured if one["lora"] and one["gib"] <= 0.9 * 22.5]


def test_a_card_that_is_too_small_is_told():
    choice = card_choice((7, 5), 4)
    assert choice["fits"] is False
    assert (choice["lora"], choice["pages"]) == (True, 1)


def test_the_sum_of_appendix_a2_is_the_planners():
    memory = definitions("a2", "facts", "model", "page", "memory")["memory"]
    for lora, dtype, pages in ((False, "bfloat16", 15), (True, "float16", 6), (False, "float32", 2)):
        budget = pages * (340 + 21)
        result = plan("H100", FULL, mini_batch_num_tokens=budget, lora=lora, weights=dtype, receipts=[])
        assert sum(memory(lora, dtype, pages).values()) == pytest.approx(result.gib)


def test_every_card_has_its_source():
    assert len(cards()) == 6
    for card in cards().values():
        assert card["memory_mib"] > 0
        assert len(card["capability"]) == 2
        assert "TFLOPS" in card["peak_source"]
        assert str(card["peak_tflops"]) in card["peak_source"].replace(",", "") or "half" in card["peak_source"]


@pytest.mark.parametrize("name", ["full", "tiny", "rehearsal"])
def test_every_profile_can_be_planned(name):
    result = plan("H100", PROFILES[name], receipts=[])
    assert result.gib > 0
    assert result.minutes > 0
    assert "GiB" in result.explain()


# the page about a free card


def test_the_table_of_the_free_card_is_what_its_command_prints():
    page = (Path(__file__).parent.parent / "docs" / "free_card.md").read_text(encoding="utf-8")
    start, end = "<!-- table: start (python -m tools.sizing --table T4) -->\n", "\n<!-- table: end -->"
    table = page[page.index(start) + len(start) : page.index(end)]
    assert table == sizing.rows_table("T4"), "put the output of python -m tools.sizing --table T4 there"
    small, large = (line.strip("| ").split(" | ") for line in table.splitlines()[2:])
    assert small[:4] == ["1,000 : 100", "2,500", "LoRA", large[3]]
    assert float(small[-1]) < 20 < float(large[-1])  # Kaggle's 20 GB


def test_the_free_cards_run_is_hidden_from_the_setup_cell():
    """With one of these variables the second cell of each notebook would install the course once more."""
    from tools.badges import SETUP_CELL

    page = (Path(__file__).parent.parent / "docs" / "free_card.md").read_text(encoding="utf-8")
    hidden = set(re.findall(r"env -u (\w+) -u (\w+) python -m tools.run_course", page)[0])
    assert hidden == set(re.findall(r'"([A-Z_]+)"', SETUP_CELL.partition("& set(os.environ)")[0].rpartition("if ")[2]))


def test_a_card_that_nothing_fits_has_no_table():
    with pytest.raises(ValueError, match=r"nothing fits toy: 7\.0 GiB at one page per pass with LoRA"):
        sizing.rows_table({"name": "toy", "memory_mib": 4096, "capability": [7, 5], "peak_tflops": 65})
