"""The contract that every layer and encoder keeps, and their values against NumPy."""

from functools import partial

import keras
import numpy as np
import pytest
from keras import ops

from nrms.architectures.nrms import NrmsConfig
from nrms.bundles.export import export_model
from nrms.inference.parity import check_parity
from nrms.layers.additive_attention import AdditiveAttention
from nrms.layers.fast_attention import FastAttention
from nrms.layers.self_attention import SelfAttention
from nrms.layers.sequence_encoder import SequenceEncoder
from nrms.layers.text_cnn import TextCnn
from nrms.models.naml import AttentiveUserEncoder, ViewsEncoder
from nrms.models.nrms import NewsEncoder, UserEncoder
from nrms.models.nrms_docvec import DocumentEncoder
from nrms.models.two_tower import TwoTower
from tests.encoders import SPECS, Encoders, small_model

RNG = np.random.default_rng(7)
HEADS, HEAD_DIM, DIM, ATTENTION = 2, 3, 6, 4
SMALL = {"heads": HEADS, "head_dim": HEAD_DIM, "attention_dim": ATTENTION}


def floats(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def left(lengths, width, high):
    """Random row numbers 1..high - 1 in rows of the given lengths, 0 = padding at the end."""
    rows = RNG.integers(1, high, (len(lengths), width)).astype(np.int32)
    return np.where(np.arange(width) < np.array(lengths)[:, None], rows, 0).astype(np.int32)


ROWS = left([3, 1, 5, 0, 2, 5, 4, 3, 1, 2], 5, 8)
TITLES = left([3, 5, 0, 1, 4, 2, 2, 5], 6, 20)
NEWS = {"vocabulary_size": 20, "word_dim": 5, "dropout": 0.0, **SMALL}
VIEWS = {
    "vocabulary_size": 20,
    "texts": ["title", "body"],
    "categories": {"category": 4},
    "vectors": {"vector": 3},
    "word_dim": 5,
    "dim": DIM,
    "category_dim": 2,
    "attention_dim": ATTENTION,
    "dropout": 0.0,
}
VIEWED = {
    "title": TITLES,
    "body": left([9, 0, 0, 2, 7, 1, 3, 9], 9, 20),
    "category": np.array([0, 1, 2, 3, 3, 0, 1, 2], np.int32),
    "vector": floats(8, 3),
}

LAYERS = {
    "self_attention": (
        lambda: SelfAttention(HEADS, HEAD_DIM),
        ((None, DIM),),
        (floats(8, 3, HEADS, HEAD_DIM), ROWS, ROWS != 0),
        (10, 5, DIM),
    ),
    "fast_attention": (
        lambda: FastAttention(HEADS, HEAD_DIM),
        ((None, DIM),),
        (floats(8, 3, HEADS, HEAD_DIM), ROWS, ROWS != 0),
        (10, 5, DIM),
    ),
    "additive_attention": (
        lambda: AdditiveAttention(ATTENTION),
        ((None, None, DIM),),
        (floats(10, 5, DIM), ROWS != 0),
        (10, DIM),
    ),
    "sequence_encoder": (
        lambda: SequenceEncoder(HEADS, HEAD_DIM, ATTENTION, dropout=0.0, buckets=3),
        ((None, DIM),),
        (floats(8, DIM), ROWS, ROWS != 0),
        (10, DIM),
    ),
    "text_cnn": (
        lambda: TextCnn(DIM, 3, ATTENTION),
        ((None, 5),),
        (floats(8, 5), ROWS, ROWS != 0),
        (10, DIM),
    ),
    "views_encoder": (lambda: ViewsEncoder(**VIEWS), (), (VIEWED,), (8, DIM)),
    "attentive_user_encoder": (
        lambda: AttentiveUserEncoder(DIM, ATTENTION),
        (),
        (floats(8, DIM), ROWS),
        (10, DIM),
    ),
    "document_encoder": (
        lambda: DocumentEncoder(3, 2, 5, DIM, 0.0),
        (),
        ({"vector": VIEWED["vector"]},),
        (8, DIM),
    ),
    "news_encoder": (lambda: NewsEncoder(**NEWS), (), ({"title": TITLES},), (8, DIM)),
    "user_encoder": (lambda: UserEncoder(**SMALL), (), (floats(8, DIM), ROWS), (10, DIM)),
    "recommender": (
        lambda: TwoTower(NewsEncoder(**NEWS), UserEncoder(**SMALL)),
        (),
        (
            {"title": TITLES},
            {"history": left([3, 0], 4, 8), "candidates": left([5, 2], 5, 8)},
        ),
        (2, 5),
    ),
}


def random_weights(layer):
    for weight in layer.weights:
        values = RNG.normal(size=weight.shape)
        weight.assign(np.abs(values) if weight.name == "moving_variance" else values)


@pytest.fixture(params=LAYERS)
def case(request):
    make, build_shapes, inputs, shape = LAYERS[request.param]
    layer = make()
    layer.build(*build_shapes)
    return layer, inputs, shape


def call(layer, inputs, **kwargs):
    return layer(*keras.tree.map_structure(ops.convert_to_tensor, inputs), **kwargs)


def test_output_has_the_documented_shape(case):
    layer, inputs, shape = case
    assert tuple(call(layer, inputs).shape) == shape


def test_config_round_trip_gives_the_same_layer(case):
    layer, inputs, _ = case
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert (
        keras.saving.serialize_keras_object(twin)["config"]
        == keras.saving.serialize_keras_object(layer)["config"]
    )
    assert twin.built
    twin.set_weights(layer.get_weights())
    np.testing.assert_array_equal(call(twin, inputs), call(layer, inputs))


def test_every_weight_gets_a_gradient_and_one_fit_step_lowers_the_loss(case):
    import tensorflow as tf

    layer, inputs, shape = case
    random_weights(layer)
    target = floats(*shape)
    seen = np.ones(shape, np.float32)
    if isinstance(layer, SelfAttention | FastAttention):
        layer_input = floats(8, DIM)

        def forward():
            return layer(layer.project(ops.convert_to_tensor(layer_input)), inputs[1], inputs[2])
    else:

        def forward():
            return call(layer, inputs)

    if isinstance(layer, TwoTower):
        seen = (inputs[1]["candidates"] != 0).astype(np.float32)
    optimizer = keras.optimizers.SGD(1e-3)
    losses = []
    for _ in range(2):
        with tf.GradientTape() as tape:
            loss = ops.sum(seen * ops.square(forward() - target) / 100)
        gradients = tape.gradient(loss, layer.trainable_variables)
        assert all(gradient is not None for gradient in gradients)
        optimizer.apply(gradients, layer.trainable_variables)
        losses.append(float(loss))
    assert losses[1] < losses[0]


@pytest.mark.parametrize("name", LAYERS)
def test_mixed_precision_is_close_to_float32(name):
    make, build_shapes, inputs, _ = LAYERS[name]
    keras.utils.set_random_seed(1)
    full = make()
    full.build(*build_shapes)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = make()
    finally:
        keras.config.set_dtype_policy("float32")
    half.build(*build_shapes)
    half.set_weights(full.get_weights())
    assert all(weight.dtype == "float32" for weight in half.weights)
    outputs = [
        ops.convert_to_numpy(ops.cast(call(layer, inputs), "float32")) for layer in (full, half)
    ]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=0.05)


