import json

import pytest

from nrms.errors import ConfigError
from nrms.training.cluster import refuse_cluster


def cluster(**tasks):
    return json.dumps({"cluster": tasks, "task": {"type": next(iter(tasks), "worker"), "index": 0}})


@pytest.mark.parametrize(
    "setting", [None, "", "{}", cluster(), cluster(worker=["a:1"]), cluster(chief=["a:1"])]
)
def test_tf_config_may_name_one_worker(setting):
    refuse_cluster({} if setting is None else {"TF_CONFIG": setting})


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        (cluster(worker=["a:1", "b:1"]), "2 workers"),
        (cluster(chief=["a:1"], worker=["b:1"]), "2 workers"),
        (cluster(chief=["a:1"], worker=["b:1"], ps=["c:1"], evaluator=["d:1"]), "4 workers"),
        (json.dumps({"cluster": {"worker": {"0": "a:1", "1": "b:1"}}}), "2 workers"),
        ("{", "TensorFlow's JSON object"),
        ("[]", "TensorFlow's JSON object"),
        ("null", "TensorFlow's JSON object"),
        (json.dumps({"cluster": ["a:1", "b:1"]}), "TensorFlow's JSON object"),
        (json.dumps({"cluster": {"worker": 2}}), "TensorFlow's JSON object"),
        ("[" * 100_000, "TensorFlow's JSON object"),
    ],
)
def test_tf_config_of_several_workers_is_refused(setting, named):
    with pytest.raises(ConfigError, match=r"^TF_CONFIG must ") as caught:
        refuse_cluster({"TF_CONFIG": setting})
    assert named in str(caught.value)
    assert len(str(caught.value)) < 300
