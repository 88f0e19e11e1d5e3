"""Training the SEM: the whole command on a handful of our own sentences, and its arithmetic."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from empo_demo.empathy.sem import EmbeddedSEM
from empo_demo.errors import DataError, EngineError
from empo_demo.training.sem import corpora
from empo_demo.training.sem import fit as sem
from empo_demo.training.sem.card import missed, table
from empo_demo.training.sem.cross_validation import fold_of_seeker, macro_f1
from empo_demo.training.sem.folds import REPORTING, TUNING, fold_of
from empo_demo.training.sem.quality import calibration_error, figure, interval, temperature

SENTENCES = {
    "joyful": "My daughter was born this morning and I cannot stop smiling",
    "angry": "The neighbour scratched my car again and drove away",
    "afraid": "There was a noise in the cellar last night and I was alone",
    "proud": "My brother finished his first marathon after years of training",
    "lonely": "Everyone has moved away and nobody calls me any more",
}


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    with gzip.open(path, "wt", encoding="utf8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def dialogues(prefix: str, count: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for number in range(count):
        emotion = list(SENTENCES)[number % len(SENTENCES)]
        turns = [("user", SENTENCES[emotion] + "."), ("assistant", "Tell me more about it?")]
        rows.append(
            {
                "conv_id": f"{prefix}:{number}",
                "emotion": emotion,
                "situation": f"{SENTENCES[emotion]}, number {number}.",
                "utterances": [{"role": role, "content": text} for role, text in turns],
            }
        )
    return rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    valid = dialogues("valid", 20)
    write_lines(folder / "empathetic_dialogues.train.jsonl.gz", dialogues("train", 20))
    write_lines(folder / "empathetic_dialogues.valid.jsonl.gz", valid)
    causes = [
        {
            "conv_id": row["conv_id"],
            "tokens": str(row["situation"]).split(),
            "cause_token_ids": [2, 3],
        }
        for row in valid
    ]
    write_lines(folder / "emocause.valid.jsonl.gz", causes)
    replies = ("I am so sorry", "What happened?", "Same here")
    pairs = [
        {
            "sp_id": f"post{i}",
            "seeker_post": "I lost my job and feel empty",
            "response_post": replies[i % 3],
            "levels": {
                "emotional_reactions": i % 3,
                "interpretations": (i + 1) % 3,
                "explorations": (i + 2) % 3,
            },
            "rationales": {
                "emotional_reactions": [],
                "interpretations": [replies[i % 3]],
                "explorations": [],
            },
        }
        for i in range(20)
    ]
    write_lines(folder / "epitome.train.jsonl.gz", pairs[:15])
    write_lines(folder / "epitome.valid.jsonl.gz", pairs[15:])
    general = [{"source": "own", "licence": "own", "utterances": ["Hello there", "Good day"]}]
    write_lines(folder / "general_dialogues.jsonl.gz", general)
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random encoder of two narrow layers, with a tokenizer of letters and some words."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("start")
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    pieces += [f"##{c}" for c in letters] + ["car", "alone", "born", "smiling", "zebra"]
    tokenizer = Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(pieces), hidden_size=24, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=48, max_position_embeddings=128,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def train(data: Path, start: Path, out: Path, seed: int = 0) -> Path:
    sem.run(data, out, epochs=1, runs=2, seed=seed, start=start)
    return out


@pytest.fixture(scope="module")
def trained(data: Path, start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(data, start, tmp_path_factory.mktemp("sem"))


def test_one_command_gives_a_sem_that_reads(trained: Path) -> None:
    read = EmbeddedSEM(trained)
    (row,) = read.emotions([["The neighbour scratched my car."]])
    assert row.sum() == pytest.approx(1, abs=1e-9)
    assert [cause.text for cause in read.causes(["My car was scratched."])[0]]


def test_the_card_shows_every_figure_with_its_interval(trained: Path) -> None:
    card = (trained / "README.md").read_text(encoding="utf8")
    figures = json.loads((trained / "figures.json").read_text(encoding="utf8"))
    assert card.startswith("---\nlicense: cc-by-nc-4.0\n")
    assert all(f"| {row['name']} |" in card for row in figures)
    assert all(row["low"] <= row["value"] <= row["high"] for row in figures if row["n"] > 1)


def test_the_figures_are_of_the_reporting_fold_alone(trained: Path, data: Path) -> None:
    rows = [f"valid:{i}" for i in range(20)]
    own = sum(fold_of(conv_id) == REPORTING for conv_id in rows)
    figures = json.loads((trained / "figures.json").read_text(encoding="utf8"))
    counts = {row["n"] for row in figures if not row["name"].startswith("EPITOME")}
    assert counts == {own}
    assert 0 < own < 20 - sum(fold_of(conv_id) == TUNING for conv_id in rows)


def test_the_same_seed_gives_the_same_weights(
    trained: Path, data: Path, start: Path, tmp_path: Path
) -> None:
    again = train(data, start, tmp_path)
    name = "model.safetensors"
    assert (again / name).read_bytes() == (trained / name).read_bytes()


def test_a_finished_stage_is_not_trained_again(data: Path, start: Path, tmp_path: Path) -> None:
    net, texts = sem.pretrained(start)
    examples = corpora.situations(sem.read_conversations(data, "train"), texts)
    sem.emotion_stage(net, examples, tmp_path, epochs=1, seed=0)
    expected = {name: value.clone() for name, value in net.state_dict().items()}
    fresh, _ = sem.pretrained(start)
    sem.emotion_stage(fresh, examples, tmp_path, epochs=1, seed=0)
    assert all(torch.equal(value, expected[name]) for name, value in fresh.state_dict().items())


def test_pruning_keeps_letters_and_drops_unused_pieces(data: Path, start: Path) -> None:
    net, texts = sem.pretrained(start)
    pruned = sem.prune(net, texts, sem.kept_pieces(texts, data))
    vocabulary = pruned.tokenizer.get_vocab()
    assert {"a", "##a", "car", "[CLS]"} <= set(vocabulary)
    assert "zebra" not in vocabulary
    assert net.encoder.get_input_embeddings().weight.shape[0] == len(vocabulary)
    assert pruned.turns(["zebra"]).ids[1:-1] == [
        vocabulary[p] for p in ("z", "##e", "##b", "##r", "##a")
    ]


def test_a_loss_that_is_no_number_stops_with_one_line(start: Path) -> None:
    net, _ = sem.pretrained(start)
    optimizer = torch.optim.AdamW(net.parameters())
    with pytest.raises(EngineError, match="last checkpoint is kept"):
        sem._step(net, torch.tensor(float("nan")), optimizer, sem._linear(optimizer, 1, 1))


def test_a_folder_without_the_files_is_named(start: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"empathetic_dialogues\.train"):
        sem.run(tmp_path, tmp_path / "out", epochs=1, runs=2, seed=0, start=start)


def test_a_malformed_line_is_named_with_its_number(data: Path, start: Path, tmp_path: Path) -> None:
    _, texts = sem.pretrained(start)
    write_lines(tmp_path / "emocause.valid.jsonl.gz", [{"conv_id": "valid:0"}])
    with pytest.raises(DataError, match="line 1"):
        corpora.cause_examples(tmp_path, texts, 0)


def test_a_rationale_is_found_in_the_tokens_of_the_response(start: Path, tmp_path: Path) -> None:
    _, texts = sem.pretrained(start)
    row = {
        "sp_id": "post", "seeker_post": "I was alone", "response_post": "my car! alone born",
        "levels": {"emotional_reactions": 2, "interpretations": 0, "explorations": 1},
        "rationales": {
            "emotional_reactions": ["alone born"], "interpretations": [], "explorations": ["car!"],
        },
    }  # fmt: skip
    write_lines(tmp_path / "epitome.train.jsonl.gz", [row])
    (pair,) = corpora.epitome_pairs(tmp_path, texts, ("train",))
    pieces = [texts.tokenizer.id_to_token(i) for i in pair.text.ids]
    emotional, explorations, interpretations = (
        [pieces[place] for place in places] for places in pair.rationales
    )
    assert (emotional, explorations, interpretations) == (["alone", "born"], ["car", "!"], [])
    assert pair.levels == (2, 1, 0)


def test_a_question_at_the_end_of_a_long_reply_is_read(start: Path) -> None:
    _, texts = sem.pretrained(start)
    pair = texts.pair("alone " * 200, "car " * 120 + "alone ?" + " born" * 50)
    reply = [i for i, segment in zip(pair.ids, pair.segments, strict=True) if segment == 2]
    assert len(reply) == 128 and pair.segments.count(1) == 48
    assert texts.tokenizer.id_to_token(reply[121]) == "?"


def test_the_levels_do_not_depend_on_the_padding_beside_them(trained: Path) -> None:
    read = EmbeddedSEM(trained)
    short, long = ("I was alone", "I am so sorry"), ("I was alone", "car " * 100)
    (alone,), (beside, _) = read.epitome([short]), read.epitome([short, long])
    assert alone.ip.probabilities == pytest.approx(beside.ip.probabilities, abs=1e-2)


def test_other_settings_do_not_go_on_with_these_checkpoints(
    trained: Path, data: Path, start: Path
) -> None:
    with pytest.raises(DataError, match="seed is 0 there and 1 now"):
        train(data, start, trained, seed=1)


def test_a_start_that_is_no_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no encoder"):
        sem.pretrained(tmp_path)


def test_related_emotions_share_the_smoothing() -> None:
    rows = corpora.soft_labels()
    assert all(sum(row) == pytest.approx(1) for row in rows)
    angry, furious, joyful = (corpora.INDEX[name] for name in ("angry", "furious", "joyful"))
    assert rows[angry][angry] > 0.8 > rows[angry][furious] > rows[angry][joyful] > 0


def test_the_temperature_undoes_a_scaling_of_the_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 5, generator=generator)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    assert temperature(logits * 2, labels) == pytest.approx(2, rel=0.1)


def test_calibration_error_is_the_gap_between_certainty_and_truth() -> None:
    assert calibration_error(np.full(10, 0.9), np.full(10, 1.0)) == pytest.approx(0.1)
    assert calibration_error(np.array([0.5] * 4), np.array([1.0, 0, 1, 0])) == pytest.approx(0)


def test_an_interval_draws_whole_groups() -> None:
    values = np.array([0.0, 1.0] * 50)
    alone = interval([str(i) for i in range(100)], lambda i: float(values[i].mean()))
    grouped = interval([str(i % 2) for i in range(100)], lambda i: float(values[i].mean()))
    assert grouped == (0.0, 1.0)
    assert 0.35 < alone[0] < 0.5 < alone[1] < 0.65


def test_cause_recall_counts_found_words_over_all_cause_words() -> None:
    text = corpora.Text([], [], [])
    example = corpora.CauseExample("c", ("the", "tire", "burst"), frozenset({1, 2}), text)
    assert corpora.recall([example], [[0.1, 0.9, 0.5]], 1) == [0.5]
    assert corpora.ceiling([example], 1) == [0.5]
    assert corpora.recall([example], [[0.1, 0.9, 0.5]], 3) == [1.0]


def test_macro_f1_weighs_every_level_alike() -> None:
    truth, said = np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0])
    assert macro_f1(truth, said) == pytest.approx((6 / 7 + 0) / 2)


def test_all_pairs_of_a_seeker_post_share_a_fold() -> None:
    folds = {fold_of_seeker(f"post{i}") for i in range(100)}
    assert folds == set(range(5))
    assert fold_of_seeker("post1") == fold_of_seeker("post1")


def test_the_card_says_plainly_what_was_missed() -> None:
    rows = [
        figure("top-1 %", 50.0, 10, 48, 52, baseline=3, ceiling=100, target=(51, 54)),
        figure("ECE", 0.03, 10, 0.02, 0.04, baseline=1, ceiling=0, target=(0.05, 0.03), lower=True),
    ]
    assert missed(rows) == "**Not reached:** top-1 % (50.0).\n"
    assert "| top-1 % | 50.0 | 48.0 to 52.0 | 10 | 3.0 | 100.0 | 51 (54) |" in table(rows)