def test_keras_file_round_trip_in_mixed_precision_keeps_every_sublayer_policy(tmp_path):
    model = small_model(NrmsConfig(word_dim=5, **SMALL), 20, precision="mixed_bfloat16")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    policies = {layer.dtype_policy.name for layer in loaded._flatten_layers()}
    assert policies == {"mixed_bfloat16"}
    for before, after in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def slow_sequence(layer, items):
    """Self-attention and pooling of one sequence without padding, head by head, word by word."""
    width = HEADS * HEAD_DIM
    q, k, v = np.split(items @ layer.self_attention.projection.numpy(), 3, axis=1)
    context = np.zeros((len(items), width))
    for head in range(HEADS):
        part = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
        for i in range(len(items)):
            weights = softmax(
                np.array([q[i, part] @ k[j, part] for j in range(len(items))]) / np.sqrt(HEAD_DIM)
            )
            context[i, part] = sum(weights[j] * v[j, part] for j in range(len(items)))
    pooling = layer.pooling
    hidden = np.tanh(context @ pooling.projection.numpy() + pooling.bias.numpy())
    return softmax((hidden @ pooling.query.numpy())[:, 0]) @ context


def test_news_encoder_equals_numpy():
    encoder = NewsEncoder(**NEWS)
    encoder.build()
    random_weights(encoder)
    words = encoder.embedding.embeddings.numpy()
    expected = [
        slow_sequence(encoder.title, words[title[title != 0]]) if title.any() else np.zeros(DIM)
        for title in TITLES
    ]
    np.testing.assert_allclose(encoder({"title": TITLES}), expected, atol=1e-5)


