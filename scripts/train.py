"""Fine-tune an embedding model for pages, with a cached contrastive loss at several vector lengths.

    python train.py --data data --output finetuned       # the published experiment, on one GPU
    python train.py --data my_data --base-model owner/model --learning-rate 1e-5
    python train.py --data my_data --lora-rank 16 --learning-rate 2e-4    # on a smaller GPU

--data is a folder that prepare.py or documents.py has made. The tuned model is saved with the model
card that Sentence Transformers writes; evaluate.py scores it, publish.py uploads it.

Batches are drawn at random, and most pages of a batch are of other documents: the model can tell
the right one by what sets its document apart, such as a name, which helps less with new documents.
So score documents that it has not met: documents.py keeps some apart, and evaluate.py asks about
these alone. Notebook 08 of the course compares such batches with batches of one document each.

Needs: pip install "sentence-transformers[image,train]>=6"; with --lora-rank also peft
"""

import argparse
import importlib.util
import json
import math
import os
import shutil
import tempfile
from pathlib import Path

import torch
from datasets import Dataset, Image
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerModelCardData,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import NoDuplicatesBatchSampler
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MatryoshkaLoss,
)

PINNED = {"Qwen/Qwen3-VL-Embedding-2B": "9f2f7e710d6d81056aa5c0a4f04764fec6bb7bda"}
EXAMPLES = "show queries and pages in the card; default: only if the data are on the hub"
LORA = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj", "gate_proj"]  # of the language model


def read_settings(data):
    """What the folder was made from."""
    if not (data / "manifest.json").exists():
        raise ValueError(f"no manifest.json in {data}: run prepare.py or documents.py to its end")
    return json.loads((data / "manifest.json").read_text(encoding="utf-8"))["settings"]


def is_text(query):
    """Whether a query is text: not missing, not blank, not what the library would open or fetch."""
    if not isinstance(query, str) or not query.strip():
        return False
    address = query.startswith(("http://", "https://", "data:")) and " " not in query.strip()
    return not address and not os.path.isfile(query)


def read_split(data, split):
    """The rows of a split as a Dataset of texts and paths; ValueError names what is amiss."""
    rows = [json.loads(line) for line in (data / f"{split}.jsonl").open(encoding="utf-8")]
    for number, row in enumerate(rows, start=1):
        if not is_text(row["query"]):
            raise ValueError(f"line {number} of {split}.jsonl has no text as its query")
        for name in row.keys() - {"query"}:
            page = (data / "pages" / row[name]).resolve()
            if not page.is_file():  # its path would be trained on as a text
                raise ValueError(f"line {number} of {split}.jsonl: no page {page}")
            row[name] = str(page)
    if not rows:
        raise ValueError(f"{data} has no rows in {split}.jsonl")
    return Dataset.from_list(rows)


def retrieval_inputs(rows):
    """Queries, corpus and relevant pages: a page, and a query, of several rows stands once."""
    right_pages, corpus = {}, {}
    for row in rows:
        right_pages.setdefault(row.pop("query"), set()).add(Path(row["image"]).name)
        corpus |= {Path(page).name: page for page in row.values()}
    queries = {f"q{i}": query for i, query in enumerate(right_pages)}
    relevant_docs = {f"q{i}": right for i, right in enumerate(right_pages.values())}
    return queries, corpus, relevant_docs


def right_pages_apart(dataset, **settings):
    """The library's batches without duplicates, where a row counts with all right pages of its
    query: one that answers it in another row is then no negative in its batch either."""
    right = {}
    for row in dataset.select_columns(["query", "image"]):
        right.setdefault(row["query"], []).append(row["image"])
    for i in range(max(map(len, right.values()))):
        rows = zip(dataset["query"], dataset["image"], strict=True)
        column = [right[query][i] if i < len(right[query]) else page for query, page in rows]
        dataset = dataset.add_column(f"right page {i}", column)
    return NoDuplicatesBatchSampler(dataset, **settings)


def rows_per_step(rows, options):
    """The batch size asked for; else 64, or fewer where that makes too few steps, but 8 at least:
    the other pages of a batch are its negatives."""
    if options.per_device_train_batch_size:
        return options.per_device_train_batch_size
    return max(8, min(64, math.floor(rows * options.num_train_epochs / options.min_steps)))


