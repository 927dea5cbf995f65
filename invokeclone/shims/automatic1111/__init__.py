"""AUTOMATIC1111's API under `/sdapi/v1`: its requests become batches of the queue, and its answers are made of the results.

`schemas.py` says what is read and `wanted.py` what it means, with `prompts.py`, `samplers.py`, `options.py` and `inpainting.py`
for a part each; `generate.py` runs it, `jobs.py` remembers what runs, `infotext.py` words the result.
"""
