"""Nodes that name a model of any family."""

from types import SimpleNamespace
from typing import Any

import pytest

from invokeclone.graph.invocations.metadata import UnknownModel
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.nodes.models.loaders import ModelIdentifierInvocation, VAELoaderInvocation

CONTEXT: Any = SimpleNamespace(models=SimpleNamespace(exists={"m"}.__contains__))


def identifier(key: str) -> ModelIdentifierField:
    return ModelIdentifierField(key=key, hash="h", name=f"model {key}", base="flux", type="vae")


def test_loaders_return_the_model_identifier():
    assert ModelIdentifierInvocation(model=identifier("m")).invoke(CONTEXT).model == identifier("m")
    vae = VAELoaderInvocation(vae_model=identifier("m")).invoke(CONTEXT).vae
    assert (vae.vae, vae.seamless_axes) == (identifier("m"), [])


def test_unregistered_model_is_an_error():
    for node in (
        ModelIdentifierInvocation(model=identifier("gone")),
        VAELoaderInvocation(vae_model=identifier("gone")),
    ):
        with pytest.raises(UnknownModel, match="model gone"):
            node.invoke(CONTEXT)
