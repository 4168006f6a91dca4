from tests import nightly_cycle


def test_two_days_from_data_to_a_new_model_in_the_running_service(bucket, tmp_path):
    nightly_cycle.run(bucket, tmp_path)
