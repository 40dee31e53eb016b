"""Small clouds with known answers for the tests of alignment."""

import numpy as np

from jaxehr.ot import costs
from jaxehr.ot.align import Clouds


def random_problem(seed, n=12, m=9, size=4):
    """Random unit rows, random weights, no linear terms."""
    generator = np.random.default_rng(seed)
    u, v = generator.normal(size=(n, size)), generator.normal(size=(m, size))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    a, b = generator.random(n) + 0.5, generator.random(m) + 0.5
    none = np.zeros((n, 0)), np.zeros((m, 0))
    return costs.Problem(u, v, a / a.sum(), b / b.sum(), *none)


def planted(seed, n=300, size=8, pairs=20, noise=0.1, classes=2, clusters=8):
    """Clustered latents, rotated; returns clouds, and rows in neither of them.

    The first `pairs` rows are in both clouds, the others of each cloud in one only.
    """
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(clusters, size))
    turn = np.linalg.qr(generator.normal(size=(size, size)))[0]
    total = 2 * n - pairs + 200
    cluster = generator.integers(0, clusters, total)
    z = centres[cluster] + 0.5 * generator.normal(size=(total, size))
    other = z @ turn + noise * generator.normal(size=z.shape)
    label = cluster % classes
    source, target = np.arange(n), np.r_[:pairs, n : 2 * n - pairs]
    held = np.arange(2 * n - pairs, total)
    none = np.zeros(size)
    both = np.stack([np.arange(pairs)] * 2, 1)
    clouds = Clouds(
        z[source], label[source], other[target], label[target], both, none, none
    )
    return clouds, (z[held], label[held], other[held]), turn


def nrmse(guess, truth, cloud):
    error = np.sum((np.asarray(guess) - truth) ** 2)
    return float(np.sqrt(error / np.sum((truth - np.asarray(cloud).mean(0)) ** 2)))
