"""A few random faults; ``long.py`` makes as many happen as one likes. What they do to one file is tested elsewhere."""

import harness
import pytest


@pytest.fixture(scope="module")
def campaign(session_dir, tmp_path_factory):
    return harness.Campaign(tmp_path_factory.mktemp("faults"), seed=0)


@pytest.mark.xdist_group("faults")
def test_an_interrupted_run_ends_as_an_undisturbed_one(campaign):
    moments = ("preparation", "step", "checkpoint")
    assert len(campaign.kills("SIGKILL", "SIGTERM", moments=moments)) == len(moments)


@pytest.mark.xdist_group("faults")
def test_records_that_rot_under_way_are_named_and_mended(campaign):
    assert campaign.rotten_records()


@pytest.mark.xdist_group("faults")
def test_a_clock_that_jumps_changes_nothing(campaign):
    assert campaign.jumping_clock()
