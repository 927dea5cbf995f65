"""Loading of language models, with or without vision, as transformers objects.

Code that comes with a model is never run.
"""

from typing import Any

from invokeclone.engine.loading import folders
from invokeclone.engine.loading.folders import load_automatic, load_plain
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.engine.loading.loaders import loads
from invokeclone.graph.vocabulary.taxonomy import ModelType, SubModelType


@loads(type=ModelType.TextLLM)
def load(request: LoadRequest) -> Any:
    """Return the model or its tokenizer."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    if request.submodel is SubModelType.Tokenizer:
        return load_automatic(request.path, transformers.AutoTokenizer)
    return load_automatic(request.path, transformers.AutoModelForCausalLM, dtype=request.dtype).eval()


@loads(type=ModelType.LlavaOnevision)
def load_llava(request: LoadRequest) -> Any:
    """Return the model, its tokenizer, or (as the scheduler submodel) its image processor."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    if request.submodel is SubModelType.Tokenizer:
        return load_automatic(request.path, transformers.AutoTokenizer)
    if request.submodel is SubModelType.Scheduler:
        from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
            LlavaOnevisionImageProcessorPil,
        )

        return load_plain(request.path, LlavaOnevisionImageProcessorPil)
    return folders.load(request.path, transformers.LlavaOnevisionForConditionalGeneration, request.dtype, None)
