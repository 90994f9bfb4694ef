"""Which layers of an encoder learn, and how fast."""

import itertools

import pytest
import torch
from torch import nn

from zoobot.errors import SettingError
from zoobot.estimators.encoders import create_encoder
from zoobot.estimators.layers import count_layers, freeze_layers, learning_rate_scales

ENCODERS = ["resnet10t", "tf_efficientnet_lite0", "convnext_atto", "test_vit", "mobilenetv3_small_050"]


@pytest.mark.parametrize("name", ENCODERS)
def test_layers_that_are_trained_are_the_last_ones(name):
    encoder = create_encoder(name, image_size=64)
    counts = []
    for trained in range(count_layers(encoder) + 1):
        freeze_layers(encoder, trained)
        counts.append(sum(p.numel() for p in encoder.parameters() if p.requires_grad))
    assert counts[0] == 0
    assert counts[-1] == sum(p.numel() for p in encoder.parameters())
    assert all(fewer < more for fewer, more in itertools.pairwise(counts))
    shares = learning_rate_scales(encoder, 0.5)
    assert set(shares) == {name for name, _ in encoder.named_parameters()}
    freeze_layers(encoder, 1)
    assert {shares[name] for name, p in encoder.named_parameters() if p.requires_grad} == {0.5}


def test_frozen_parts_hold_their_statistics_and_the_others_move():
    encoder = create_encoder("resnet10t")
    frozen = freeze_layers(encoder, 1)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.train()
    for part in frozen:
        part.eval()
    encoder(torch.rand(4, 3, 64, 64))
    moved = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith("layer4") for name in moved)


def test_an_encoder_of_ones_own_has_its_parts_as_layers():
    encoder = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4))
    assert count_layers(encoder) == 2
    assert learning_rate_scales(encoder, 0.1) == pytest.approx(
        {"0.weight": 0.01, "0.bias": 0.01, "2.weight": 0.1, "2.bias": 0.1}
    )


def test_a_negative_number_of_layers_is_refused():
    with pytest.raises(SettingError, match="from 0"):
        freeze_layers(create_encoder("resnet10t"), -1)