def pooled(pooling, vectors):
    hidden = np.tanh(vectors @ pooling.projection.numpy() + pooling.bias.numpy())
    return softmax((hidden @ pooling.query.numpy())[:, 0]) @ vectors


def slow_cnn(layer, words):
    """Convolution and pooling of one text without padding, window by window."""
    kernel = layer.kernel.numpy().reshape(words.shape[1], layer.window, layer.filters)
    beside = np.zeros((layer.window // 2, words.shape[1]))
    padded = np.concatenate([beside, words, beside])
    features = [
        np.maximum(np.einsum("wd,dwf->f", padded[i : i + layer.window], kernel) + layer.bias, 0)
        for i in range(len(words))
    ]
    return pooled(layer.pooling, np.array(features))


@pytest.mark.parametrize("window", [1, 3, 5])
def test_text_cnn_equals_numpy(window):
    layer = TextCnn(DIM, window, ATTENTION)
    layer.build((None, 5))
    random_weights(layer)
    items = floats(8, 5)
    expected = [
        slow_cnn(layer, items[row[row != 0]]) if row.any() else np.zeros(DIM) for row in ROWS
    ]
    np.testing.assert_allclose(layer(items, ROWS, ROWS != 0), expected, atol=1e-5)


def test_views_encoder_equals_numpy():
    encoder = ViewsEncoder(**VIEWS)
    encoder.build()
    random_weights(encoder)
    words, expected = encoder.embedding.embeddings.numpy(), []
    for row in range(8):
        views = []
        for name, layer in zip(("title", "body"), encoder.of_text, strict=True):
            ids = VIEWED[name][row]
            if ids.any():  # a text without words is no view
                views.append(slow_cnn(layer, words[ids[ids != 0]]))
        category = encoder.of_category[0].embeddings.numpy()[VIEWED["category"][row]]
        for values, dense in zip((category, VIEWED["vector"][row]), encoder.dense, strict=True):
            kernel, bias = (weight.numpy() for weight in dense.weights)
            views.append(np.maximum(values @ kernel + bias, 0))
        expected.append(pooled(encoder.pooling, np.array(views)))
    np.testing.assert_allclose(encoder(VIEWED), expected, atol=1e-5)


def test_attentive_user_encoder_equals_numpy():
    encoder = AttentiveUserEncoder(DIM, ATTENTION)
    encoder.build()
    random_weights(encoder)
    vectors = floats(8, DIM)
    expected = [
        pooled(encoder.pooling, vectors[row[row != 0]]) if row.any() else np.zeros(DIM)
        for row in ROWS
    ]
    np.testing.assert_allclose(encoder(vectors, ROWS), expected, atol=1e-5)


def test_document_encoder_equals_numpy():
    encoder = DocumentEncoder(3, 2, 5, DIM, 0.3)
    encoder.build()
    random_weights(encoder)
    values = VIEWED["vector"]
    for dense, norm in zip(encoder.dense, encoder.norms, strict=True):
        kernel, bias = (weight.numpy() for weight in dense.weights)
        values = np.maximum(values @ kernel + bias, 0)
        gamma, beta, mean, variance = (weight.numpy() for weight in norm.weights)
        values = (values - mean) / np.sqrt(variance + norm.epsilon) * gamma + beta
    kernel, bias = (weight.numpy() for weight in encoder.last.weights)
    expected = np.maximum(values @ kernel + bias, 0)
    np.testing.assert_allclose(encoder({"vector": VIEWED["vector"]}), expected, atol=1e-4)


def slow_fast_attention(layer, items):
    """Fastformer's attention of one sequence without padding, head by head, item by item."""
    width = HEADS * HEAD_DIM
    q, k, v = np.split(items @ layer.projection.numpy(), 3, axis=1)
    mixed = np.zeros((len(items), width))
    for head in range(HEADS):
        part = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
        of_query, of_key = layer.weighing.numpy()[:, head]
        alpha = softmax(q[:, part] @ of_query / np.sqrt(HEAD_DIM))
        p = k[:, part] * sum(a * one for a, one in zip(alpha, q[:, part], strict=True))
        beta = softmax(p @ of_key / np.sqrt(HEAD_DIM))
        mixed[:, part] = v[:, part] * sum(b * one for b, one in zip(beta, p, strict=True))
    return mixed @ layer.transform.numpy() + q


def test_fast_attention_equals_numpy():
    layer = FastAttention(HEADS, HEAD_DIM)
    layer.build((None, DIM))
    random_weights(layer)
    items = floats(8, DIM)
    found = np.array(layer(layer.project(ops.convert_to_tensor(items)), ROWS, ROWS != 0))
    for row, one in zip(ROWS, found, strict=True):
        if row.any():
            expected = slow_fast_attention(layer, items[row[row != 0]])
            np.testing.assert_allclose(one[row != 0], expected, atol=1e-5)


def test_user_encoder_equals_numpy():
    encoder = UserEncoder(**SMALL)
    encoder.build()
    random_weights(encoder)
    vectors = floats(8, DIM)
    expected = [
        slow_sequence(encoder.history, vectors[row[row != 0]]) if row.any() else np.zeros(DIM)
        for row in ROWS
    ]
    np.testing.assert_allclose(encoder(vectors, ROWS), expected, atol=1e-5)


def test_recommender_equals_encoding_every_title_of_every_sample_apart():
    model = TwoTower(NewsEncoder(**NEWS), UserEncoder(**SMALL))
    model.build()
    random_weights(model)
    catalogue = np.concatenate([np.zeros((1, 6), np.int32), TITLES])
    history, candidates = left([4, 0, 2], 4, 9), left([5, 3, 1], 5, 9)

    def news(row):
        return np.array(model.news_encoder({"title": catalogue[row][None]}))[0]

    expected = np.full((3, 5), -1e9)
    for i in range(3):
        clicked = [news(row) for row in history[i] if row]
        user = (
            slow_sequence(model.user_encoder.history, np.array(clicked))
            if clicked
            else np.zeros(DIM)
        )
        for j, row in enumerate(candidates[i]):
            if row:
                expected[i, j] = user @ news(row)
    for training in (False, True):
        np.testing.assert_allclose(
            model(
                {"title": catalogue},
                {"history": history, "candidates": candidates},
                training=training,
            ),
            expected,
            atol=1e-4,
        )


@pytest.mark.parametrize("more", [1, 7, 40])
def test_padding_does_not_move_a_vector(more):
    model = small_model(NrmsConfig(), 20)
    wide_titles, wide_rows = (np.pad(rows, ((0, 0), (0, more))) for rows in (TITLES, ROWS))
    np.testing.assert_allclose(
        model.news_encoder({"title": TITLES}), model.news_encoder({"title": wide_titles}), atol=1e-6
    )
    vectors = floats(8, 400)
    np.testing.assert_allclose(
        model.user_encoder(vectors, ROWS), model.user_encoder(vectors, wide_rows), atol=1e-6
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model, and its exported encoders."""
    folder = tmp_path_factory.mktemp("exported")
    model = TwoTower(NewsEncoder(**NEWS), UserEncoder(**SMALL))
    model.build()
    random_weights(model)
    export_model(model, folder, SPECS)
    by_keras = Encoders.of(model).runtime
    check_parity(model.graphs(SPECS), by_keras, folder, {"title": TITLES})
    return model, Encoders.exported(folder)


def scattered(rows, seed):
    """The same items in the same order, with padding in front, at the end and between them."""
    width = rows.shape[1] + 3
    wide = np.zeros((len(rows), width), np.int32)
    rng = np.random.default_rng(seed)
    for row, given in zip(wide, rows, strict=True):
        items = given[given != 0]
        row[np.sort(rng.choice(width, len(items), replace=False))] = items
    return wide


def front_padded(rows):
    return np.stack([np.append(row[row == 0], row[row != 0]) for row in rows])


@pytest.mark.parametrize(
    "move", [front_padded, *(partial(scattered, seed=seed) for seed in range(3))]
)
def test_it_does_not_matter_where_the_padding_stands(move, exported):
    model, onnx = exported
    vectors = floats(8, DIM)
    for encoders in (Encoders.of(model), onnx):
        moved = encoders.encode_news(move(TITLES)), encoders.encode_users(vectors, move(ROWS))
        given = encoders.encode_news(TITLES), encoders.encode_users(vectors, ROWS)
        for there, here in zip(moved, given, strict=True):
            np.testing.assert_allclose(there, here, atol=1e-6)
            assert np.abs(here).max() > 0.1


@pytest.mark.parametrize("move", [front_padded, partial(scattered, seed=1)])
def test_it_does_not_matter_where_the_padding_of_a_batch_stands(move):
    model = TwoTower(NewsEncoder(**NEWS), UserEncoder(**SMALL))
    model.build()
    random_weights(model)
    catalogue = np.concatenate([np.zeros((1, 6), np.int32), TITLES])
    history, candidates = left([4, 0, 2], 4, 9), left([5, 5, 5], 5, 9)
    moved = model({"title": move(catalogue)}, {"history": move(history), "candidates": candidates})
    np.testing.assert_allclose(
        moved,
        model({"title": catalogue}, {"history": history, "candidates": candidates}),
        atol=1e-5,
    )


def test_what_padding_points_to_has_no_influence():
    encoder = UserEncoder(**SMALL)
    encoder.build()
    vectors = floats(8, DIM)
    loud = vectors.copy()
    loud[0] = 1e4
    np.testing.assert_array_equal(encoder(vectors, ROWS), encoder(loud, ROWS))


def test_empty_title_and_empty_history_give_zeros():
    news = NewsEncoder(**NEWS)
    users = UserEncoder(**SMALL)
    news.build()
    users.build()
    np.testing.assert_array_equal(news({"title": np.zeros((2, 4), np.int32)}), np.zeros((2, DIM)))
    np.testing.assert_array_equal(
        users(floats(3, DIM), np.zeros((2, 4), np.int32)), np.zeros((2, DIM))
    )


@pytest.mark.parametrize("count", [0, 1, 3, 4, 14])
def test_training_in_buckets_gives_what_inference_gives(count):
    layer = SequenceEncoder(HEADS, HEAD_DIM, ATTENTION, buckets=4)
    layer.build((None, DIM))
    rows = left(RNG.integers(0, 6, count), 5, 8).reshape(count, 5)
    items = floats(8, DIM)
    np.testing.assert_allclose(
        layer(items, rows, rows != 0, training=True), layer(items, rows, rows != 0), atol=1e-6
    )


@pytest.mark.parametrize(("head_dim", "buckets"), [(8, 2), (16, 4), (20, 8)])
def test_the_number_of_groups_follows_from_the_size_and_is_saved(head_dim, buckets):
    layer = SequenceEncoder(heads=8 if head_dim < 20 else 20, head_dim=head_dim, attention_dim=5)
    assert layer.get_config()["buckets"] == buckets
    again = SequenceEncoder.from_config(layer.get_config() | {"buckets": 3})
    assert again.get_config()["buckets"] == 3


def test_dropout_acts_in_training_only():
    encoder = NewsEncoder(**{**NEWS, "dropout": 0.5})
    encoder.build()
    still = [np.array(encoder({"title": TITLES})) for _ in range(2)]
    moving = [np.array(encoder({"title": TITLES}, training=True)) for _ in range(2)]
    np.testing.assert_array_equal(still[0], still[1])
    assert np.abs(moving[0] - moving[1]).max() > 0


def test_frozen_word_vectors_are_not_trainable():
    config = NrmsConfig(word_dim=5, train_word_vectors=False, **SMALL)
    vectors = floats(20, 5)
    model = small_model(config, 20, vectors=vectors)
    np.testing.assert_array_equal(model.news_encoder.embedding.get_weights()[0], vectors)
    assert not any(weight.shape == (20, 5) for weight in model.trainable_variables)


@pytest.mark.parametrize(
    "make",
    [lambda: SelfAttention(0, 3), lambda: SelfAttention(2, -1), lambda: AdditiveAttention(0)],
)
def test_sizes_must_be_positive(make):
    with pytest.raises(ValueError, match=r"should be a positive integer\. Received: "):
        make()