def check_steps(rows, args, minimum):
    """ValueError where so few steps would be made that the model hardly changes."""
    batch = args.train_batch_size * args.world_size
    steps = math.ceil(math.ceil(rows / batch) * args.num_train_epochs)
    print(f"{rows} rows in batches of {batch}: {steps} steps")
    if steps < minimum:
        epochs = math.ceil(minimum / math.ceil(rows / batch))
        raise ValueError(
            f"{rows} rows in batches of {batch} make {steps} steps, expected at least {minimum}: "
            f"fewer leave the model almost as it was. Add rows, or set --num-train-epochs {epochs}, "
            f"or go on all the same with --min-steps {steps}"
        )


def newest_checkpoint(folder):
    """The newest checkpoint that is whole: the trainer writes trainer_state.json last."""
    whole = [file.parent for file in folder.glob("checkpoint-*/trainer_state.json")]
    if not whole:
        raise ValueError(f"{folder} holds no whole checkpoint: start without --resume")
    return str(max(whole, key=lambda checkpoint: int(checkpoint.name.split("-")[1])))


def describe(trainer, settings, examples):
    """Tell the model card of the data: pages, in place of the paths of this machine."""
    card = trainer.model.model_card_data
    card.widget = []
    for split, dataset in {"train": trainer.train_dataset, "eval": trainer.eval_dataset}.items():
        for column in dataset.column_names[1:]:
            dataset = dataset.cast_column(column, Image())
        data = {"name": settings["dataset"], "split": split}
        if settings["hub"]:
            data["id"] = settings["dataset"]
        [data] = card.extract_dataset_metadata(dataset, [data], trainer.loss, split)
        if not examples:
            del data["examples"], data["examples_table"]
        elif split == "eval":
            card.set_widget_examples(dataset)
        setattr(card, f"{split}_datasets", [data])


# The command


def positive(text):
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text!r}")
    return int(text)


def positive_or_none(text):
    return None if text.lower() == "none" else positive(text)


def revision(text):
    """A commit, tag or branch of the hub; the word None, as programs print it, names none."""
    return None if text.lower() in ("", "none") else text


def folder(text):
    return Path(os.path.expandvars(text)).expanduser()


def model_source(text):
    """A folder, with ~ and $HOME expanded, or the id of a model on the hub."""
    if folder(text).is_dir():
        return str(folder(text))
    if text.count("/") != 1 or text.startswith(("~", ".", "/")):
        raise argparse.ArgumentTypeError(f"no folder {text!r}, and no hub id such as owner/name")
    return text


def read_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--data", type=folder, default="data", help="default: data")
    option("--output", type=folder, default="finetuned", help="new folder; default: finetuned")
    base = "Qwen/Qwen3-VL-Embedding-2B"
    option("--base-model", type=model_source, default=base, help=f"default: {base}")
    option("--base-revision", type=revision, help="default: for the published base, its commit")
    option("--license", help="of the base model, for the card, such as apache-2.0")
    option("--card-examples", action=argparse.BooleanOptionalAction, help=EXAMPLES)
    dims = [2048, 1536, 1024, 512, 256, 128, 64]
    option("--matryoshka-dims", type=positive, nargs="+", default=dims, help="default: 2048 ... 64")
    option("--num-train-epochs", type=float, default=1, help="default: 1")
    option("--per-device-train-batch-size", type=positive, help="default: 64, fewer for few rows")
    option("--learning-rate", type=float, default=2e-5, help="default: 2e-5")
    option("--warmup-steps", type=float, default=0.1, help="below 1, a share; default: 0.1")
    option("--seed", type=int, default=42, help="default: 42")
    option("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    option("--bf16", action=argparse.BooleanOptionalAction, default=True, help="compute in it")
    option("--fp16", action="store_true", help="compute in it, with --dtype float32")
    option("--lora-rank", type=positive, help="train LoRA adapters, not all weights")
    option("--mini-batch-size", type=positive, default=64, help="pages a pass; default: 64")
    tokens = "tokens a pass, or none: no limit; default: 5600"
    option("--mini-batch-num-tokens", type=positive_or_none, default=5600, help=tokens)
    option("--encode-batch-size", type=positive, default=16, help="default: 16")
    option("--dataloader-num-workers", type=int, default=4, help="default: 4")
    option("--monitor-rows", type=positive, default=300, help="of eval, scored while training")
    option("--resume", action="store_true", help="go on with a run that was stopped")
    option("--min-steps", type=positive, default=20, help="fewer are refused; default: 20")
    args = parser.parse_args()
    args.base_revision = args.base_revision or PINNED.get(args.base_model)
    args.bf16 = args.bf16 and not args.fp16
    if args.lora_rank and not importlib.util.find_spec("peft"):
        parser.error("--lora-rank needs the package peft: pip install peft")
    args.matryoshka_dims = sorted(set(args.matryoshka_dims), reverse=True)
    return args


def training_arguments(options, checkpoints, train_dataset):
    batch_size = rows_per_step(len(train_dataset), options)
    several = len(set(train_dataset["query"])) < len(train_dataset)
    return SentenceTransformerTrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=options.num_train_epochs,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=batch_size,
        learning_rate=options.learning_rate,
        warmup_steps=options.warmup_steps,
        bf16=options.bf16,
        fp16=options.fp16,
        seed=options.seed,
        # no page twice in a batch: it would be a false negative
        batch_sampler=right_pages_apart if several else "no_duplicates",
        eval_strategy="steps",
        eval_steps=0.1,
        logging_steps=0.05,
        save_strategy="steps",
        save_steps=0.1,
        save_total_limit=1,
        dataloader_num_workers=options.dataloader_num_workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
    )


