"""Solves ridge regressions with a bias that is not shrunk, from rows or from their sums, in float64."""

import torch
from torch import Tensor

from kafal_pipeline.common.errors import UserError

GRID = torch.logspace(-5, 3, 33, dtype=torch.float64)  # penalties that are tried, in multiples of the mean eigenvalue
ROUNDING = 1e-10  # eigenvalues below this share of the largest are rounding


def packed(matrix: Tensor) -> Tensor:
    """Return the upper triangle of a symmetric matrix ``(n, n)``, ``(n (n + 1) / 2,)``."""
    rows, columns = torch.triu_indices(*matrix.shape, device=matrix.device)
    return matrix[rows, columns]


def unpacked(triangle: Tensor) -> Tensor:
    """Return the matrix of a triangle.

    >>> unpacked(packed(torch.tensor([[1.0, 2.0], [2.0, 3.0]])))
    tensor([[1., 2.],
            [2., 3.]])
    """
    size = int(((8 * len(triangle) + 1) ** 0.5 - 1) / 2 + 0.5)
    rows, columns = torch.triu_indices(size, size, device=triangle.device)
    matrix = triangle.new_empty(size, size)
    matrix[rows, columns] = triangle
    matrix[columns, rows] = triangle
    return matrix


def solve_sums(gram: Tensor, moment: Tensor, penalty: float | None) -> tuple[Tensor, Tensor]:
    """Return weights ``(d, C)`` and bias ``(C,)`` from sums over rows f of features with a 1 behind them.

    `gram`: F'F, packed. `moment`: F'Y ``(d + 1, C)``; Y has the unit vectors of the labels. `penalty`: None chooses the
    one of `least_gcv`. Raises `UserError` if it is too small for numbers of this precision.
    """
    whole = unpacked(gram)
    count, x, y = float(whole[-1, -1]), whole[-1, :-1] / whole[-1, -1], moment[-1] / whole[-1, -1]
    gram, moment = whole[:-1, :-1] - count * torch.outer(x, x), moment[:-1] - count * torch.outer(x, y)
    if penalty is None:
        values, vectors = torch.linalg.eigh(gram)
        explained = (vectors.T @ moment).square().sum(dim=1) / values
        penalty = least_gcv(values, explained, count * (1 - float(y.square().sum())), count)
    weight = _solved(gram, moment, penalty)
    return weight, y - x @ weight


def solve_rows(rows: Tensor, targets: Tensor, penalty: float | None) -> tuple[Tensor, Tensor]:
    """Return the same from the rows ``(n, d)`` and Y ``(n, C)`` themselves, by the smaller of two systems."""
    x, y = rows.mean(dim=0), targets.mean(dim=0)
    rows, targets = rows - x, targets - y
    wide = rows.shape[0] < rows.shape[1]
    gram = rows @ rows.T if wide else rows.T @ rows
    right = targets if wide else rows.T @ targets
    if penalty is None:
        values, vectors = torch.linalg.eigh(gram)
        explained = (vectors.T @ right).square().sum(dim=1)
        explained = explained if wide else explained / values
        penalty = least_gcv(values, explained, float(targets.square().sum()), float(len(rows)))
    weight = _solved(gram, right, penalty)
    weight = rows.T @ weight if wide else weight
    return weight, y - x @ weight


def least_gcv(values: Tensor, explained: Tensor, total: float, count: float) -> float:
    r"""Return the penalty of least generalised cross-validation error, of `GRID`.

    With the eigenvalues s of the centred F'F (or FF'), the squared targets z along each, and the bias as one more
    degree of freedom,

    .. math::
        GCV(\lambda) = \frac{|Y|^2 - \sum z + \sum z (\lambda / (s + \lambda))^2}
            {(n - 1 - \sum s / (s + \lambda))^2}

    `values`: s. `explained`: z. `total`: |Y|^2 about the mean. `count`: n.
    """
    kept = values > ROUNDING * values.max().clamp(min=1e-300)
    if not kept.any():
        return 1.0  # all rows are equal: there are no weights to shrink
    values, explained = values[kept], explained[kept]
    penalties = (GRID.to(values.device) * values.mean()).unsqueeze(1)
    shrunk = penalties / (values + penalties)
    residual = max(total - float(explained.sum()), 0.0) + (explained * shrunk.square()).sum(dim=1)
    freedom = (count - 1 - (1 - shrunk).sum(dim=1)).clamp(min=0)
    error = torch.where(freedom > ROUNDING * count, residual / freedom.square(), torch.inf)
    return float(penalties[error.argmin(), 0])


def _solved(gram: Tensor, right: Tensor, penalty: float) -> Tensor:
    """Solve ``(gram + penalty I) W = right``."""
    shrunk = gram.clone()
    shrunk.diagonal().add_(penalty)
    factor, failed = torch.linalg.cholesky_ex(shrunk)
    if int(failed):
        raise UserError(
            f"update.penalty: found {penalty:g}, which is too small for these features: rounding decides. Raise it, or "
            "leave it out."
        )
    return torch.cholesky_solve(right, factor)
