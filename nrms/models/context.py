"""A ranker of whole lists by what happened before them, alone or on the scores of a text model."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from nrms.architectures.context import RankerConfig
from nrms.architectures.model_graph import Graph
from nrms.features.context.features import COMPARED, NAMES, OF_LIST, PLACES
from nrms.features.context.input import Context
from nrms.features.inputs import Inputs
from nrms.features.spec import Spec
from nrms.features.text_scores import TEXT
from nrms.layers.list_attention import ListBlock, dense, gelu, partners_of, relative

_MOMENTS = ("mean", "deviation")
_GATE = ("ln_history", "since_published", "since_first")
_CUT = 4.0  # standardised features are cut there
_LISTS = ("lists", "candidates")


@keras.saving.register_keras_serializable(package="nrms")
class ContextRanker(keras.Model):
    """Ranks a list by the features of its candidates, each alone and relative to the list: dense
    layers, then self-attention over the list (as Pei et al., RecSys 2019, re-rank), one logit.

    Args:
        text: whether it reads scores of a text model as well.
        dim: size of a candidate's vector.
        blocks: blocks of self-attention.
        heads: attention heads of a block.
        head_dim: size of a head.
        hidden: hidden size of a block's feed-forward part.
        dropout: rate of dropout in a block.
        input_dropout: rate of dropout of the features.
        max_list: longest list whose candidates are all compared with each other.
        gate: whether the text model's score is mixed with the logit, by a gate of the history's
            length and the article's age (as in PP-Rec, Qi et al., ACL 2021, section 3.4).

    Call arguments:
        articles: not read.
        batch: dictionary with `context`, float32 `(lists, candidates, features)`, see
            `nrms.features.context`; with `text`, float32 `(lists, candidates)`; and `mask`, bool of
            that shape, False where a list has no candidate.

    Returns:
        Logits of shape `(lists, candidates)` in float32; -1e9 where there is no candidate.
    """

    scoring = "lists"  # see nrms.inference
    word_vectors = None

    def __init__(
        self,
        text: bool = False,
        dim: int = 64,
        blocks: int = 2,
        heads: int = 4,
        head_dim: int = 16,
        hidden: int = 128,
        dropout: float = 0.15,
        input_dropout: float = 0.05,
        max_list: int = 256,
        gate: bool = False,
        **kwargs,
    ):
        # Features keep all their digits until they are standardised, in bfloat16 as well.
        super().__init__(autocast=False, **kwargs)
        self.text, self.dim, self.heads, self.head_dim = text, dim, heads, head_dim
        self.hidden, self.dropout, self.input_dropout = hidden, dropout, input_dropout
        self.max_list, self.gate = max_list, gate and text
        policy = {"dtype": self.dtype_policy}
        self.drop = keras.layers.Dropout(input_dropout, **policy)
        self.first = keras.layers.Dense(dim, **policy)
        self.second = keras.layers.Dense(dim, **policy)
        self.blocks = [
            ListBlock(dim, heads, head_dim, hidden, dropout, name=f"block_{number}", **policy)
            for number in range(blocks)
        ]
        self.norm = keras.layers.LayerNormalization(**policy)
        # Zeros, so that a training starts with equal scores.
        self.mix = keras.layers.Dense(1, "sigmoid", **policy) if self.gate else None
        self.logit = keras.layers.Dense(1, kernel_initializer="zeros", **policy)

    def build(self, *shapes: tuple) -> None:
        """Creates the weights, among them the mean and deviation by which features are
        standardised, which training does not change.
        """
        columns = len(NAMES) + self.text
        for name, value in (("mean", "zeros"), ("deviation", "ones")):
            weight = self.add_weight(
                name=name, shape=(columns,), initializer=value, trainable=False, dtype="float32"
            )
            setattr(self, name, weight)
        own = columns - OF_LIST
        self.first.build((None, 3 * own + OF_LIST))
        self.second.build((None, self.dim))
        for block in self.blocks:
            block.build()
        self.norm.build((None, self.dim))
        self.logit.build((None, self.dim))
        if self.mix is not None:
            self.mix.build((None, len(_GATE)))
        self.built = True

    def build_from_config(self, config: dict) -> None:
        """See `keras.layers.Layer.build_from_config`."""
        self.build()

    def standardise(self, mean: np.ndarray, deviation: np.ndarray) -> None:
        """Sets the mean and deviation of the features, float32 `(features,)`; with text scores,
        theirs come first.
        """
        self.mean.assign(mean)
        self.deviation.assign(deviation)

    def call(self, articles, batch, training=False):
        """See the class."""
        mask, shape = batch["mask"], ops.shape(batch["mask"])
        # Runtimes are traced for any number of features, but layers need to know it.
        context = ops.reshape(batch["context"], (shape[0], shape[1], len(NAMES)))
        partners, there = partners_of(context[:, :, COMPARED] > 0.5, self.max_list)
        if self.text:
            context = ops.concatenate([batch[TEXT][:, :, None], context], axis=-1)
        values = ops.clip((context - self.mean) / self.deviation, -_CUT, _CUT)
        own, of_list = values[:, :, :-OF_LIST], values[:, :, -OF_LIST:]
        beside = relative(own, context[:, :, :-OF_LIST], partners, there)
        columns = ops.concatenate([own, *beside, of_list], axis=-1)
        columns = self.drop(ops.cast(columns, self.compute_dtype), training=training)
        vectors = dense(self.second, gelu(dense(self.first, columns, mask)), mask)
        for block in self.blocks:
            vectors = block(vectors, mask, partners, there, training=training)
        logits = ops.cast(dense(self.logit, self.norm(vectors), mask)[:, :, 0], "float32")
        if self.mix is not None:
            of_gate = ops.take(values, [1 + PLACES[name] for name in _GATE], axis=-1)
            share = ops.cast(
                dense(self.mix, ops.cast(of_gate, self.compute_dtype), mask), "float32"
            )
            logits = share[:, :, 0] * values[:, :, 0] + (1 - share[:, :, 0]) * logits
        return ops.where(mask, logits, -1e9)

    def graphs(self, articles, buckets=None):
        """The list scorer, by name."""
        read = {"context": Spec("float32", (*_LISTS, len(NAMES))), "mask": Spec("bool", _LISTS)}
        if self.text:
            read[TEXT] = Spec("float32", _LISTS)
        scorer = Graph(lambda arrays: self({}, arrays), read, "scores", _LISTS)
        return {"list_scorer": scorer}

    def get_config(self) -> dict:
        """See `keras.layers.Layer.get_config`."""
        names = ("text", "dim", "heads", "head_dim", "hidden", "dropout", "input_dropout")
        own = {name: getattr(self, name) for name in (*names, "max_list", "gate")}
        return {**super().get_config(), **own, "blocks": len(self.blocks)}


def build(config: RankerConfig, inputs: Inputs, dtype: str) -> ContextRanker:
    """See `nrms.models.build.build_model`. It reads scores of a text model where the inputs have
    them.
    """
    context = next(one for one in inputs.moment if isinstance(one, Context))
    text = next((one for one in inputs.moment if one.name == TEXT), None)
    model = ContextRanker(
        text is not None,
        config.ranker_dim,
        config.ranker_blocks,
        config.ranker_heads,
        config.ranker_head_dim,
        config.ranker_hidden,
        config.ranker_dropout,
        config.feature_dropout,
        context.rules.max_list,
        config.ranker_gate,
        dtype=dtype,
    )
    model.build()
    read = [context] if text is None else [text, context]
    model.standardise(*(np.concatenate([getattr(one, name) for one in read]) for name in _MOMENTS))
    return model
