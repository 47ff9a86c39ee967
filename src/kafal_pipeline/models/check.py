"""Checks that a network is what training, queries and aggregation take it for, by one forward and one backward."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kafal_pipeline.common.errors import NotAllowed, kind_of


def check_network(make: Callable[[torch.Generator], nn.Module], images: Tensor, num_classes: int) -> nn.Module:
    """Return what `make` makes if it is a `kafal_pipeline.models.network.Network`; NotAllowed otherwise.

    `make`: draws the weights from a generator. `images`: a few, normalised, float32 ``(n, C, H, W)``.
    """
    with torch.random.fork_rng(devices=[]):
        made = []
        for seed in range(2):  # what `initialise` leaves as the constructor drew it differs
            torch.manual_seed(seed)
            made.append(make(torch.Generator().manual_seed(0)).eval())
    network, again = made
    _check_tensors(network, again)
    head = getattr(network, "head", None)
    if not isinstance(head, nn.Linear) or head.out_features != num_classes or head.bias is None:
        raise NotAllowed(
            f"`head` is {head!r}; allowed: a torch.nn.Linear with a bias and {num_classes} outputs, one for each class."
        )
    with torch.no_grad():
        features, logits, second = network.features(images), network(images), network(images)  # type: ignore[operator]
    for name, found, width in (("features", features, head.in_features), ("forward", logits, num_classes)):
        wanted = (len(images), width)
        if not isinstance(found, Tensor) or found.shape != wanted or found.dtype != torch.float32:
            raise NotAllowed(f"`{name}` returned {kind_of(found)}; allowed: a float32 tensor of shape {wanted}.")
    if not logits.isfinite().all():
        raise NotAllowed("`forward` of freshly drawn weights is not finite.")
    if not torch.equal(logits, second):
        raise NotAllowed("in evaluation mode, `forward` of the same images gave other logits the second time.")
    with torch.no_grad():
        if not torch.allclose(head(features), logits, rtol=1e-3, atol=1e-4):
            raise NotAllowed("`forward(images)` is not `head(features(images))`.")
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(network.train()(images).sum(), parameters, allow_unused=True)
    if all(gradient is None for gradient in gradients):
        raise NotAllowed("`forward` has no gradient for any parameter.")
    return network


def _check_tensors(network: nn.Module, again: nn.Module) -> None:
    """Check the parameters and buffers of a network; `again` is one made again with the same generator."""
    if not list(network.parameters()):
        raise NotAllowed("it has no parameters, so that there is nothing to train.")
    for name, found in network.named_parameters():
        if found.dtype != torch.float32 or not found.requires_grad:
            gradient = "" if found.requires_grad else " without requires_grad"
            raise NotAllowed(f"its parameter {name!r} is {found.dtype}{gradient}; allowed: float32 that is trained.")
    first, second = network.state_dict(), again.state_dict()
    for name, tensor in first.items():
        if not isinstance(tensor, Tensor) or tensor.is_complex():
            raise NotAllowed(f"its state has {kind_of(tensor)} as {name!r}; allowed: tensors of real numbers.")
    if first.keys() != second.keys() or not all(torch.equal(first[name], second[name]) for name in first):
        raise NotAllowed("`initialise` gave other weights for the same generator: it must draw all from it.")
