"""EmPO Arena: compare a base and an aligned empathetic language model, see why, and vote.

A visitor says what happened to them. Two contenders answer the same dialogue, side by side and
blind. A small empathetic model (SEM) shows which emotion it reads and which words caused it. The
visitor votes, and every vote is a preference pair that trains the next aligned model.

The rooms
---------
Imports point downwards only: a room knows the rooms below it and none above it.

    ui/          the Gradio page and its endpoints; asks the arena and holds no logic
    evaluation/  the paper's evaluation: generate, score, report, retention, hef/
    training/    preference pairs, SFT, DPO, KTO, the loop; sem/ and tiny/ make the embedded models
    arena/       one round: open, stream, vote, reveal, go on; and comparisons that are not blind
    exchange/    votes in and out: records, exports, the Hub
    board/       what votes say: ballots, ranking, ratings, attention, agreement
    contenders/  who takes part: weights, adapter, prompt strategy, and the roster of a preset
    empathy/     emotions, cause words and valence by the SEM; HEF's guidance; safety
    engine/      text in, two streams out: loading, batching, LoRA per row, remote and recorded
    votes/       stored rounds and votes: tables, store, migrations, limits, backup
    metrics/     pure functions over texts and numbers
    dialogue, errors, settings, progress, files, csv_table, terminal, processor, fingerprint
                 what every room may know

Beside the rooms, `cli` puts the rooms' commands together; each room has its own in `cli.py`.
`arena/` imports neither gradio nor torch. torch, transformers and gradio are imported where they
are used, so that the terminal answers at once. `tests/test_rooms.py` checks this map.

The life of a round
-------------------
1. `Arena.open_round` checks the text (length, consent, crisis language), lets the SEM read the
   turn, draws the pair and the sides from one logged seed, stores the round as *pending*, and
   returns its id.
2. `Arena.stream` yields `Delta`, `Finished` and `Failed` events of both sides. Both sides decode
   in one batch, so that speed tells nothing about who is who. The finished replies are stored; then
   the round is *votable*. A round with a failed or an empty side is *void*: it can be retried, but
   nobody can vote on it.
3. `Arena.vote` stores one verdict (a, b, tie, both_bad). A second call returns the first receipt.
   Only the receipt says who was who.
4. `Arena.go_on` adds the chosen reply to the dialogue. Both sides share this one history, so every
   vote is a pair of completions of the same prompt.

Decisions that shape the code
-----------------------------
- The database is the truth. A round is written before it is shown; files and the Hub are exports.
- One copy of the weights serves all contenders; an adapter is applied to its rows of the batch. An
  adapter that is bigger than a second copy is merged into its own copy instead.
- Intervals are clustered by voter: one person casts many votes. "Both bad" is never a tie.
- Every Gradio handler is a public endpoint, and checks its arguments as if a stranger called it.
- While text streams, the page shows escaped HTML and inline SVG; Plotly draws once, at the end.
- The embedded models are real, small and honest: each is rebuilt by one command in its card.
- What another library does well, it does: TRL trains, lm-eval scores retention, SQLAlchemy stores.
"""

__version__ = "0.2.0"
