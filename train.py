"""Trains a model: `python train.py model.latent_dim=16`. See `python train.py --help`."""

from vaelab.train import main

if __name__ == "__main__":
    main()
