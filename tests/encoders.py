"""Models of made-up words and their encoders, for tests that look at vectors."""

from nrms.features.inputs import History, Inputs, with_unknown
from nrms.features.title import Title
from nrms.features.tokenizer import Tokenizer
from nrms.inference.keras_runtime import KerasRuntime
from nrms.inference.onnx_runtime import OnnxRuntime
from nrms.inference.vectors import VectorScorer, encode_news
from nrms.models.build import build_model

GRAPHS = ("news_encoder", "user_encoder")
SPECS = Inputs([Title(1)], History(1)).specs


def inputs_of(words, title_size=8, history_size=6):
    """Inputs with so many word ids, PAD and UNK among them."""
    title = Title(title_size)
    title._tokenizer = Tokenizer.train([f"w{i}" for i in range(words - 2)], min_count=1)
    return Inputs([title], History(history_size))


def small_model(config, words, precision="float32", vectors=None):
    """A model of so many word ids, with these vectors of theirs."""
    inputs = inputs_of(words)
    inputs.words.vectors = vectors
    return build_model(config, inputs, precision)


class Encoders:
    """Encodes and scores titles and histories with a runtime."""

    def __init__(self, runtime):
        self.runtime = runtime

    @classmethod
    def of(cls, model):
        """Encoders in Keras."""
        return cls(KerasRuntime(model, SPECS))

    @classmethod
    def exported(cls, folder):
        """Encoders in ONNX Runtime, from the files in a folder."""
        return cls(OnnxRuntime({name: folder / f"{name}.onnx" for name in GRAPHS}))

    def encode_news(self, titles):
        """Float32 `(articles, dim)` from word ids `(articles, title)`."""
        return self.runtime.run("news_encoder", {"title": titles})

    def encode_users(self, news_vectors, history):
        """Float32 `(users, dim)` from rows of vectors, int32 `(users, history)`."""
        return self.runtime.run("user_encoder", {"news_vectors": news_vectors, "history": history})

    def catalogue(self, titles):
        """Row 0 and the vectors of the articles, by the name of the array."""
        return {"news_vectors": with_unknown(encode_news(self.runtime, {"title": titles}))}

    def scorer(self, titles, histories, prior=None):
        """The scorer for impressions of articles with these titles, without the unknown one."""
        return VectorScorer(self.runtime, self.catalogue(titles), histories, prior)
