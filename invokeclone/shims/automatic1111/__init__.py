"""AUTOMATIC1111's API under `/sdapi/v1`: its requests become batches of the queue.

`schemas.py` defines the requests; `plan.py` resolves them, with `prompts.py`, `samplers.py` and `options.py`;
`controlnet.py` and `preprocessors.py` handle ControlNet units, `inpainting.py` initial images and masks; `generate.py`
runs a request, `jobs.py` tracks running ones, `infotext.py` formats generation parameters, `extras.py` upscales images.
"""
