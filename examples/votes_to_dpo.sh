#!/usr/bin/env bash
# From votes to the next model:  examples/votes_to_dpo.sh sqlite:///votes.sqlite3 runs/next
# It needs `pip install -e .[train]`. `python -m empo_demo loop` does all of this in one command.
set -euo pipefail
database=${1:?the SQLAlchemy URL of the votes}
out=${2:?a folder for the pairs and the adapter}
mkdir -p "$out"

# 1. The votes as preference pairs. What was left out, and why, is printed.
python -m empo_demo votes export --database "$database" --format trl -o "$out/pairs.jsonl"

# 2. DPO from the adapter that was voted on.
python -m empo_demo train dpo --pairs "$out/pairs.jsonl" \
  --base assets/tiny/base --adapter assets/tiny/aligned -o "$out/adapter" \
  --epochs "${EPOCHS:-1}" --batch "${BATCH:-16}" --micro "${MICRO:-8}"

# 3. The new adapter beside the one it came from.
echo "Serve them: EMPO_BASE=assets/tiny/base EMPO_ALIGNED=$out/adapter python app.py"
