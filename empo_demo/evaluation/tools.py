"""What the metrics need beside texts: lexicon, word counts, SEM, BERTScore's encoder.

Each is loaded when it is first used, so `--metrics length,vad` loads no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from empo_demo.dialogue import Turn
from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.empathy.plugins import load_sem
from empo_demo.errors import EngineError, SettingsError
from empo_demo.metrics import bertscore
from empo_demo.metrics.bertscore import PAPER_LAYER, PAPER_MODEL, wrap
from empo_demo.metrics.valence import Lexicon, load_lexicon
from empo_demo.processor import fast_bfloat16
from empo_demo.settings import ASSETS, Settings

if TYPE_CHECKING:
    from empo_demo.engine.predictions import Predictions
    from empo_demo.metrics.bertscore import Encoder

ED_COUNTS = ASSETS / "metrics" / "ed_utterance_counts.tsv.gz"
"""In how many utterances of EmpatheticDialogues (train, valid) each token occurs."""

EMBEDDED = "encoder of the embedded SEM, last layer"

Feels = Literal["right", "opposite", "unsure"]
Levels = dict[str, int]
"""EPITOME levels by mechanism: er, ex, ip."""


@dataclass
class Tools:
    """Shared by all systems of one scoring.

    `budget` is the number of words that each system has. `stored_levels` says whether EPITOME
    levels may come from the files. They may not if one of the compared systems has none, because
    the figures of two judges cannot be compared. The SEM's answers are kept, since all systems
    share the references. `judge` says of each reply whether its feeling is right, opposite or
    unsure; None where nobody can say.
    """

    settings: Settings
    nidf_corpus: Path | None = None
    encoder_name: str = "auto"
    budget: int | None = None
    stored_levels: bool = True
    judge: Callable[[Predictions], Sequence[Feels | None]] | None = None
    lexicon: Lexicon = field(init=False)
    _levels: dict[tuple[str, str], Levels] = field(default_factory=dict, init=False)
    _emotions: dict[str, Mapping[str, float]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.lexicon = load_lexicon(self.settings.nrc_vad)

    @cached_property
    def nidf_table(self) -> dict[str, float]:
        from empo_demo.metrics.lexical import nidf_table, read_counts

        return nidf_table(read_counts(self.nidf_corpus or ED_COUNTS))

    @property
    def nidf_key(self) -> str:
        """The name of NIDF's figures. It is another one if the counts are our own."""
        return "nidf" if self.nidf_corpus else "nidf_own_counts"

    @property
    def bertscore_key(self) -> str:
        """The name of BERTScore's figures. Only the paper's encoder has the plain name."""
        if self.encoder.label == EMBEDDED:
            return "bertscore_minilm"
        paper = f"{PAPER_MODEL}, layer {PAPER_LAYER}"
        return "bertscore" if self.encoder.label == paper else "bertscore_other"

    @cached_property
    def sem(self) -> Any:

        return load_sem(self.settings)

    @property
    def sem_label(self) -> str:
        return f"{self.sem.name}@{self.sem.revision}"

    def epitome_levels(self, pairs: Sequence[tuple[str, str]]) -> list[Levels]:
        """EPITOME levels of each (user's turn, response). An empty text has level 0."""
        if not hasattr(self.sem, "epitome"):
            raise EngineError(
                f"The SEM {self.sem_label} cannot judge EPITOME levels; unset EMPO_SEM, or score "
                "a file that stores them (columns pred_*_scores and gt_*_scores)."
            )
        new = [
            pair
            for pair in dict.fromkeys(pairs)
            if pair not in self._levels and pair[0].strip() and pair[1].strip()
        ]
        with _half_precision():
            judged = self.sem.epitome(new)
        self._levels |= zip(new, map(_levels, judged), strict=True)
        return [self._levels.get(pair, {"er": 0, "ex": 0, "ip": 0}) for pair in pairs]

    def emotions(self, texts: Sequence[str]) -> list[Mapping[str, float] | None]:
        """The SEM's distribution for each text, read as one user turn; None for an empty text."""
        new = [text for text in dict.fromkeys(texts) if text not in self._emotions and text.strip()]
        self._emotions |= zip(new, self._read(new), strict=True)
        return [self._emotions.get(text) for text in texts]

    def _read(self, texts: Sequence[str]) -> list[Mapping[str, float]]:

        if hasattr(self.sem, "emotions"):
            rows = self.sem.emotions([[text] for text in texts])
            return [dict(zip(EMOTIONS, map(float, row), strict=True)) for row in rows]
        turns = [Turn("user", "".join(c if c.isprintable() else " " for c in t)) for t in texts]
        return [dict(self.sem.read([turn]).emotions) for turn in turns]

    @cached_property
    def encoder(self) -> Encoder:
        """`auto`: roberta-large, layer 17, if it can be loaded, else the SEM's own encoder."""

        if self.encoder_name != "auto":
            return _named_encoder(self.encoder_name)
        if _reachable(bertscore.PAPER_MODEL):
            return bertscore.load_encoder()
        return self.embedded_encoder()

    def embedded_encoder(self) -> Encoder:
        """The encoder of the shipped SEM. It was fine-tuned, and its label says so."""
        from tokenizers import Tokenizer
        from tokenizers.processors import BertProcessing
        from transformers import PreTrainedTokenizerFast

        from empo_demo.empathy.encoder import load

        net, texts, _ = load(ASSETS / "sem")
        # The SEM adds [CLS] and [SEP] itself. BERTScore expects a tokenizer that adds them.
        framed = Tokenizer.from_str(texts.tokenizer.to_str())
        end, start = ((name, cast(int, framed.token_to_id(name))) for name in ("[SEP]", "[CLS]"))
        framed.post_processor = BertProcessing(end, start)
        fast: Any = PreTrainedTokenizerFast
        tokenizer = fast(
            tokenizer_object=framed,
            unk_token="[UNK]",
            pad_token="[PAD]",
            cls_token="[CLS]",
            sep_token="[SEP]",
        )
        return wrap(net.encoder, tokenizer, EMBEDDED)


