from __future__ import annotations

import torch

from vaelab.callbacks import drawing
from vaelab.callbacks.loggers import as_uint8


def test_a_grid_shows_every_image_where_it_belongs():
    images = torch.linspace(0, 1, 6).view(6, 1, 1, 1).expand(6, 1, 28, 28)
    picture = drawing.grid(images, columns=3)
    side = 2 * 28 + 2  # images are enlarged, with a frame of two pixels
    assert picture.shape == (3, 2 * side + 2, 3 * side + 2)
    for i, value in enumerate(torch.linspace(0, 1, 6)):
        row, column = divmod(i, 3)
        assert torch.allclose(picture[:, row * side + side // 2, column * side + side // 2], value.expand(3))


def test_a_grid_maps_the_range_of_the_data_to_black_and_white():
    picture = drawing.grid(torch.full((1, 3, 56, 56), 2.0), columns=1, value_range=(-2.0, 2.0))
    assert float(picture[:, 30, 30].min()) == 1.0
    picture = drawing.grid(torch.full((1, 5, 56, 56), -2.0), columns=1, value_range=(-2.0, 2.0))
    assert float(picture[:, 30, 30].max()) == 0.0


def test_the_manifold_runs_from_left_to_right_and_from_bottom_to_top():
    class Coordinates:
        latent_shape = (2,)

        def decode(self, z):
            return (z[:, :, None, None] / 4 + 0.5).expand(-1, 2, 56, 56)[:, self.axis : self.axis + 1]

    model = Coordinates()
    model.axis = 0
    first = drawing.manifold(model, side=3, value_range=(0.0, 1.0))[0]
    assert first[30, 30] < first[30, 90] < first[30, 150]
    assert first[30, 30] == first[90, 30]
    model.axis = 1
    second = drawing.manifold(model, side=3, value_range=(0.0, 1.0))[0]
    assert second[30, 30] > second[90, 30] > second[150, 30]
    # quantiles of the standard normal: 2.5 %, 50 %, 97.5 %
    assert torch.allclose(first[30, [30, 90, 150]], torch.tensor([-1.96, 0.0, 1.96]) / 4 + 0.5, atol=1e-3)


def test_bars_scatter_and_bytes():
    bars = drawing.kl_bars(torch.tensor([0.1, 3.0, 1.0]))
    assert bars.shape[0] == 3
    assert 0 <= float(bars.min()) < float(bars.max()) <= 1
    assert as_uint8(torch.tensor([[[0.0, 1.0, 2.0]]] * 3)).tolist() == [[[0] * 3, [255] * 3, [255] * 3]]


def test_the_scatter_takes_labels_and_attributes():
    class Means:
        def encode(self, x, context):
            self.mean = x.flatten(1)
            return self

    x = torch.randn(5, 1, 1, 2)
    one = drawing.latent_scatter(Means(), x, torch.arange(5))
    for attributes in (1, 2, 4):
        y = torch.randn(5, attributes)
        two = drawing.latent_scatter(Means(), x, y)
        assert two.shape == one.shape
        assert torch.equal(two, drawing.latent_scatter(Means(), x, y[:, :1]))
