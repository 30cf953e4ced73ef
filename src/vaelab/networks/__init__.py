"""Networks: tensor to tensor. An encoder ends in features, a decoder in the parameters of a likelihood."""

from vaelab.networks.base import Decoder, Encoder
from vaelab.networks.condition import AttributeCondition, Condition, LabelCondition, Unconditional
from vaelab.networks.conv import ConvDecoder, ConvEncoder
from vaelab.networks.corruption import Corruption, GaussianNoise, Masking, NoCorruption, SaltAndPepper
from vaelab.networks.discriminator import ConvDiscriminator, Discriminator, MLPDiscriminator
from vaelab.networks.mlp import MLPDecoder, MLPEncoder
from vaelab.networks.pixelcnn import GatedPixelCNN, PixelCNNDecoder
from vaelab.networks.resnet import ResNetDecoder, ResNetEncoder

__all__ = [
    "AttributeCondition",
    "Condition",
    "ConvDecoder",
    "ConvDiscriminator",
    "ConvEncoder",
    "Corruption",
    "Decoder",
    "Discriminator",
    "Encoder",
    "GatedPixelCNN",
    "GaussianNoise",
    "LabelCondition",
    "MLPDecoder",
    "MLPDiscriminator",
    "MLPEncoder",
    "Masking",
    "NoCorruption",
    "PixelCNNDecoder",
    "ResNetDecoder",
    "ResNetEncoder",
    "SaltAndPepper",
    "Unconditional",
]
