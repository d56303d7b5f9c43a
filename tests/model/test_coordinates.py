import torch

from online_tapir.model.coordinates import refinement_resolutions, rescale


def test_rescaling_moves_each_axis_by_its_own_ratio() -> None:
    xy = torch.tensor([[10.0, 20.0], [96.0, 64.0]])
    assert rescale(xy, (64, 96), (8, 24)).tolist() == [[2.5, 2.5], [24.0, 8.0]]


def test_rescaling_there_and_back_changes_nothing() -> None:
    xy = torch.rand(7, 2, generator=torch.Generator().manual_seed(0)) * 100
    torch.testing.assert_close(rescale(rescale(xy, (480, 854), (256, 256)), (256, 256), (480, 854)), xy)


def test_a_frame_no_larger_than_the_initial_resolution_is_refined_there_alone() -> None:
    assert refinement_resolutions((256, 256), (256, 256), 8) == [(256, 256)]
    assert refinement_resolutions((256, 256), (120, 200), 8) == [(256, 256)]


def test_larger_frames_are_approached_in_geometric_steps_of_multiples_of_eight() -> None:
    assert refinement_resolutions((256, 256), (384, 512), 8) == [(256, 256), (384, 512)]
    steps = refinement_resolutions((256, 256), (1080, 1920), 8)
    assert steps[0] == (256, 256)
    assert steps[-1] == (1080, 1920)
    assert len(steps) == 4
    assert all(side % 8 == 0 for step in steps for side in step)
    assert steps == sorted(steps)
