"""A package index for tests: a folder of wheels over HTTP, with pages as PEP 503 describes them."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np

from empo_demo.files import fingerprint
from empo_demo.smollm2.convert import convert
from empo_demo.smollm2.package import Package, Stored
from tests.listening import Handler, listening

LAYERS, HIDDEN, HEADS, KV_HEADS, WIDE = 2, 64, 4, 2, 128
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)


def write_gguf(file: Path, *, architecture: str = "llama") -> None:
    """A Llama of two layers with random weights, in the types of the real file; a tokenizer."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(file, architecture)
    letters = [chr(code) for code in range(33, 127)] + ["Ġ", "Ċ"]
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *letters, "Ġt", "he", "Ġthe"]
    writer.add_block_count(LAYERS)
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(WIDE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(100_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges(["Ġ t", "h e", "Ġt he"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)

    def add(name: str, rows: int, columns: int, kind: str = "Q4_1") -> None:
        values = rng.standard_normal((rows, columns), dtype=np.float32) / 8
        quantised = gguf.GGMLQuantizationType[kind]
        packed = gguf.quantize(values, quantised)
        writer.add_tensor(f"{name}.weight", packed, raw_dtype=quantised)

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", 1 + rng.standard_normal(HIDDEN, dtype=np.float32) / 8)

    add("token_embd", len(tokens), HIDDEN, "Q8_0")
    for layer in range(LAYERS):
        block, kv = f"blk.{layer}", HIDDEN // HEADS * KV_HEADS
        for part, rows in (("q", HIDDEN), ("k", kv), ("v", kv), ("output", HIDDEN)):
            add(f"{block}.attn_{part}", rows, HIDDEN)
        add(f"{block}.ffn_gate", WIDE, HIDDEN)
        add(f"{block}.ffn_up", WIDE, HIDDEN)
        add(f"{block}.ffn_down", HIDDEN, WIDE)
        norm(f"{block}.attn_norm")
        norm(f"{block}.ffn_norm")
    norm("output_norm")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_package(folder: Path) -> Package:
    """A wheel in `folder` with a small GGUF file, described as the real one is."""
    name, version, model = "empo-tiny-llama", "1.0", "Tiny-Llama"
    inside = f"empo_tiny_llama/{model}.gguf"
    source = folder / "source.gguf"
    write_gguf(source)
    wheel = folder / f"empo_tiny_llama-{version}-py3-none-any.whl"
    info = f"empo_tiny_llama-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(source, inside)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    converted = folder / model
    convert(source, converted, model, lambda done, total: None)
    stored = [
        Stored(called, file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())
        for called, file in ((wheel.name, wheel), (inside, source))
    ]
    size = sum(file.stat().st_size for file in converted.iterdir())
    return Package(name, version, *stored, model, size, fingerprint(str(converted)))


@dataclass
class Index:
    """What the index does: `wheel` is what it gives; the faults of a network can be switched on."""

    wheel: Path
    url: str = ""
    asked: list[str] = field(default_factory=list)
    silent: bool = False
    """It accepts the connection and never answers."""
    cut_at: int | None = None
    """It stops in the middle of the wheel, after so many bytes, and keeps the connection open."""
    stands_still: threading.Event = field(default_factory=threading.Event)
    """It has been asked, and sends no more."""
    ended: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serve(wheel: Path, project: str) -> Iterator[Index]:
    """An index on a free port that holds one wheel of one project."""
    index = Index(wheel)

    class Answers(Handler):
        def do_GET(self) -> None:
            index.asked.append(self.path)
            if index.silent:
                index.stands_still.set()
                index.ended.wait()
                return
            if self.path == f"/simple/{project}/":
                page = f'<!DOCTYPE html><a href="/files/{wheel.name}">{wheel.name}</a>'
                self._send(page.encode(), "text/html")
            elif self.path == f"/files/{wheel.name}":
                self._send(index.wheel.read_bytes(), "application/octet-stream")
            else:
                self.send_error(404)

        def _send(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if index.cut_at is None or kind == "text/html":
                self.wfile.write(body)
                return
            self.wfile.write(body[: index.cut_at])
            self.wfile.flush()
            index.stands_still.set()
            index.ended.wait()

    with listening(Answers) as address:
        index.url = f"{address}/simple/"
        yield index
        index.ended.set()
