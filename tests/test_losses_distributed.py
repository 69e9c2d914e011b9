"""The loss over two ranks (gloo): value, and gradient after DistributedDataParallel's mean, against one process with
the whole batch.
"""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from seg_recipe.losses import SegmentationLoss, power_jaccard

SETTINGS = {"jaccard_weight": 0.75, "cross_entropy_weight": 0.25, "power": 1.5, "smooth": 1.0, "label_smoothing": 0.1}
CASES = [(reduction, classes) for reduction in ("image", "batch", "micro") for classes in ("present", "all")]


def example():
    """Four images; the ranks' halves differ in their classes and in how much of them counts."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 6, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (4, 11, 13), generator=generator)
    labels[:2][labels[:2] == 3] = 0  # class 3 is on rank 1 only
    labels[3, :, 5:] = 255
    return images, labels.to(torch.uint8)


def network():
    torch.manual_seed(1)
    return nn.Conv2d(3, 5, 3, padding=1).double()


def loss_and_gradient(model, loss, images, labels):
    terms = loss(model(images), labels)
    terms.total.backward()
    return terms.total.detach(), torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def rank_main(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    images, labels = example()
    mine = slice(2 * rank, 2 * rank + 2)
    results = {}
    for reduction, classes in CASES:
        loss = SegmentationLoss(
            **SETTINGS, reduction=reduction, classes=classes, class_weights=[1.0, 2.0, 0.5, 3.0, 1.0]
        )
        model = nn.parallel.DistributedDataParallel(network())
        results[reduction, classes] = loss_and_gradient(model, loss, images[mine], labels[mine])
    batch = SegmentationLoss(**SETTINGS, reduction="batch", classes="present")
    results["evaluation"] = batch.eval()(network()(images[mine]), labels[mine]).total.detach()
    if (
        rank == 0
    ):  # no collective in evaluation, nor without `synchronize`: rank 1 does not take part, and nothing hangs
        batch(network()(images[mine]), labels[mine])
        power_jaccard(
            network()(images[mine]),
            labels[mine],
            power=1.5,
            smooth=1.0,
            reduction="batch",
            classes="present",
            synchronize=False,
        )
    torch.save(results, f"{folder}/rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GLOO_SOCKET_IFNAME", "lo")
        mp.spawn(rank_main, (str(folder),), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.mark.long
@pytest.mark.parametrize(("reduction", "classes"), CASES)
def test_two_ranks_equal_one_process(ranks, reduction, classes):
    loss = SegmentationLoss(**SETTINGS, reduction=reduction, classes=classes, class_weights=[1.0, 2.0, 0.5, 3.0, 1.0])
    value, gradient = loss_and_gradient(network(), loss, *example())
    values = [rank[reduction, classes][0] for rank in ranks]
    torch.testing.assert_close(sum(values) / 2, value, rtol=1e-12, atol=0)
    if reduction != "image":  # one loss, the same on both
        assert torch.equal(values[0], values[1])
    for rank in ranks:
        assert (rank[reduction, classes][1] - gradient).norm() <= 1e-12 * gradient.norm()


@pytest.mark.long
def test_the_mean_of_local_batch_losses_is_another_loss(ranks):
    """What DistributedDataParallel does to sums over the batch when nobody adds them up: evaluation here, which stays
    local.
    """
    value = SegmentationLoss(**SETTINGS, reduction="batch", classes="present")(
        network()(example()[0]), example()[1]
    ).total
    local = sum(rank["evaluation"] for rank in ranks) / 2
    assert abs(local - value) > 1e-3