def load_model(options, settings):
    """The model to start from, with the pages' size; ValueError where its vectors are too short."""
    size = {"shortest_edge": settings["min_pixels"], "longest_edge": settings["max_pixels"]}
    widest = options.matryoshka_dims[0]
    model = SentenceTransformer(
        options.base_model,
        revision=options.base_revision,
        truncate_dim=widest,  # all dimensions, where fewer were saved with it
        model_kwargs={"dtype": options.dtype},
        processor_kwargs={"size": size},
        model_card_data=SentenceTransformerModelCardData(language="en", license=options.license),
    )
    if model.get_embedding_dimension() < widest:
        found = model.get_embedding_dimension()
        raise ValueError(
            f"--matryoshka-dims starts with {widest}, the model has {found} dimensions"
        )
    if options.lora_rank:
        from peft import LoraConfig

        model.add_adapter(
            LoraConfig(r=options.lora_rank, lora_alpha=options.lora_rank, target_modules=LORA)
        )
        for weight in model.parameters():
            if weight.requires_grad:
                weight.data = weight.data.float()  # small updates vanish in 16 bits
    return model


def main():
    options = read_arguments()
    checkpoints = options.output.with_name(options.output.name + "-checkpoints")
    if options.output.exists():
        raise ValueError(f"{options.output} is there already: name another folder with --output")
    if checkpoints.exists() and not options.resume:
        raise ValueError(f"{checkpoints} holds a run that was stopped: add --resume, or delete it")
    checkpoint = newest_checkpoint(checkpoints) if options.resume else None
    settings = read_settings(options.data)
    train_dataset = read_split(options.data, "train")
    eval_dataset = read_split(options.data, "eval")
    eval_dataset = eval_dataset.select(range(min(options.monitor_rows, len(eval_dataset))))
    args = training_arguments(options, checkpoints, train_dataset)
    check_steps(len(train_dataset), args, options.min_steps)

    model = load_model(options, settings)
    loss = CachedMultipleNegativesRankingLoss(
        model,
        mini_batch_size=options.mini_batch_size,
        mini_batch_num_tokens=options.mini_batch_num_tokens,
    )
    loss = MatryoshkaLoss(model, loss, matryoshka_dims=options.matryoshka_dims)
    queries, corpus, relevant_docs = retrieval_inputs(eval_dataset.to_list())
    evaluator = InformationRetrievalEvaluator(
        queries, corpus, relevant_docs, batch_size=options.encode_batch_size, name="vdr-eval-hard"
    )
    print(f"scored while training: {len(queries)} queries, each searches {len(corpus)} pages")
    ndcg = "vdr-eval-hard_cosine_ndcg@10"
    print(f"NDCG@10 before training: {evaluator(model)[ndcg]:.4f}")

    model.model_card_data.widget = [{"text": train_dataset[0]["query"]}]  # until describe()
    trainer = SentenceTransformerTrainer(
        model=model,
        args=args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        loss=loss,
        evaluator=evaluator,
    )
    examples = settings["hub"] if options.card_examples is None else options.card_examples
    describe(trainer, settings, examples)
    trainer.train(resume_from_checkpoint=checkpoint)
    print(f"NDCG@10 after {trainer.state.global_step} steps: {evaluator(model)[ndcg]:.4f}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.output.parent) as beside:
        model.save_pretrained(str(Path(beside, "model")))
        Path(beside, "model").rename(options.output)  # whole or not at all
    shutil.rmtree(checkpoints, ignore_errors=True)
    print(f"saved in {options.output}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        raise SystemExit(f"train.py: {error}") from error