def _half_precision() -> AbstractContextManager[Any]:
    """bfloat16 on processors that multiply it natively: 1.6 times as fast, with the same levels."""
    import torch

    return torch.autocast("cpu", torch.bfloat16) if fast_bfloat16() else nullcontext()


def _levels(judged: Any) -> Levels:
    return {name: int(getattr(judged, name).level) for name in ("er", "ex", "ip")}


def _named_encoder(name: str) -> Encoder:
    """NAME or NAME:LAYER; NAME is a folder or a Hub id."""

    model, _, layer = name.rpartition(":")
    if not model or not layer.isdigit():
        model, layer = name, ""
    number = int(layer) if layer else _default_layer(model)
    try:
        return bertscore.load_encoder(model, number)
    except (OSError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SettingsError(f"The encoder {name!r} cannot be used: {reason}") from None


def _default_layer(model: str) -> int:
    """The layer that the library tuned for a known model, else the last layer."""
    from bert_score.utils import model2layers  # type: ignore[import-untyped,unused-ignore]
    from transformers import AutoConfig

    if model in model2layers:
        return int(model2layers[model])
    try:
        return int(AutoConfig.from_pretrained(model).num_hidden_layers)
    except (OSError, ValueError):
        raise SettingsError(
            f"There is no encoder {model!r}: give a folder or a Hub id that can be reached."
        ) from None


def _reachable(model: str, seconds: float = 4.0) -> bool:
    """Whether the model is in the cache, or its hub answers soon."""
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(model, "config.json"), str):
        return True
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        HfApi().model_info(model, timeout=seconds)
    except Exception:  # every failure to reach the hub means the same here
        return False
    return True
